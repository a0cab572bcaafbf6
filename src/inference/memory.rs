//! What a worker holds on its device: its weights, and what a running batch takes beside them.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::tensor::{self, Account, Device};

/// The memory of one worker. On the CPU it is the worker's own, to the byte, and its limit is kept before memory is taken. A GPU's allocator
/// knows no owners: there it is what the whole device holds more than before the model was loaded, and the limit is looked at after a batch.
pub(super) struct WorkerMemory {
    account: Arc<Account>,
    gpu: Option<usize>,
    limit: Option<u64>,
    /// What the GPU held before the model was loaded.
    before: u64,
}

impl WorkerMemory {
    pub fn new(device: Device, limit: Option<u64>) -> Self {
        let gpu = if let Device::Cuda(index) = device { Some(index) } else { None };
        Self { account: Arc::new(Account::new()), gpu, limit, before: 0 }
    }

    /// Where the worker's thread books what it allocates.
    pub fn account(&self) -> Arc<Account> {
        Arc::clone(&self.account)
    }

    /// A model is about to be loaded. Reading weights takes more for a moment than they need, which the limit is not about.
    pub fn begin_loading(&mut self) {
        self.account.limit(None);
        self.before = self.gpu.and_then(tensor::gpu_memory).map_or(0, |memory| memory.held);
    }

    /// The model is loaded.
    ///
    /// # Errors
    /// Config, where its weights alone are above the limit.
    pub fn loaded(&self) -> Result<()> {
        let (held, limit) = (self.held(), self.limit.unwrap_or(u64::MAX));
        if held > limit {
            let message = format!("its weights hold {} MiB, its memory_limit is {} MiB", held >> 20, limit >> 20);
            return Err(Error::config(message).hint("raise memory_limit, or take a smaller model or `precision: bf16`"));
        }
        if self.gpu.is_none() {
            self.account.limit(self.limit);
        }
        Ok(())
    }

    /// Bytes held now.
    pub fn held(&self) -> u64 {
        match self.gpu {
            Some(index) => tensor::gpu_memory(index).map_or(0, |memory| memory.held.saturating_sub(self.before)),
            None => self.account.held(),
        }
    }

    /// A batch begins.
    pub fn begin_batch(&self) {
        match self.gpu {
            Some(index) => tensor::restart_gpu_peak(index),
            None => self.account.restart_peak(),
        }
    }

    /// Most bytes held since the batch began.
    pub fn peak(&self) -> u64 {
        match self.gpu {
            Some(index) => tensor::gpu_memory(index).map_or(0, |memory| memory.peak.saturating_sub(self.before)),
            None => self.account.peak(),
        }
    }

    /// Whether the batch took more than the limit.
    pub fn is_over(&self) -> bool {
        self.limit.is_some_and(|limit| self.peak() > limit)
    }
}
