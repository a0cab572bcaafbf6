//! Where requesters and the worker's thread meet: the queue, its permits, and the forming of
//! batches.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, FairMutexGuard, Mutex, MutexGuard};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::permits::{QueuePermit, QueuePermits, closed};
use super::turns::{Queue, Queued};
use crate::error::{Error, Result};
use crate::inference::compute::ComputeLock;
use crate::inference::model::Model;
use crate::inference::requester::Requester;
use crate::inference::settings::BatchSettings;
use crate::telemetry::WorkerMetrics;

/// How long the thread looks for the next item before it sleeps, having just run a batch: to wake
/// it costs more than to answer many a model.
const SPIN_TIME: Duration = Duration::from_micros(50);

/// An item with the way back to its requester. Its permit is free when it is done with.
pub(in crate::inference) struct Job<M: Model> {
    pub item: M::Item,
    pub answer: oneshot::Sender<Result<M::Answer>>,
    pub permit: QueuePermit,
}

impl<M: Model> Job<M> {
    /// Whether nobody waits any more.
    pub fn is_cancelled(&self) -> bool {
        self.answer.is_closed()
    }

    /// Gives the permit back first, so that an requester that goes on at once finds it.
    pub fn finish(self, answer: Result<M::Answer>, metrics: &WorkerMetrics) {
        drop(self.permit);
        let counter = if answer.is_ok() {
            &metrics.items
        } else {
            &metrics.failed
        };
        match self.answer.send(answer) {
            Ok(()) => counter.increment(1),
            Err(_) => metrics.cancelled.increment(1),
        }
    }
}

/// What the handles of a worker and its thread share.
pub(in crate::inference) struct Shared<M: Model> {
    pub name: Arc<str>,
    pub settings: BatchSettings,
    pub permits: QueuePermits,
    pub metrics: WorkerMetrics,
    /// Cancelled when the thread has ended.
    pub ended: CancellationToken,
    state: Mutex<State<M>>,
    changed: Condvar,
    /// Counts what might end the thread's lingering.
    wake_epoch: AtomicUsize,
}

struct State<M: Model> {
    queue: Queue<Job<M>>,
    closed: bool,
    /// Since when there is nothing to do; none while there is.
    idle: Option<Instant>,
    /// Whether the model is loaded.
    loaded: bool,
    /// Who asked for the model to be unloaded, if the thread is still idle when it hears of it.
    unload: Vec<oneshot::Sender<()>>,
    /// The thread sleeps until the queue has this many.
    wake_len: usize,
    /// The thread sleeps until then at most.
    wake_by: Option<Instant>,
}

/// What the thread does next.
pub(in crate::inference) enum Next<'a, M: Model> {
    /// Runs a batch, with the permit to compute it.
    Batch(Vec<Job<M>>, Option<FairMutexGuard<'a, ()>>),
    /// Puts the model down, and tells these.
    Unload(Vec<oneshot::Sender<()>>),
    /// Ends.
    End,
}

/// What the thread has waited for.
enum WakeReason {
    Items,
    Unload(Vec<oneshot::Sender<()>>),
    Closed,
}

impl<M: Model> Shared<M> {
    pub fn new(name: &str, device_label: &str, settings: BatchSettings) -> Self {
        let (unload, idle) = (Vec::new(), Some(Instant::now()));
        let state = State {
            queue: Queue::new(),
            closed: false,
            idle,
            loaded: false,
            unload,
            wake_len: usize::MAX,
            wake_by: None,
        };
        Self {
            name: name.into(),
            settings,
            permits: QueuePermits::new(settings.queue),
            metrics: WorkerMetrics::new(name, device_label),
            ended: CancellationToken::new(),
            state: Mutex::new(state),
            changed: Condvar::new(),
            wake_epoch: AtomicUsize::new(0),
        }
    }

    /// Queues a job and wakes the thread if it waits for it. The number takes it out again.
    pub fn push(&self, requester: &Requester, job: Job<M>) -> Result<u64> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(closed());
        }
        let number = state.queue.number();
        let (stream, live, deadline) = (
            Arc::clone(&requester.stream),
            requester.live,
            requester.deadline,
        );
        let waiting = Queued {
            number,
            stream,
            live,
            deadline,
            arrived: Instant::now(),
            what: job,
        };
        let sooner = state
            .wake_by
            .is_some_and(|by| waiting.due(self.settings.max_wait) < by);
        state.queue.push(waiting);
        debug_assert!(
            state.queue.len() <= self.settings.queue,
            "every item that waits holds one of the permits"
        );
        state.idle = None;
        self.metrics.depth.increment(1.0);
        let wake = sooner || state.queue.len() >= state.wake_len;
        self.wake_epoch.fetch_add(1, Ordering::Release);
        drop(state);
        if wake {
            self.changed.notify_one();
        }
        Ok(number)
    }

    /// Says whether the model is loaded.
    pub fn loaded(&self, loaded: bool) {
        self.state.lock().loaded = loaded;
    }

    /// How long the loaded model has had nothing to do; none where it has, or is unloaded already.
    pub fn idle(&self) -> Option<Duration> {
        let state = self.state.lock();
        state
            .idle
            .filter(|_| state.loaded && !state.closed)
            .map(|since| since.elapsed())
    }

    /// Asks for the model to be unloaded. The answer comes when it is, and never when it has
    /// something to do first.
    pub fn unload(&self) -> oneshot::Receiver<()> {
        let (done, answer) = oneshot::channel();
        let mut state = self.state.lock();
        if state.idle.is_some() && state.loaded && !state.closed {
            state.unload.push(done);
            self.wake_epoch.fetch_add(1, Ordering::Release);
            drop(state);
            self.changed.notify_one();
        }
        answer
    }

    /// Takes a job out that its requester gave up; nothing happens where it runs already.
    pub fn withdraw(&self, requester: &Requester, number: u64) {
        let removed = self
            .state
            .lock()
            .queue
            .remove(requester.live, &requester.stream, number);
        if removed.is_some() {
            self.metrics.depth.decrement(1.0);
            self.metrics.cancelled.increment(1);
        }
    }

    /// Lets nobody in, sends away who waits, and ends the thread after the batch it runs.
    pub fn close(&self) {
        self.permits.close();
        let mut waiting = Vec::new();
        {
            let mut state = self.state.lock();
            state.closed = true;
            state.unload.clear();
            self.wake_epoch.fetch_add(1, Ordering::Release);
            waiting.extend(std::iter::from_fn(|| state.queue.pop()));
        }
        self.changed.notify_one();
        for waiting in waiting {
            self.metrics.depth.decrement(1.0);
            waiting.what.finish(Err(closed()), &self.metrics);
        }
    }

    /// Waits until there is something to run, for the permit, and only then forms the batch.
    pub fn next<'a>(&self, limit: usize, compute: Option<&'a ComputeLock>) -> Next<'a, M> {
        loop {
            match self.wait(limit) {
                WakeReason::Closed => return Next::End,
                WakeReason::Unload(asked) => return Next::Unload(asked),
                WakeReason::Items => {}
            }
            let permit = compute.map(ComputeLock::acquire);
            let jobs = self.take(limit);
            if !jobs.is_empty() {
                return Next::Batch(jobs, permit);
            }
        }
    }

    /// Waits for a full batch, or for the first item that has waited long enough; idle, also for
    /// the model to be unloaded.
    fn wait(&self, limit: usize) -> WakeReason {
        let mut state = self.state.lock();
        let mut has_spun = state.idle.is_some();
        loop {
            if state.closed {
                return WakeReason::Closed;
            }
            let due = state.queue.due(self.settings.max_wait);
            match due {
                Some(due) if state.queue.len() >= limit || due <= Instant::now() => {
                    (state.wake_len, state.wake_by) = (usize::MAX, None);
                    // Who asked for it finds the model at work.
                    state.unload.clear();
                    return WakeReason::Items;
                }
                Some(due) => {
                    (state.wake_len, state.wake_by) = (limit, Some(due));
                    self.changed.wait_until(&mut state, due);
                }
                None if !state.unload.is_empty() => {
                    return WakeReason::Unload(std::mem::take(&mut state.unload));
                }
                None => {
                    state.idle.get_or_insert_with(Instant::now);
                    state.wake_by = None;
                    if std::mem::replace(&mut has_spun, true) {
                        state.wake_len = 1;
                        self.changed.wait(&mut state);
                    } else {
                        state.wake_len = usize::MAX;
                        let wake_epoch = self.wake_epoch.load(Ordering::Acquire);
                        MutexGuard::unlocked(&mut state, || self.spin(wake_epoch));
                    }
                }
            }
        }
    }

    /// Looks for wake_epoch, and lets others have the core meanwhile, for a moment.
    fn spin(&self, wake_epoch: usize) {
        let until = Instant::now() + SPIN_TIME;
        while self.wake_epoch.load(Ordering::Acquire) == wake_epoch && Instant::now() < until {
            std::thread::yield_now();
        }
    }

    /// Takes the next jobs in turn, skipping those that nobody waits for or whose time has passed.
    fn take(&self, limit: usize) -> Vec<Job<M>> {
        let (mut jobs, mut skipped, now) = (Vec::with_capacity(limit), Vec::new(), Instant::now());
        let mut state = self.state.lock();
        while jobs.len() < limit {
            let Some(waiting) = state.queue.pop() else {
                break;
            };
            self.metrics.depth.decrement(1.0);
            if waiting.what.is_cancelled() || waiting.is_expired(now) {
                skipped.push(waiting);
                continue;
            }
            self.metrics
                .queue_seconds
                .record(now.duration_since(waiting.arrived).as_secs_f64());
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
            let late = Error::overload(format!(
                "model {}: the deadline passed after {waited:.1?} in the queue",
                self.name
            ));
            waiting.what.finish(Err(late), &self.metrics);
        }
        jobs
    }
}
