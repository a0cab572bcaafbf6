//! A lane: one transform at work on one stream. Inputs are worked on concurrently up to the stage's `concurrency`, results leave in the
//! order of the inputs; a failure keeps its place, and other streams have lanes of their own.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::future::FutureExt;
use futures::stream::{FuturesOrdered, StreamExt};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, ReusableBoxFuture};

use super::attempt::{Done, at_risk, attempt, panicked};
use super::merge::Merge;
use super::outlet::Outlet;
use super::topology::StageCounts;
use crate::error::Error;
use crate::packet::{Head, Item, Mark, Nanos, Outcome, Reason};
use crate::stage::{Arrival, Draft, Fate, Flush, Inbox, Input, Joined, Joiner, Out, Transform};

/// Items that a join moves out of a queue at a time, and inputs begun between two looks at the clock and the token.
const GULP: usize = 64;

type Work = ReusableBoxFuture<'static, Done>;

pub(crate) struct Lane {
    transform: Arc<dyn Transform>,
    outlet: Outlet,
    inbox: Inbox,
    joiner: Option<Joiner>,
    merge: Option<Merge>,
    fate: Fate,
    force: CancellationToken,
    open: bool,
    arrived: VecDeque<Item>,
    ready: VecDeque<Joined>,
    working: FuturesOrdered<Work>,
    /// Ended while the one before was still on its way out.
    finished: VecDeque<Done>,
    /// Inputs in `working` and `finished`.
    busy: usize,
    most: usize,
    /// A box that the next input's work can be written into.
    spare: Option<Work>,
    /// An empty list that the next input's drafts can be put into.
    drafts: Vec<Draft>,
    /// How far the inputs in `working` and `finished` let the stage be, as it said when each had just begun: a stage that works on several at
    /// once remembers more by the time one ends. Empty for other stages, which are asked then.
    passed: VecDeque<Nanos>,
    /// The watermark that follows the inputs at work.
    trailing: Option<(u64, Nanos)>,
    last: Option<Arc<Head>>,
}

impl Lane {
    /// `ordered` says of each input whether its packets come in the order of their times.
    pub fn new(transform: Arc<dyn Transform>, outlet: Outlet, inbox: Inbox, ordered: &[bool], force: CancellationToken) -> Self {
        let fate = Fate::default();
        let settings = outlet.stage.settings();
        let most = if settings.kind.is_sequential() { 1 } else { settings.concurrency.max(1) };
        let unordered = ordered.iter().enumerate().filter(|(_, ordered)| !**ordered).map(|(input, _)| input).collect();
        let joiner = settings.join.clone().map(|settings| Joiner::new(settings, fate.clone()).unordered(unordered));
        let merge = (joiner.is_none() && ordered.len() > 1).then(|| Merge::new(ordered));
        Self {
            transform,
            outlet,
            inbox,
            joiner,
            merge,
            fate,
            force,
            open: true,
            arrived: VecDeque::new(),
            ready: VecDeque::new(),
            working: FuturesOrdered::new(),
            finished: VecDeque::new(),
            busy: 0,
            most,
            spare: None,
            drafts: Vec::new(),
            passed: VecDeque::new(),
            trailing: None,
            last: None,
        }
    }

    /// Works until every input is closed and everything is emitted, or until `force`: then what is left counts as lost in the shutdown.
    /// `force` ends a wait for work, never one for a reader: that ends when the reader goes.
    pub async fn run(mut self) {
        while !self.force.is_cancelled() {
            // A queue that never runs dry must not keep the thread from others.
            tokio::task::coop::consume_budget().await;
            if !self.take_up().await {
                continue;
            }
            if !self.open && self.idle() && self.ready.is_empty() {
                self.flush(Flush::End).await;
                break;
            }
            let deadline = self.joiner.as_ref().filter(|_| self.has_room()).and_then(Joiner::deadline);
            // Nothing is taken from the queue while the lane is full: there it is counted, and can be dropped. A join reads on, for all its
            // sides; what it has read keeps its room.
            let reads = self.open && (self.joiner.is_some() || self.has_room());
            let most = if self.joiner.is_some() { GULP } else { 1 };
            tokio::select! {
                biased;
                () = self.force.cancelled() => {}
                Some(done) = self.working.next(), if !self.working.is_empty() => self.end(done).await,
                arrival = self.inbox.recv(&mut self.arrived, most), if reads => self.arrive(arrival),
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {}
            }
        }
        if self.force.is_cancelled() {
            self.fate.abandon();
        }
    }

    fn has_room(&self) -> bool {
        self.busy < self.most
    }

    fn idle(&self) -> bool {
        self.working.is_empty() && self.finished.is_empty()
    }

    /// Emits what has ended and begins what can begin at once; false when there may be more.
    async fn take_up(&mut self) -> bool {
        for _ in 0..GULP {
            if let Some(done) = self.finished.pop_front() {
                self.end(done).await;
            } else if self.idle()
                && let Some((epoch, pts)) = self.trailing.take()
            {
                let pts = if self.gathers() { self.watermark(pts) } else { pts };
                self.end(Done::Watermark { epoch, pts }).await;
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

    fn next(&mut self) -> Option<Joined> {
        if let Some(joiner) = &mut self.joiner {
            let next = joiner.next(Instant::now());
            joiner.released().for_each(|(input, weight)| self.inbox.release(input, weight));
            return next;
        }
        while self.ready.is_empty() && self.open {
            let arrival = self.inbox.try_recv(&mut self.arrived, 1)?;
            self.arrive(arrival);
        }
        self.ready.pop_front()
    }

    /// Sorts what arrived.
    fn arrive(&mut self, arrival: Arrival) {
        self.open = arrival != Arrival::Done;
        if let Some(joiner) = &mut self.joiner {
            match arrival {
                Arrival::Items(input) => {
                    let now = Instant::now();
                    self.arrived.drain(..).for_each(|item| joiner.accept(input, item, now));
                }
                Arrival::Closed(input) => joiner.close(input),
                Arrival::Done => {}
            }
            joiner.released().for_each(|(input, weight)| self.inbox.release(input, weight));
            return;
        }
        match (&mut self.merge, arrival) {
            (Some(merge), Arrival::Items(side)) => {
                for item in self.arrived.drain(..) {
                    self.ready.extend(merge.accept(side, item, &mut self.inbox, &self.fate).into_iter().flatten());
                }
            }
            (Some(merge), Arrival::Closed(side)) => self.ready.extend(merge.close(side, &mut self.inbox).into_iter().flatten()),
            _ => self.ready.extend(self.arrived.drain(..).map(|item| match item {
                Item::Packet(packet) => Joined::Input(Input::new(packet, Vec::new(), false, &self.fate)),
                Item::Mark(mark) => Joined::Mark(mark),
            })),
        }
    }

    async fn begin(&mut self, next: Joined) {
        match next {
            Joined::Input(input) => {
                StageCounts::add(&self.outlet.stage.counts.taken, 1);
                if self.last.as_ref().is_some_and(|last| last.epoch < input.head.epoch) {
                    self.drain().await;
                }
                self.work_on(input).await;
            }
            Joined::Mark(Mark::Watermark { epoch, pts }) => self.trailing = self.trailing.max(Some((epoch, pts))),
            Joined::Mark(mark @ Mark::Gap { .. }) => {
                self.drain().await;
                self.flush(Flush::Gap).await;
                self.trailing = None;
                self.outlet.mark(&mark);
            }
        }
    }

    async fn work_on(&mut self, input: Input) {
        if let Some((epoch, pts)) = self.trailing.take() {
            let pts = if self.gathers() { self.watermark(pts) } else { pts };
            self.working.push_back(ReusableBoxFuture::new(std::future::ready(Done::Watermark { epoch, pts })));
        }
        let start = input.head.span.start;
        let work = attempt(Arc::clone(&self.outlet.stage), Arc::clone(&self.transform), input, std::mem::take(&mut self.drafts));
        let mut boxed = match self.spare.take() {
            None => ReusableBoxFuture::new(work),
            Some(mut spare) => {
                spare.set(work);
                spare
            }
        };
        self.busy += 1;
        // The first poll comes now, in the order of the inputs. Most calls end in it.
        let ended = (&mut boxed).now_or_never();
        if self.gathers() {
            self.passed.push_back(self.watermark(start));
        }
        match ended {
            Some(done) if self.idle() => {
                self.spare = Some(boxed);
                self.end(done).await;
            }
            Some(done) => {
                boxed.set(std::future::ready(done));
                self.working.push_back(boxed);
            }
            None => self.working.push_back(boxed),
        }
    }

    /// Whether it is a stage that gathers inputs and works on several at once.
    fn gathers(&self) -> bool {
        let kind = self.outlet.stage.settings().kind;
        kind.remembers() && !kind.is_sequential()
    }

    fn watermark(&self, incoming: Nanos) -> Nanos {
        // A stage that cannot say how far it is holds its readers back rather than mislead them.
        std::panic::catch_unwind(AssertUnwindSafe(|| self.transform.watermark(incoming))).unwrap_or(0)
    }

    async fn drain(&mut self) {
        loop {
            let done = match self.finished.pop_front() {
                Some(done) => done,
                None => match self.force.run_until_cancelled(self.working.next()).await {
                    Some(Some(done)) => done,
                    _ => return,
                },
            };
            self.end(done).await;
        }
    }

    /// Sends on what one input came to. The inputs behind it are worked on meanwhile, so that a full reader costs them no timeout.
    async fn end(&mut self, done: Done) {
        let passed = match &done {
            Done::Watermark { pts, .. } if self.gathers() => *pts,
            Done::Watermark { pts, .. } => self.watermark(*pts),
            Done::Emit { input, .. } | Done::Fail { input, .. } => {
                self.busy -= 1;
                self.passed.pop_front().unwrap_or_else(|| self.watermark(input.head().span.start))
            }
        };
        let Self { outlet, working, finished, last, drafts: spare, .. } = self;
        let ended = leave(outlet, last, done, passed, spare);
        if working.is_empty() {
            return ended.await;
        }
        tokio::pin!(ended);
        loop {
            tokio::select! {
                biased;
                () = &mut ended => return,
                Some(done) = working.next(), if !working.is_empty() => finished.push_back(done),
            }
        }
    }

    async fn flush(&mut self, why: Flush) {
        let Some(last) = self.last.clone() else { return };
        let limit = self.outlet.stage.settings().timeout;
        let mut out = Out::default();
        let call = AssertUnwindSafe(self.transform.flush(why, &mut out)).catch_unwind();
        let call = async {
            match limit {
                None => call.await,
                Some(limit) => {
                    timeout(limit, call).await.unwrap_or_else(|_| Ok(Err(Error::overload(format!("not flushed within {limit:?}")))))
                }
            }
        };
        let Some(flushed) = self.force.run_until_cancelled(call).await else {
            // Before what was emitted falls.
            self.fate.abandon();
            return;
        };
        match flushed {
            Ok(Ok(())) => self.outlet.emit(&mut out.drafts, None, &last).await,
            Ok(Err(error)) => self.fail_flush(out, &error),
            Err(panic) => self.fail_flush(out, &panicked(&*panic)),
        }
    }

    fn fail_flush(&self, out: Out, error: &Error) {
        StageCounts::add(&self.outlet.stage.counts.failed, 1);
        tracing::error!(stage = self.outlet.stage.id(), %error, "flush failed");
        at_risk(out).into_iter().for_each(|held| held.settle(Outcome::Dropped(Reason::Failed)));
    }
}

/// Sends on what one input came to, and how far that lets the stage be.
async fn leave(outlet: &mut Outlet, last: &mut Option<Arc<Head>>, done: Done, passed: Nanos, spare: &mut Vec<Draft>) {
    let (head, emitted) = match done {
        Done::Watermark { epoch, .. } => return outlet.watermark(epoch, passed),
        Done::Emit { input, mut drafts } => {
            let head = Arc::clone(input.head());
            let emitted = !drafts.is_empty();
            outlet.emit(&mut drafts, Some(input), &head).await;
            *spare = drafts;
            (head, emitted)
        }
        Done::Fail { input, at_risk, kind, error, attempts } => {
            let head = Arc::clone(input.head());
            outlet.fail(input, at_risk, kind, &error, attempts).await;
            (head, false)
        }
    };
    if outlet.ordered && (!emitted || outlet.stage.settings().kind.remembers()) {
        outlet.watermark(head.epoch, passed);
    }
    *last = Some(head);
}
