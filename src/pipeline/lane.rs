//! A lane: one transform at work on one stream. Inputs are worked on concurrently up to the stage's `concurrency`, results leave in the
//! order of the inputs; a failure keeps its place, and other streams have lanes of their own.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesOrdered, StreamExt};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::outlet::Outlet;
use super::topology::StageCounts;
use crate::error::Error;
use crate::packet::{Head, Item, Mark, Nanos, PayloadKind};
use crate::stage::{Arrival, Draft, Fate, Flush, Held, Inbox, Input, Joined, Joiner, Out, Transform};

/// Items moved out of a queue at a time.
const GULP: usize = 64;

pub(crate) struct Lane {
    transform: Arc<dyn Transform>,
    outlet: Outlet,
    inbox: Inbox,
    joiner: Option<Joiner>,
    fate: Fate,
    force: CancellationToken,
    arrived: VecDeque<Item>,
    ready: VecDeque<Joined>,
    working: FuturesOrdered<BoxFuture<'static, Done>>,
    last: Option<Arc<Head>>,
}

/// How one input, or one mark between inputs, ended.
enum Done {
    Emit { input: Held, drafts: Vec<Draft> },
    Fail { input: Held, at_risk: Vec<Held>, kind: PayloadKind, error: Error, attempts: u32 },
    Watermark { epoch: u64, pts: Nanos },
}

impl Lane {
    pub fn new(transform: Arc<dyn Transform>, outlet: Outlet, inbox: Inbox, force: CancellationToken) -> Self {
        let fate = Fate::default();
        let joiner = outlet.stage.settings().join.clone().map(|settings| Joiner::new(settings, fate.clone()));
        let (arrived, ready, working) = (VecDeque::new(), VecDeque::new(), FuturesOrdered::new());
        Self { transform, outlet, inbox, joiner, fate, force, arrived, ready, working, last: None }
    }

    /// Works until every input is closed and everything is emitted, or until `force`: then what is left counts as lost in the shutdown.
    /// `force` ends a wait for work, never one for a reader: that ends when the reader goes.
    pub async fn run(mut self) {
        let mut open = true;
        while !self.force.is_cancelled() {
            while self.has_room()
                && let Some(next) = self.ready.pop_front()
            {
                self.begin(next).await;
            }
            if !open && self.ready.is_empty() && self.working.is_empty() {
                self.flush(Flush::End).await;
                break;
            }
            let deadline = self.joiner.as_ref().and_then(Joiner::deadline);
            // Nothing is read while the lane is full: the queue is where packets wait. A join must read on, for all its sides.
            let reads = open && (self.joiner.is_some() || self.ready.is_empty());
            tokio::select! {
                biased;
                () = self.force.cancelled() => {}
                Some(done) = self.working.next(), if !self.working.is_empty() => self.end(done).await,
                arrival = self.inbox.recv(&mut self.arrived, GULP), if reads => open = self.arrive(arrival),
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => self.join_ready(),
            }
        }
        if self.force.is_cancelled() {
            self.fate.abandon();
        }
    }

    fn has_room(&self) -> bool {
        let settings = self.outlet.stage.settings();
        let most = if settings.kind.is_sequential() { 1 } else { settings.concurrency };
        self.working.len() < most
    }

    /// Sorts what arrived into `ready`; false when every input is closed.
    fn arrive(&mut self, arrival: Arrival) -> bool {
        let Some(joiner) = &mut self.joiner else {
            for item in self.arrived.drain(..) {
                self.ready.push_back(match item {
                    Item::Packet(packet) => Joined::Input(Input::new(packet, Vec::new(), false, &self.fate)),
                    Item::Mark(mark) => Joined::Mark(mark),
                });
            }
            return arrival != Arrival::Done;
        };
        match arrival {
            Arrival::Items(input) => {
                let now = Instant::now();
                self.arrived.drain(..).for_each(|item| joiner.accept(input, item, now));
            }
            Arrival::Closed(input) => joiner.close(input),
            Arrival::Done => {}
        }
        self.join_ready();
        arrival != Arrival::Done
    }

    fn join_ready(&mut self) {
        let Some(joiner) = &mut self.joiner else { return };
        while let Some(joined) = joiner.next(Instant::now()) {
            self.ready.push_back(joined);
        }
        for (input, weight) in joiner.released() {
            self.inbox.release(input, weight);
        }
    }

    async fn begin(&mut self, next: Joined) {
        match next {
            Joined::Input(input) => {
                StageCounts::add(&self.outlet.stage.counts.taken, 1);
                if self.last.as_ref().is_some_and(|last| last.epoch < input.head.epoch) {
                    self.drain().await;
                }
                let mut work = attempt(Arc::clone(&self.outlet.stage), Arc::clone(&self.transform), input).boxed();
                // The first poll comes now, in the order of the inputs. Most calls end in it.
                match (&mut work).now_or_never() {
                    Some(done) if self.working.is_empty() => self.end(done).await,
                    Some(done) => self.working.push_back(std::future::ready(done).boxed()),
                    None => self.working.push_back(work),
                }
            }
            Joined::Mark(Mark::Watermark { epoch, pts }) => {
                let done = Done::Watermark { epoch, pts };
                if self.working.is_empty() { self.end(done).await } else { self.working.push_back(std::future::ready(done).boxed()) }
            }
            Joined::Mark(mark @ Mark::Gap { .. }) => {
                self.drain().await;
                self.flush(Flush::Gap).await;
                self.outlet.mark(&mark);
            }
        }
    }

    async fn drain(&mut self) {
        while let Some(Some(done)) = self.force.run_until_cancelled(self.working.next()).await {
            self.end(done).await;
        }
    }

    async fn end(&mut self, done: Done) {
        let (head, emitted) = match done {
            Done::Watermark { epoch, pts } => {
                self.outlet.watermark(epoch, self.transform.watermark(pts));
                return;
            }
            Done::Emit { input, drafts } => {
                let head = Arc::clone(input.head());
                let emitted = !drafts.is_empty();
                self.outlet.emit(drafts, Some(input), &head).await;
                (head, emitted)
            }
            Done::Fail { input, at_risk, kind, error, attempts } => {
                let head = Arc::clone(input.head());
                self.outlet.fail(input, at_risk, kind, &error, attempts).await;
                (head, false)
            }
        };
        if !emitted || self.outlet.stage.settings().kind.remembers() {
            self.outlet.watermark(head.epoch, self.transform.watermark(head.span.start));
        }
        self.last = Some(head);
    }

    async fn flush(&mut self, why: Flush) {
        let Some(last) = self.last.clone() else { return };
        let mut out = Out::default();
        let call = AssertUnwindSafe(self.transform.flush(why, &mut out)).catch_unwind();
        let Some(flushed) = self.force.run_until_cancelled(call).await else { return };
        match flushed {
            Ok(Ok(())) => self.outlet.emit(out.drafts, None, &last).await,
            Ok(Err(error)) => self.fail_flush(out, &error),
            Err(panic) => self.fail_flush(out, &panicked(&*panic)),
        }
    }

    fn fail_flush(&self, out: Out, error: &Error) {
        StageCounts::add(&self.outlet.stage.counts.failed, 1);
        tracing::error!(stage = self.outlet.stage.id(), %error, "flush failed");
        let drafted = out.drafts.into_iter().filter_map(|draft| draft.held).flatten();
        for held in drafted.chain(out.at_risk) {
            held.settle(crate::packet::Outcome::Dropped(crate::packet::Reason::Failed));
        }
    }
}

/// Works on one input: timeout, panics and retries are settled here.
async fn attempt(stage: Arc<super::topology::Stage>, transform: Arc<dyn Transform>, input: Input) -> Done {
    let settings = stage.settings();
    let (held, kind) = (input.held.split(), input.payload.kind());
    // A stage with memory may have taken in half of it: trying again could count it twice.
    let most = if settings.kind.remembers() { 1 } else { settings.retry.attempts };
    let mut input = Some(input);
    let mut attempts = 0;
    loop {
        attempts += 1;
        let this = if attempts < most { input.as_ref().map(Input::split) } else { input.take() };
        let Some(this) = this else { unreachable!("the input is taken only by the last try") };
        let mut out = Out::default();
        let call = AssertUnwindSafe(transform.process(this, &mut out)).catch_unwind();
        let result = match settings.timeout {
            None => call.await,
            Some(limit) => timeout(limit, call).await.unwrap_or_else(|_| {
                Ok(Err(Error::overload(format!("no answer within {limit:?}")).hint("raise the stage's `timeout` or give it less to do")))
            }),
        };
        let error = match result {
            Ok(Ok(())) => return Done::Emit { input: held, drafts: out.drafts },
            Ok(Err(error)) => error,
            Err(panic) => panicked(&*panic),
        };
        if attempts >= most || !error.is_transient() {
            let mut at_risk = out.at_risk;
            at_risk.extend(out.drafts.into_iter().filter_map(|draft| draft.held).flatten());
            return Done::Fail { input: held, at_risk, kind, error, attempts };
        }
        StageCounts::add(&stage.counts.retried, 1);
        sleep(settings.retry.backoff * 2u32.saturating_pow(attempts - 1)).await;
    }
}

pub(crate) fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
    Error::bug(format!("panicked: {}", text.unwrap_or_else(|| "no message".to_owned())))
}
