//! Keeps a process's memory: when it holds much, or is asked to, models that nobody has needed for
//! a while are unloaded and freed memory is given back. They are loaded again when they are asked.

use std::time::Duration;

use super::Workers;
use crate::telemetry::resident_bytes;
use crate::tensor::{self, Device};

/// How often the process's memory is looked at.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// When memory is given back unasked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemorySettings {
    /// Resident bytes of the process above which it is.
    pub threshold: u64,
    /// How long a model must have had nothing to do before it is unloaded.
    pub idle: Duration,
}

/// What was given back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Models unloaded.
    pub unloaded: usize,
    /// Resident bytes before and after.
    pub resident: (u64, u64),
}

impl Workers {
    /// Puts down models that have had nothing to do for `idle`, the longest first, until `enough`,
    /// and gives freed memory back to the system.
    pub async fn reclaim(&self, idle: Duration, enough: impl Fn() -> bool) -> Reclaimed {
        let before = resident_bytes();
        free_all();
        let mut unloaded = 0;
        for worker in self.idle(idle) {
            if enough() {
                break;
            }
            unloaded += usize::from(worker.unload().await);
        }
        Reclaimed {
            unloaded,
            resident: (before, resident_bytes()),
        }
    }
}

/// What is kept for later on the CPU and, where there are any, on GPUs.
fn free_all() {
    tensor::free_cached(Device::Cpu);
    tensor::free_cached(Device::Cuda(0));
}

/// Looks at the process's memory now and then, and relieves it above the threshold. Endless.
pub async fn watch_memory(workers: Workers, settings: MemorySettings) {
    let MemorySettings { threshold, idle } = settings;
    let mut above = false;
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        if resident_bytes() <= threshold {
            above = false;
            continue;
        }
        let reclaimed = workers
            .reclaim(idle, || resident_bytes() <= threshold)
            .await;
        let (before, after) = reclaimed.resident;
        // What stays above is said once, what changes each time.
        if reclaimed.unloaded > 0 || !above {
            let (before, after, threshold) = (before >> 20, after >> 20, threshold >> 20);
            tracing::warn!(
                before,
                after,
                threshold,
                unloaded = reclaimed.unloaded,
                "memory was above its threshold, in MiB"
            );
        }
        above = after > threshold;
    }
}
