//! The workers of a process: one for each weights, device, precision and use of memory, however
//! many names, stages and streams ask for it.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::{ComputeLock, Model, Worker, WorkerSettings};
use crate::error::{Error, Result};

/// What makes two workers the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerKey {
    /// Digest of the weights, hexadecimal.
    pub weights: String,
    /// `cpu`, `cuda:0`; `cpu.1` for a second worker there.
    pub device: String,
    /// `f32`, `bf16`, `f16`.
    pub precision: String,
    /// How the network uses memory, in words; empty for the usual way.
    pub options: String,
}

/// The workers of a process. A handle: cloning shares it.
#[derive(Clone, Default)]
pub struct Workers {
    compute: ComputeLock,
    slots: Arc<Mutex<HashMap<(WorkerKey, TypeId), Slot>>>,
}

/// A worker of a type that only its requester knows.
struct Slot {
    cell: Arc<dyn Any + Send + Sync>,
    worker: Arc<dyn AnyWorker>,
}

/// What can be done with a worker whatever its model is.
pub(super) trait AnyWorker: Send + Sync {
    /// [`Worker::close`].
    fn close(&self) -> BoxFuture<'static, ()>;
    /// [`Worker::idle`].
    fn idle(&self) -> Option<Duration>;
    /// [`Worker::unload`].
    fn unload(&self) -> BoxFuture<'static, bool>;
}

/// A worker that may not have been started yet.
struct LazyWorker<M: Model>(Arc<OnceCell<Worker<M>>>);

impl<M: Model> AnyWorker for LazyWorker<M> {
    fn close(&self) -> BoxFuture<'static, ()> {
        let worker = self.0.get().cloned();
        async move {
            if let Some(worker) = worker {
                worker.close().await;
            }
        }
        .boxed()
    }

    fn idle(&self) -> Option<Duration> {
        self.0.get().and_then(Worker::idle)
    }

    fn unload(&self) -> BoxFuture<'static, bool> {
        let worker = self.0.get().cloned();
        async move {
            match worker {
                Some(worker) => worker.unload().await,
                None => false,
            }
        }
        .boxed()
    }
}

impl Workers {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The worker of `key`, started as `name` with `settings` where it does not run yet; later
    /// requesters join it as it is. Workers whose device is the CPU share one permit to compute. A
    /// start that fails leaves nothing behind: the next requester tries again.
    ///
    /// # Errors
    /// Those of [`Worker::spawn`].
    pub async fn get<M, F>(
        &self,
        key: &WorkerKey,
        name: &str,
        settings: WorkerSettings,
        make: F,
    ) -> Result<Worker<M>>
    where
        M: Model,
        F: FnMut() -> Result<M> + Send + 'static,
    {
        let cell = self.cell::<M>(key)?;
        let compute = key.device.starts_with("cpu").then(|| self.compute.clone());
        let settings = WorkerSettings {
            compute,
            ..settings
        };
        cell.get_or_try_init(|| Worker::spawn(name, settings, make))
            .await
            .cloned()
    }

    fn cell<M: Model>(&self, key: &WorkerKey) -> Result<Arc<OnceCell<Worker<M>>>> {
        let mut slots = self.slots.lock();
        let slot = slots
            .entry((key.clone(), TypeId::of::<M>()))
            .or_insert_with(|| {
                let cell = Arc::new(OnceCell::<Worker<M>>::new());
                Slot {
                    worker: Arc::new(LazyWorker(Arc::clone(&cell))),
                    cell,
                }
            });
        Arc::clone(&slot.cell)
            .downcast()
            .map_err(|_| Error::bug("a worker's slot holds another type"))
    }

    /// Those whose loaded model has had nothing to do for `idle` at least, the longest first.
    pub(super) fn idle(&self, idle: Duration) -> Vec<Arc<dyn AnyWorker>> {
        let slots = self.slots.lock();
        let since = |slot: &Slot| slot.worker.idle().filter(|since| *since >= idle);
        let mut found: Vec<_> = slots
            .values()
            .filter_map(|slot| Some((since(slot)?, Arc::clone(&slot.worker))))
            .collect();
        found.sort_by_key(|(since, _)| std::cmp::Reverse(*since));
        found.into_iter().map(|(_, worker)| worker).collect()
    }

    /// Closes every worker and forgets it.
    pub async fn close(&self) {
        let slots: Vec<Slot> = self.slots.lock().drain().map(|(_, slot)| slot).collect();
        futures::future::join_all(slots.iter().map(|slot| slot.worker.close())).await;
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.slots.lock().keys().map(|(key, _)| key))
            .finish()
    }
}
