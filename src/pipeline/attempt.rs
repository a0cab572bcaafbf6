//! One call of a transform: timeout, panics and retries are settled here.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use futures::future::FutureExt;
use tokio::time::{sleep, timeout};

use super::topology::{Stage, StageCounts};
use crate::error::Error;
use crate::packet::{Nanos, PayloadKind};
use crate::stage::{Draft, Held, Input, Out, Transform};

/// One packet in this many is timed.
const TIMED: u64 = 16;

/// How one input, or one mark between inputs, ended.
pub(crate) enum Done {
    /// It gave drafts, or none.
    Emit { input: Held, drafts: Vec<Draft> },
    /// It failed for good.
    Fail { input: Held, at_risk: Vec<Held>, kind: PayloadKind, error: Error, attempts: u32 },
    /// Nothing earlier will follow.
    Watermark { epoch: u64, pts: Nanos },
}

/// Works on one input until it has ended. `spare` is an empty list that the first try may fill.
pub(crate) async fn attempt(stage: Arc<Stage>, transform: Arc<dyn Transform>, input: Input, spare: Vec<Draft>) -> Done {
    let settings = stage.settings();
    let (held, kind) = (input.held.split(), input.payload.kind());
    // A stage with memory may have taken in half of it: trying again could count it twice.
    let most = if settings.kind.remembers() { 1 } else { settings.retry.attempts };
    let mut input = Some(input);
    let timed = stage.counts.taken.load(Ordering::Relaxed).is_multiple_of(TIMED).then(Instant::now);
    let mut spare = Some(spare);
    let mut attempts = 0;
    loop {
        attempts += 1;
        let this = if attempts < most { input.as_ref().map(Input::split) } else { input.take() };
        let Some(this) = this else { unreachable!("the input is taken only by the last try") };
        let mut out = Out { drafts: spare.take().unwrap_or_default(), ..Out::default() };
        // The call itself may panic before it gives a future.
        let call = AssertUnwindSafe(async { transform.process(this, &mut out).await }).catch_unwind();
        let result = match settings.timeout {
            None => call.await,
            Some(limit) => timeout(limit, call).await.unwrap_or_else(|_| {
                stage.metrics.timeouts.increment(1);
                Ok(Err(Error::overload(format!("no answer within {limit:?}")).hint("raise the stage's `timeout` or give it less to do")))
            }),
        };
        let error = match result {
            Ok(Ok(())) => {
                if let Some(since) = timed {
                    stage.metrics.process_seconds.record(since.elapsed().as_secs_f64());
                }
                return Done::Emit { input: held, drafts: out.drafts };
            }
            Ok(Err(error)) => error,
            Err(panic) => {
                stage.metrics.panics.increment(1);
                panicked(&*panic)
            }
        };
        if attempts >= most || !error.is_transient() {
            return Done::Fail { input: held, at_risk: at_risk(out), kind, error, attempts };
        }
        StageCounts::add(&stage.counts.retried, 1);
        sleep(settings.retry.backoff * 2u32.saturating_pow(attempts - 1)).await;
    }
}

/// Earlier inputs that are lost with the call that failed.
pub(crate) fn at_risk(out: Out) -> Vec<Held> {
    let mut at_risk = out.at_risk;
    at_risk.extend(out.drafts.into_iter().filter_map(|draft| draft.held).flatten());
    at_risk
}

/// What a panic said, as an error.
pub(crate) fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
    Error::bug(format!("panicked: {}", text.unwrap_or_else(|| "no message".to_owned())))
}
