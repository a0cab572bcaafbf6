//! What the cache counts of each kind of result.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::telemetry::{CacheMetrics, CacheTier};

/// What the cache did for one kind of result, since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpStats {
    /// Found in memory.
    pub memory: u64,
    /// Found in Redis.
    pub redis: u64,
    /// Found in neither.
    pub misses: u64,
    /// Failed calls to Redis and values that did not decode.
    pub errors: u64,
}

/// Counters of one kind of result.
pub(super) struct OpCounters {
    pub metrics: CacheMetrics,
    memory: AtomicU64,
    redis: AtomicU64,
    misses: AtomicU64,
    errors: AtomicU64,
}

impl OpCounters {
    pub fn new(op: &'static str) -> Self {
        let zero = AtomicU64::default;
        Self {
            metrics: CacheMetrics::new(op),
            memory: zero(),
            redis: zero(),
            misses: zero(),
            errors: zero(),
        }
    }

    pub fn hit(&self, tier: CacheTier) {
        match tier {
            CacheTier::Memory => &self.memory,
            CacheTier::Redis => &self.redis,
        }
        .fetch_add(1, Ordering::Relaxed);
        self.metrics.hits(tier).increment(1);
    }

    pub fn missed(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
        self.metrics.misses.increment(1);
    }

    pub fn failed(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        self.metrics.errors.increment(1);
    }

    /// What was counted so far.
    pub fn stats(&self) -> OpStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        OpStats {
            memory: load(&self.memory),
            redis: load(&self.redis),
            misses: load(&self.misses),
            errors: load(&self.errors),
        }
    }
}
