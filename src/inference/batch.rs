//! Where askers and the worker's thread meet: the queue, its places, and the forming of batches.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, FairMutexGuard, Mutex};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::places::{Place, Places, closed};
use super::queue::{Queue, Waiting};
use super::{Asker, BatchSettings, Compute, Model};
use crate::error::{Error, Result};
use crate::telemetry::WorkerMetrics;

/// An item with the way back to its asker. Its place is free when it is done with.
pub(super) struct Job<M: Model> {
    pub item: M::Item,
    pub answer: oneshot::Sender<Result<M::Answer>>,
    pub place: Place,
}

impl<M: Model> Job<M> {
    /// Whether nobody waits any more.
    pub fn is_cancelled(&self) -> bool {
        self.answer.is_closed()
    }

    /// Gives the place back first, so that an asker that goes on at once finds it.
    pub fn finish(self, answer: Result<M::Answer>, metrics: &WorkerMetrics) {
        drop(self.place);
        let counter = if answer.is_ok() { &metrics.items } else { &metrics.failed };
        match self.answer.send(answer) {
            Ok(()) => counter.increment(1),
            Err(_) => metrics.cancelled.increment(1),
        }
    }
}

/// What the handles of a worker and its thread share.
pub(super) struct Shared<M: Model> {
    pub name: Arc<str>,
    pub settings: BatchSettings,
    pub places: Places,
    pub metrics: WorkerMetrics,
    /// Cancelled when the thread has ended.
    pub ended: CancellationToken,
    state: Mutex<State<M>>,
    changed: Condvar,
}

struct State<M: Model> {
    queue: Queue<Job<M>>,
    closed: bool,
    /// The thread sleeps until the queue has this many.
    wake_at: usize,
    /// The thread sleeps until then at most.
    wake_by: Option<Instant>,
}

/// A batch and the permit to compute it.
pub(super) struct Batch<'a, M: Model> {
    pub jobs: Vec<Job<M>>,
    pub permit: Option<FairMutexGuard<'a, ()>>,
}

impl<M: Model> Shared<M> {
    pub fn new(name: &str, settings: BatchSettings) -> Self {
        let state = State { queue: Queue::new(), closed: false, wake_at: usize::MAX, wake_by: None };
        Self {
            name: name.into(),
            settings,
            places: Places::new(settings.queue),
            metrics: WorkerMetrics::new(name),
            ended: CancellationToken::new(),
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// Queues a job and wakes the thread if it waits for it. The number takes it out again.
    pub fn push(&self, asker: &Asker, job: Job<M>) -> Result<u64> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(closed());
        }
        let number = state.queue.number();
        let (stream, live, deadline) = (Arc::clone(&asker.stream), asker.live, asker.deadline);
        let waiting = Waiting { number, stream, live, deadline, arrived: Instant::now(), what: job };
        let sooner = state.wake_by.is_some_and(|by| waiting.due(self.settings.max_wait) < by);
        state.queue.push(waiting);
        self.metrics.depth.increment(1.0);
        let wake = sooner || state.queue.len() >= state.wake_at;
        drop(state);
        if wake {
            self.changed.notify_one();
        }
        Ok(number)
    }

    /// Takes a job out that its asker gave up; nothing happens where it runs already.
    pub fn withdraw(&self, asker: &Asker, number: u64) {
        let removed = self.state.lock().queue.remove(asker.live, &asker.stream, number);
        if removed.is_some() {
            self.metrics.depth.decrement(1.0);
            self.metrics.cancelled.increment(1);
        }
    }

    /// Lets nobody in, sends away who waits, and ends the thread after the batch it runs.
    pub fn shut(&self) {
        self.places.close();
        let mut waiting = Vec::new();
        {
            let mut state = self.state.lock();
            state.closed = true;
            waiting.extend(std::iter::from_fn(|| state.queue.pop()));
        }
        self.changed.notify_one();
        for waiting in waiting {
            self.metrics.depth.decrement(1.0);
            waiting.what.finish(Err(closed()), &self.metrics);
        }
    }

    /// Waits until there is something to run, for the permit, and only then forms the batch. None when the worker is shut.
    pub fn next_batch<'a>(&self, limit: usize, compute: Option<&'a Compute>) -> Option<Batch<'a, M>> {
        loop {
            if !self.wait(limit) {
                return None;
            }
            let permit = compute.map(Compute::acquire);
            let jobs = self.take(limit);
            if !jobs.is_empty() {
                return Some(Batch { jobs, permit });
            }
        }
    }

    /// Waits for a full batch, or for the first item that has waited long enough. False when the worker is shut.
    fn wait(&self, limit: usize) -> bool {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return false;
            }
            let due = state.queue.due(self.settings.max_wait);
            match due {
                Some(due) if state.queue.len() >= limit || due <= Instant::now() => {
                    (state.wake_at, state.wake_by) = (usize::MAX, None);
                    return true;
                }
                Some(due) => {
                    (state.wake_at, state.wake_by) = (limit, Some(due));
                    self.changed.wait_until(&mut state, due);
                }
                None => {
                    (state.wake_at, state.wake_by) = (1, None);
                    self.changed.wait(&mut state);
                }
            }
        }
    }

    /// Takes the next jobs in turn, skipping those that nobody waits for or whose time has passed.
    fn take(&self, limit: usize) -> Vec<Job<M>> {
        let (mut jobs, mut skipped, now) = (Vec::with_capacity(limit), Vec::new(), Instant::now());
        let mut state = self.state.lock();
        while jobs.len() < limit {
            let Some(waiting) = state.queue.pop() else { break };
            self.metrics.depth.decrement(1.0);
            if waiting.what.is_cancelled() || waiting.is_expired(now) {
                skipped.push(waiting);
                continue;
            }
            self.metrics.queue_seconds.record(now.duration_since(waiting.arrived).as_secs_f64());
            jobs.push(waiting.what);
        }
        drop(state);
        for waiting in skipped {
            if waiting.what.is_cancelled() {
                self.metrics.cancelled.increment(1);
                continue;
            }
            self.metrics.expired.increment(1);
            let waited = now.duration_since(waiting.arrived);
            let late = Error::overload(format!("model {}: the deadline passed after {waited:.1?} in the queue", self.name));
            waiting.what.finish(Err(late), &self.metrics);
        }
        jobs
    }
}
