//! One call of a transform: timeout, panics and retries are settled here.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::FutureExt;
use tokio::time::{sleep, timeout};

use super::panic::panicked;
use super::topology::{Stage, StageCounts};
use crate::error::{Error, Result};
use crate::packet::{Nanos, PayloadKind};
use crate::stage::{
    DropPolicy, Emitter, Held, InFlight, Input, PacketDraft, PendingInput, Transform,
};

/// A transform of one stage, as its calls share it.
pub(crate) struct CallContext {
    pub stage: Arc<Stage>,
    pub transform: Arc<dyn Transform>,
    /// What becomes of the inputs that the transform still holds when it goes.
    pub drop_policy: DropPolicy,
}

/// How one input, or one mark between inputs, ended.
pub(crate) enum AttemptOutcome {
    /// It gave drafts, or none.
    Emit {
        input: InFlight,
        drafts: Vec<PacketDraft>,
    },
    /// It failed for good.
    Fail {
        input: InFlight,
        at_risk: Vec<Held>,
        kind: PayloadKind,
        error: Error,
        attempts: u32,
    },
    /// Nothing earlier will follow.
    Watermark { epoch: u64, pts: Nanos },
}

/// Works on one input until it has ended. `drafts` is an empty list that the first try may fill; a
/// call is timed from `since`, if from any. What is seldom needed is boxed: this future is made for
/// every packet.
pub(crate) fn attempt(
    call_context: Arc<CallContext>,
    input: PendingInput,
    drafts: Vec<PacketDraft>,
    since: Option<Instant>,
) -> impl Future<Output = AttemptOutcome> + Send {
    let PendingInput { in_flight, data } = input;
    async move {
        let (kind, settings) = (data.payload.kind(), call_context.stage.settings());
        // A stage with memory may have input in half of it: trying again could count it twice.
        let again =
            (settings.retry.attempts > 1 && !settings.kind.is_stateful()).then(|| data.clone());
        let mut out = Emitter {
            drafts,
            at_risk: Vec::new(),
        };
        match call(
            &call_context,
            data.into_input(&in_flight, &call_context.drop_policy),
            &mut out,
        )
        .await
        {
            Ok(()) => {
                if let Some(since) = since {
                    call_context
                        .stage
                        .metrics
                        .process_seconds
                        .record(since.elapsed().as_secs_f64());
                }
                AttemptOutcome::Emit {
                    input: in_flight,
                    drafts: out.drafts,
                }
            }
            Err(error) => match again {
                Some(data) if error.is_transient() => {
                    drop((error, out));
                    Box::pin(retry(call_context, PendingInput { in_flight, data }, since)).await
                }
                _ => AttemptOutcome::Fail {
                    input: in_flight,
                    at_risk: at_risk(out),
                    kind,
                    error,
                    attempts: 1,
                },
            },
        }
    }
}

/// The second try and those that follow.
async fn retry(
    call_context: Arc<CallContext>,
    input: PendingInput,
    since: Option<Instant>,
) -> AttemptOutcome {
    let PendingInput { in_flight, data } = input;
    let retry = call_context.stage.settings().retry;
    let mut attempts = 1;
    loop {
        StageCounts::add(&call_context.stage.counts.retried, 1);
        sleep(retry.backoff * 2u32.saturating_pow(attempts - 1)).await;
        attempts += 1;
        let mut out = Emitter::default();
        match call(
            &call_context,
            data.clone()
                .into_input(&in_flight, &call_context.drop_policy),
            &mut out,
        )
        .await
        {
            Ok(()) => {
                if let Some(since) = since {
                    call_context
                        .stage
                        .metrics
                        .process_seconds
                        .record(since.elapsed().as_secs_f64());
                }
                return AttemptOutcome::Emit {
                    input: in_flight,
                    drafts: out.drafts,
                };
            }
            Err(error) if attempts >= retry.attempts || !error.is_transient() => {
                let kind = data.payload.kind();
                return AttemptOutcome::Fail {
                    input: in_flight,
                    at_risk: at_risk(out),
                    kind,
                    error,
                    attempts,
                };
            }
            Err(_) => {}
        }
    }
}

/// One try, within the stage's timeout. It is called at once and may panic before it gives a
/// future.
fn call<'a>(
    call_context: &'a CallContext,
    input: Input<'a>,
    out: &'a mut Emitter,
) -> impl Future<Output = Result<()>> + Send + 'a {
    let called = std::panic::catch_unwind(AssertUnwindSafe(|| {
        call_context.transform.process(input, out)
    }));
    async move {
        let ended = match called {
            Err(panic) => Err(panic),
            Ok(call) => {
                let mut call = AssertUnwindSafe(call).catch_unwind();
                // Most calls end at once: the timer, a large thing, is only for those that wait.
                match (
                    (&mut call).now_or_never(),
                    call_context.stage.settings().timeout,
                ) {
                    (Some(ended), _) => ended,
                    (None, None) => call.await,
                    (None, Some(limit)) => Box::pin(timeout(limit, call))
                        .await
                        .unwrap_or_else(|_| Ok(Err(late(call_context, limit)))),
                }
            }
        };
        ended.unwrap_or_else(|panic| {
            call_context.stage.metrics.panics.increment(1);
            Err(panicked(&*panic))
        })
    }
}

fn late(call_context: &CallContext, limit: Duration) -> Error {
    call_context.stage.metrics.timeouts.increment(1);
    Error::overload(format!("no answer within {limit:?}"))
        .hint("raise the stage's `timeout` or give it less to do")
}

/// Earlier inputs that are lost with the call that failed.
pub(crate) fn at_risk(out: Emitter) -> Vec<Held> {
    let mut at_risk = out.at_risk;
    at_risk.extend(
        out.drafts
            .into_iter()
            .filter_map(|draft| draft.held)
            .flatten(),
    );
    at_risk
}
