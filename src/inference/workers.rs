//! The workers of a process: one for each weights, device and precision, however many names, stages and streams ask for it.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::{BatchSettings, Compute, Model, Worker};
use crate::error::{Error, Result};

/// What makes two workers the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerKey {
    /// Digest of the weights, hexadecimal.
    pub weights: String,
    /// `cpu`, `cuda:0`.
    pub device: String,
    /// `f32`, `bf16`, `f16`.
    pub precision: String,
}

/// The workers of a process. A handle: cloning shares it.
#[derive(Clone, Default)]
pub struct Workers {
    compute: Compute,
    slots: Arc<Mutex<HashMap<(WorkerKey, TypeId), Slot>>>,
}

/// A worker of a type that only its asker knows, and how to close it.
struct Slot {
    cell: Arc<dyn Any + Send + Sync>,
    close: Box<dyn Fn() -> BoxFuture<'static, ()> + Send>,
}

impl Workers {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The worker of `key`, started as `name` with `settings` where it does not run yet; later askers join it as it is. Workers whose
    /// device is the CPU share one permit to compute. A start that fails leaves nothing behind: the next asker tries again.
    ///
    /// # Errors
    /// Those of [`Worker::spawn`].
    pub async fn get<M, F>(&self, key: &WorkerKey, name: &str, settings: BatchSettings, make: F) -> Result<Worker<M>>
    where
        M: Model,
        F: FnMut() -> Result<M> + Send + 'static,
    {
        let cell = self.cell::<M>(key)?;
        let compute = key.device.starts_with("cpu").then(|| self.compute.clone());
        cell.get_or_try_init(|| Worker::spawn(name, settings, compute, make)).await.cloned()
    }

    fn cell<M: Model>(&self, key: &WorkerKey) -> Result<Arc<OnceCell<Worker<M>>>> {
        let mut slots = self.slots.lock();
        let slot = slots.entry((key.clone(), TypeId::of::<M>())).or_insert_with(|| {
            let cell = Arc::new(OnceCell::<Worker<M>>::new());
            let theirs = Arc::clone(&cell);
            let close = move || {
                let worker = theirs.get().cloned();
                async move {
                    if let Some(worker) = worker {
                        worker.close().await;
                    }
                }
                .boxed()
            };
            Slot { cell, close: Box::new(close) }
        });
        Arc::clone(&slot.cell).downcast().map_err(|_| Error::bug("a worker's slot holds another type"))
    }

    /// Closes every worker and forgets it.
    pub async fn close(&self) {
        let slots: Vec<Slot> = self.slots.lock().drain().map(|(_, slot)| slot).collect();
        futures::future::join_all(slots.iter().map(|slot| (slot.close)())).await;
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.slots.lock().keys().map(|(key, _)| key)).finish()
    }
}
