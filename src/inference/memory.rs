//! What a worker holds on its device: its weights, and what a running batch takes beside them.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::telemetry::available_bytes;
use crate::tensor::{self, AllocationTracker, Device};

/// The memory of one worker. On the CPU it is the worker's own, to the byte, and its limit is kept
/// before memory is taken. A GPU's allocator knows no owners: there it is what the whole device
/// holds more than before the model was loaded, and the limit is looked at after a batch.
pub(super) struct WorkerMemory {
    account: Arc<AllocationTracker>,
    gpu: Option<usize>,
    limit: Option<u64>,
    /// What the GPU held before the model was loaded.
    before: u64,
}

impl WorkerMemory {
    pub fn new(device: Device, limit: Option<u64>) -> Self {
        let gpu = if let Device::Cuda(index) = device {
            Some(index)
        } else {
            None
        };
        Self {
            account: Arc::new(AllocationTracker::new()),
            gpu,
            limit,
            before: 0,
        }
    }

    /// Where the worker's thread books what it allocates.
    pub fn account(&self) -> Arc<AllocationTracker> {
        Arc::clone(&self.account)
    }

    /// A model is about to be loaded. Reading weights takes more for a moment than they need, which
    /// the limit is not about.
    pub fn begin_loading(&mut self) {
        self.account.limit(None);
        self.before = self
            .gpu
            .and_then(tensor::gpu_memory)
            .map_or(0, |memory| memory.held);
    }

    /// The model is loaded.
    ///
    /// # Errors
    /// Config, where its weights alone are above the limit.
    pub fn loaded(&self) -> Result<()> {
        let (held, limit) = (self.held(), self.limit.unwrap_or(u64::MAX));
        if held > limit {
            let message = format!(
                "its weights hold {} MiB, its memory_limit is {} MiB",
                held >> 20,
                limit >> 20
            );
            return Err(Error::config(message)
                .hint("raise memory_limit, or take a smaller model or `precision: bf16`"));
        }
        if self.gpu.is_none() {
            self.account.limit(self.limit);
        }
        Ok(())
    }

    /// The model is dropped. On the CPU nothing is booked any more: a network's answers hold no
    /// tensors, and what a model keeps for later goes with it.
    pub fn unloaded(&self) {
        debug_assert!(
            self.gpu.is_some() || self.held() == 0,
            "a dropped model leaves {} bytes on its account",
            self.held()
        );
    }

    /// Batches of unknown size are about to be tried: on the CPU, without a limit, half of what the
    /// process can still have is one, as the kernel would not refuse memory but end the process.
    pub fn begin_measuring(&self) {
        if self.gpu.is_none() {
            self.account.limit(
                self.limit
                    .or_else(|| Some(self.held() + available_bytes() / 2)),
            );
        }
    }

    /// They have been tried.
    pub fn measured(&self) {
        if self.gpu.is_none() {
            self.account.limit(self.limit);
        }
    }

    /// Bytes held now.
    pub fn held(&self) -> u64 {
        match self.gpu {
            Some(index) => tensor::gpu_memory(index)
                .map_or(0, |memory| memory.held.saturating_sub(self.before)),
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
            Some(index) => tensor::gpu_memory(index)
                .map_or(0, |memory| memory.peak.saturating_sub(self.before)),
            None => self.account.peak(),
        }
    }

    /// Whether the batch took more than the limit.
    pub fn is_over(&self) -> bool {
        self.limit.is_some_and(|limit| self.peak() > limit)
    }
}

#[cfg(test)]
mod tests {
    use tch::{Kind, Tensor};

    use super::*;

    #[test]
    fn without_a_limit_half_of_what_there_is_is_tried() {
        let memory = WorkerMemory::new(Device::Cpu, None);
        let account = memory.account();
        let _entered = account.enter();
        // Memory that is never touched costs nothing.
        let most = || {
            Tensor::f_empty(
                [(available_bytes() / 4 * 3) as i64],
                (Kind::Uint8, Device::Cpu),
            )
        };
        memory.begin_measuring();
        assert!(most().unwrap_err().to_string().contains("memory limit"));
        memory.measured();
        assert!(most().is_ok());
    }

    #[test]
    fn weights_count_against_the_limit_and_loading_does_not() {
        let mut memory = WorkerMemory::new(Device::Cpu, Some(6 << 20));
        let account = memory.account();
        let _entered = account.enter();
        let ones = |mib: i64| Tensor::f_ones([mib << 18], (Kind::Float, Device::Cpu));
        memory.begin_loading();
        drop(ones(32).unwrap());
        let weights = ones(4).unwrap();
        memory.loaded().unwrap();
        memory.begin_batch();
        drop(ones(1).unwrap());
        assert_eq!(
            (memory.held(), memory.peak(), memory.is_over()),
            (4 << 20, 5 << 20, false)
        );
        assert!(ones(3).is_err());
        drop(weights);
        let larger = ones(7);
        assert!(larger.is_err());
        memory.begin_loading();
        let _weights = ones(7).unwrap();
        assert!(
            memory
                .loaded()
                .unwrap_err()
                .message()
                .contains("hold 7 MiB")
        );
    }
}
