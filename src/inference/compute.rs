//! The lock that keeps models on the CPU from computing at the same time.

use std::sync::Arc;

use parking_lot::{FairMutex, FairMutexGuard};

/// The one permit to compute on the CPU. All workers of a process that run there share it, as torch
/// spreads each operation over its threads already. It passes in the order it was asked for.
#[derive(Debug, Clone, Default)]
pub struct ComputeLock(Arc<FairMutex<()>>);

impl ComputeLock {
    /// A permit of its own.
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn acquire(&self) -> FairMutexGuard<'_, ()> {
        self.0.lock()
    }
}
