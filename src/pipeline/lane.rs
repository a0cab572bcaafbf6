//! A lane: the task that runs one transform on one stream, an operator task in other engines.
//! Inputs are worked on concurrently up to the stage's `concurrency`, results leave in the order of
//! the inputs; a failure keeps its place, and other streams have lanes of their own.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::future::FutureExt;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::attempt::{AttemptOutcome, CallContext, at_risk, attempt};
use super::ordered_calls::OrderedCalls;
use super::output::Output;
use super::panic::panicked;
use super::topology::StageCounts;
use crate::error::Error;
use crate::packet::{Head, Item, Mark, Nanos, Outcome, Reason};
use crate::stage::{
    Arrival, Combine, Combined, Combiner, DropPolicy, Emitter, Flush, InFlight, Inbox, PacketDraft,
    PendingInput, Transform,
};

/// Items that are moved out of a queue at a time, at most, and inputs begun between two looks at
/// the clock and the token.
const MAX_READ_BATCH: usize = 64;

/// One call in this many is timed.
const TIMED: u64 = 16;

/// One transform at work on one stream.
pub(crate) struct Lane {
    call_context: Arc<CallContext>,
    output: Output,
    inbox: Inbox,
    combiner: Combiner,
    force: CancellationToken,
    open: bool,
    arrived: VecDeque<Item>,
    calls: OrderedCalls,
    /// Inputs in `calls`: at most `concurrency`, as inputs begin only while there is room.
    busy: usize,
    concurrency: usize,
    /// As its kind declares: a stateful stage is asked how far it is, a windowed one as each call
    /// begins.
    stateful: bool,
    windowed: bool,
    /// Calls begun, and those of them that the stage's counts know.
    begun: u64,
    counted: u64,
    /// An empty list that the next input's drafts can be put into.
    drafts: Vec<PacketDraft>,
    /// How far the inputs in `calls` let the stage be, as it said when each had just begun: a stage
    /// that works on several at once remembers more by the time one ends. Empty for other stages,
    /// which are asked then.
    passed: VecDeque<Nanos>,
    /// The watermark that follows the inputs at work.
    trailing: Option<(u64, Nanos)>,
    /// Epoch of the last input that ended, and its head where the stage may emit without an input.
    epoch: Option<u64>,
    last: Option<Arc<Head>>,
}

impl Lane {
    /// `ordered` says of each input whether its packets come in the order of their times.
    pub fn new(
        transform: Arc<dyn Transform>,
        output: Output,
        inbox: Inbox,
        ordered: &[bool],
        force: CancellationToken,
    ) -> Self {
        let settings = output.stage.settings();
        let (stateful, windowed) = (settings.kind.is_stateful(), settings.kind.is_windowed());
        let concurrency = if settings.kind.is_sequential() {
            1
        } else {
            settings.concurrency.max(1)
        };
        let combiner = Combiner::new(settings.join.clone(), ordered);
        Self {
            call_context: Arc::new(CallContext {
                stage: Arc::clone(&output.stage),
                transform,
                drop_policy: DropPolicy::default(),
            }),
            output,
            inbox,
            combiner,
            force,
            open: true,
            arrived: VecDeque::new(),
            calls: OrderedCalls::default(),
            busy: 0,
            concurrency,
            stateful,
            windowed,
            begun: 0,
            counted: 0,
            drafts: Vec::new(),
            passed: VecDeque::new(),
            trailing: None,
            epoch: None,
            last: None,
        }
    }

    /// Works until every input is closed and everything is emitted, or until `force`: then what is
    /// left counts as lost in the shutdown. `force` ends a wait for work, never one for a reader:
    /// that ends when the reader goes.
    pub async fn run(mut self) {
        while !self.force.is_cancelled() {
            // A queue that never runs dry must not keep the thread from others.
            tokio::task::coop::consume_budget().await;
            let all = self.make_progress().await;
            StageCounts::add(
                &self.output.stage.counts.taken,
                (self.begun - std::mem::replace(&mut self.counted, self.begun)) as usize,
            );
            if !all {
                continue;
            }
            if self.output.has_unsent() {
                self.send().await;
                continue;
            }
            if !self.open && self.calls.is_empty() && self.combiner.waiting() == 0 {
                self.flush(Flush::End).await;
                self.send().await;
                break;
            }
            let deadline = if self.has_room() {
                self.combiner.deadline()
            } else {
                None
            };
            // No more is taken from the queue than the lane has room for: there it is counted, and
            // can be dropped. A join reads on, for all its sides; what it has read keeps its room.
            let most = self.read_limit();
            let reads = self.open && most > 0;
            tokio::select! {
                biased;
                () = self.force.cancelled() => {}
                Some(done) = self.calls.next(), if self.calls.is_working() => self.end(done).await,
                arrival = self.inbox.recv(&mut self.arrived, most), if reads => self.arrive(arrival),
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {}
            }
        }
        if self.force.is_cancelled() {
            self.call_context.drop_policy.abandon();
        }
        self.output.stage.log_suppressed();
    }

    fn has_room(&self) -> bool {
        self.busy < self.concurrency
    }

    /// Items to move out of a queue now.
    fn read_limit(&self) -> usize {
        if self.combiner.reads_ahead() {
            MAX_READ_BATCH
        } else {
            self.concurrency
                .saturating_sub(self.busy + self.combiner.waiting())
                .min(MAX_READ_BATCH)
        }
    }

    /// Emits what has ended and begins what can begin at once; false when there may be more.
    async fn make_progress(&mut self) -> bool {
        for _ in 0..MAX_READ_BATCH {
            if let Some(done) = self.calls.pop_finished() {
                self.end(done).await;
            } else if self.calls.is_empty()
                && let Some((epoch, pts)) = self.trailing.take()
            {
                let pts = if self.windowed {
                    self.watermark(pts)
                } else {
                    pts
                };
                self.end(AttemptOutcome::Watermark { epoch, pts }).await;
            } else if self.has_room()
                && let Some(next) = self.next()
            {
                self.begin(next).await;
            } else {
                return true;
            }
        }
        false
    }

    fn next(&mut self) -> Option<Combined> {
        // What reads ahead may take in much before it gives anything: it is read between two waits.
        while self.open && !self.combiner.reads_ahead() && self.combiner.waiting() == 0 {
            let most = self.read_limit();
            let arrival = self.inbox.try_recv(&mut self.arrived, most)?;
            self.arrive(arrival);
        }
        self.combiner.next(&mut self.inbox)
    }

    /// Hands on what arrived.
    fn arrive(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Items(input) => {
                self.combiner
                    .accept(input, &mut self.arrived, &mut self.inbox);
            }
            Arrival::Closed(input) => self.combiner.close(input, &mut self.inbox),
            Arrival::Done => self.open = false,
        }
    }

    async fn begin(&mut self, next: Combined) {
        match next {
            Combined::Input(input) => {
                if self
                    .epoch
                    .is_some_and(|epoch| epoch < input.in_flight.head.epoch)
                {
                    self.drain().await;
                }
                self.work_on(input).await;
            }
            Combined::Mark(Mark::Watermark { epoch, pts }) => {
                self.trailing = self.trailing.max(Some((epoch, pts)))
            }
            Combined::Mark(mark @ Mark::Gap { .. }) => {
                self.drain().await;
                self.flush(Flush::Gap).await;
                self.send().await;
                self.trailing = None;
                self.output.mark(&mark);
            }
        }
    }

    async fn work_on(&mut self, input: PendingInput) {
        if let Some((epoch, pts)) = self.trailing.take() {
            let pts = if self.windowed {
                self.watermark(pts)
            } else {
                pts
            };
            self.calls
                .push_mark(AttemptOutcome::Watermark { epoch, pts });
        }
        let start = input.in_flight.head.span.start;
        let since = self
            .begun
            .is_multiple_of(TIMED)
            .then(std::time::Instant::now);
        self.begun += 1;
        self.busy += 1;
        let ended = self.calls.begin(attempt(
            Arc::clone(&self.call_context),
            input,
            std::mem::take(&mut self.drafts),
            since,
        ));
        // Asked between the call's first poll, in which a windowed stage takes its input in, and
        // the first poll of the next: it speaks of the inputs up to this one.
        if self.windowed {
            self.passed.push_back(self.watermark(start));
        }
        if let Some(done) = ended {
            self.end(done).await;
        }
    }

    fn watermark(&self, incoming: Nanos) -> Nanos {
        // A stage that cannot say how far it is holds its readers back rather than mislead them.
        std::panic::catch_unwind(AssertUnwindSafe(|| {
            self.call_context.transform.watermark(incoming)
        }))
        .unwrap_or(0)
    }

    /// Ends every call that has begun. A gap and a new epoch wait for it, so that nothing of the
    /// old epoch leaves after them.
    async fn drain(&mut self) {
        loop {
            let done = match self.calls.pop_finished() {
                Some(done) => done,
                None => match self.force.run_until_cancelled(self.calls.next()).await {
                    Some(Some(done)) => done,
                    _ => return,
                },
            };
            self.end(done).await;
        }
    }

    /// Emits what one input came to, in the order of the inputs: its packets, then how far that
    /// lets the stage be.
    async fn end(&mut self, done: AttemptOutcome) {
        let passed = match &done {
            AttemptOutcome::Watermark { epoch, pts } => {
                let pts = if self.windowed {
                    *pts
                } else {
                    self.watermark(*pts)
                };
                self.output.watermark(*epoch, pts);
                None
            }
            AttemptOutcome::Emit { .. } | AttemptOutcome::Fail { .. } => {
                self.busy -= 1;
                self.passed.pop_front()
            }
        };
        match done {
            AttemptOutcome::Watermark { .. } => {}
            AttemptOutcome::Emit { input, mut drafts } => {
                let emitted = !drafts.is_empty();
                let (epoch, start) = self.note(&input);
                self.output.emit(&mut drafts, input);
                self.drafts = drafts;
                if self.output.ordered && (!emitted || self.stateful) {
                    let pts = passed.unwrap_or_else(|| self.watermark(start));
                    self.output.watermark(epoch, pts);
                }
            }
            AttemptOutcome::Fail {
                input,
                at_risk,
                kind,
                error,
                attempts,
            } => {
                let (epoch, start) = self.note(&input);
                let letter = self.output.fail(input, at_risk, kind, &error, attempts);
                let output = &self.output;
                self.calls
                    .drive_while_sending(async { output.send_dead_letter(letter).await })
                    .await;
                if self.output.ordered {
                    let pts = passed.unwrap_or_else(|| self.watermark(start));
                    self.output.watermark(epoch, pts);
                }
            }
        }
        if self.output.is_due() {
            self.send().await;
        }
    }

    fn note(&mut self, ended: &InFlight) -> (u64, Nanos) {
        let head = &ended.head;
        self.epoch = Some(head.epoch);
        if self.stateful {
            self.last = Some(Arc::clone(head));
        }
        (head.epoch, head.span.start)
    }

    /// Sends on what is emitted. The inputs behind it are worked on meanwhile, so that a full
    /// reader costs them no timeout.
    async fn send(&mut self) {
        self.calls
            .drive_while_sending(self.output.send_buffered())
            .await;
    }

    async fn flush(&mut self, why: Flush) {
        let Some(last) = self.last.clone() else {
            return;
        };
        let limit = self.output.stage.settings().timeout;
        let mut out = Emitter::default();
        let call =
            AssertUnwindSafe(self.call_context.transform.flush(why, &mut out)).catch_unwind();
        let call = async {
            match limit {
                None => call.await,
                Some(limit) => timeout(limit, call).await.unwrap_or_else(|_| {
                    Ok(Err(Error::overload(format!(
                        "not flushed within {limit:?}"
                    ))))
                }),
            }
        };
        let Some(flushed) = self.force.run_until_cancelled(call).await else {
            // Before what was emitted is dropped: it is lost in the shutdown then, not absorbed.
            self.call_context.drop_policy.abandon();
            return;
        };
        match flushed {
            Ok(Ok(())) => self.output.emit_flushed(&mut out.drafts, &last),
            Ok(Err(error)) => self.fail_flush(out, &error),
            Err(panic) => self.fail_flush(out, &panicked(&*panic)),
        }
    }

    fn fail_flush(&self, out: Emitter, error: &Error) {
        StageCounts::add(&self.output.stage.counts.failed, 1);
        tracing::error!(stage = self.output.stage.id(), %error, "flush failed");
        at_risk(out)
            .into_iter()
            .for_each(|held| held.settle(Outcome::Dropped(Reason::Failed)));
    }
}
