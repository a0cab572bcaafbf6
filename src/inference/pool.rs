//! The workers of one model, one on each of its devices: an item goes where the queue is shortest.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Model, Requester, Worker};
use crate::error::Result;

/// The workers of one model. A handle: cloning shares it.
pub struct WorkerPool<M: Model>(Arc<Inner<M>>);

struct Inner<M: Model> {
    workers: Vec<Worker<M>>,
    /// Where the next look begins, so that equal queues take turns.
    turn: AtomicUsize,
}

impl<M: Model> WorkerPool<M> {
    /// Of at least one worker.
    pub(super) fn new(workers: Vec<Worker<M>>) -> Self {
        assert!(!workers.is_empty(), "a model has a worker");
        Self(Arc::new(Inner {
            workers,
            turn: AtomicUsize::new(0),
        }))
    }

    /// As [`Worker::ask`], of the worker that the fewest items wait for or run on.
    ///
    /// # Errors
    /// As there.
    pub async fn ask(&self, item: M::Item, requester: Requester) -> Result<M::Answer> {
        self.shortest().ask(item, requester).await
    }

    fn shortest(&self) -> &Worker<M> {
        let Inner { workers, turn } = &*self.0;
        if let [only] = &workers[..] {
            return only;
        }
        let first = turn.fetch_add(1, Ordering::Relaxed) % workers.len();
        let (before, after) = workers.split_at(first);
        after
            .iter()
            .chain(before)
            .min_by_key(|worker| worker.load())
            .unwrap_or(&workers[0])
    }
}

impl<M: Model> Clone for WorkerPool<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M: Model> fmt::Debug for WorkerPool<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0.workers).finish()
    }
}
