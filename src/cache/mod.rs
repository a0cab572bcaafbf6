//! Results kept in memory and Redis behind one handle, and encoded objects on disk.
//!
//! The memory tier answers without a lock of ours and without allocating. Redis is asked only while
//! it answers: once it does not, a breaker opens and the cache is memory only, at no cost a call,
//! until a probe in the background finds it back.

mod envelope;
mod flight;
mod key;
mod memory;
mod objects;
mod op;
mod remote;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use self::key::{Key, KeyBuilder};
pub use self::objects::{Object, ObjectStore};
pub use self::op::OpStats;

use self::flight::Flights;
use self::memory::MemoryTier;
use self::op::OpCounters;
use self::remote::RedisTier;
use crate::error::Result;
use crate::redact::redact_url;
use crate::telemetry::{CacheTier, Family};

/// What the cache may use.
#[derive(Clone)]
pub struct CacheSettings {
    /// Bytes of the memory tier; 0 keeps nothing there.
    pub memory: u64,
    /// `redis://` or `rediss://` (TLS) URL of the second tier, or none. It may hold a password: it
    /// is never printed whole.
    pub redis: Option<String>,
    /// Values longer than this many bytes are compressed on their way to Redis.
    pub compress_above: usize,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            memory: 512 << 20,
            redis: None,
            compress_above: 1024,
        }
    }
}

impl fmt::Debug for CacheSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheSettings")
            .field("memory", &self.memory)
            .field("redis", &self.redis.as_deref().map(redact_url))
            .field("compress_above", &self.compress_above)
            .finish()
    }
}

/// Where a result came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheSource {
    /// The memory tier, or a concurrent requester's computation.
    Memory,
    /// Redis.
    Redis,
    /// It was computed.
    Computed,
}

/// What the cache holds and did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stats {
    /// By what the results are of.
    pub ops: BTreeMap<&'static str, OpStats>,
    /// Results in the memory tier.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether Redis answers; none where it is not configured.
    pub redis_up: Option<bool>,
}

/// The cache. A handle: cloning shares it.
#[derive(Clone)]
pub struct Cache(Arc<Inner>);

struct Inner {
    memory: MemoryTier,
    remote: Option<RedisTier>,
    flights: Flights,
    ops: Arc<Family<OpCounters>>,
}

impl Cache {
    /// A memory tier of `bytes` bytes alone.
    pub fn in_memory(bytes: u64) -> Self {
        let ops = Arc::new(Family::new(OpCounters::new));
        Self(Arc::new(Inner {
            memory: MemoryTier::new(bytes),
            remote: None,
            flights: Flights::default(),
            ops,
        }))
    }

    /// Opens the tiers. A Redis that does not answer is logged and tried again in the background,
    /// never an error.
    ///
    /// # Errors
    /// Config where the Redis URL does not parse.
    pub async fn open(settings: &CacheSettings) -> Result<Self> {
        let ops = Arc::new(Family::new(OpCounters::new));
        let remote = match settings.redis.as_deref().filter(|url| !url.is_empty()) {
            Some(url) => {
                Some(RedisTier::open(url, settings.compress_above, Arc::clone(&ops)).await?)
            }
            None => None,
        };
        let memory = MemoryTier::new(settings.memory);
        Ok(Self(Arc::new(Inner {
            memory,
            remote,
            flights: Flights::default(),
            ops,
        })))
    }

    /// The value of `key` in the memory tier, without waiting for anything.
    pub fn peek(&self, key: &Key) -> Option<Bytes> {
        let value = self.0.memory.find(key)?;
        self.0.ops.with(key.op()).hit(CacheTier::Memory);
        Some(value)
    }

    /// The value of `key`, from memory or Redis.
    pub async fn find(&self, key: &Key) -> Option<(Bytes, CacheSource)> {
        if let Some(value) = self.peek(key) {
            return Some((value, CacheSource::Memory));
        }
        let op = self.0.ops.with(key.op());
        let found = self.find_remote(key, op).await;
        if found.is_none() {
            op.missed();
        }
        found.map(|value| (value, CacheSource::Redis))
    }

    /// The values of `keys` in their order; those not in memory are asked of Redis in one round
    /// trip.
    pub async fn find_many(&self, keys: &[Key]) -> Vec<Option<(Bytes, CacheSource)>> {
        let mut found: Vec<_> = keys
            .iter()
            .map(|key| self.peek(key).map(|value| (value, CacheSource::Memory)))
            .collect();
        let missing: Vec<usize> = (0..keys.len()).filter(|&at| found[at].is_none()).collect();
        let wanted: Vec<&Key> = missing.iter().map(|&at| &keys[at]).collect();
        let values = match &self.0.remote {
            Some(remote) if !wanted.is_empty() => remote.find_many(&wanted).await,
            _ => vec![None; wanted.len()],
        };
        for (at, value) in missing.into_iter().zip(values) {
            let op = self.0.ops.with(keys[at].op());
            match value {
                Some((value, ttl)) => {
                    op.hit(CacheTier::Redis);
                    self.0.memory.put(&keys[at], value.clone(), ttl);
                    found[at] = Some((value, CacheSource::Redis));
                }
                None => op.missed(),
            }
        }
        found
    }

    /// Puts `value` into both tiers for `ttl`. The write to Redis happens in the background.
    pub fn put(&self, key: &Key, value: Bytes, ttl: Duration) {
        if let Some(remote) = &self.0.remote {
            remote.put(key, value.clone(), ttl);
        }
        self.0.memory.put(key, value, ttl);
    }

    /// The value of `key`, computed by `compute` where no tier has it. Concurrent requesters of one key
    /// wait for one computation; if that fails or its requester goes away, the next of them computes.
    ///
    /// # Errors
    /// What `compute` returns; the cache itself adds none.
    pub async fn get_or_compute<F, C>(
        &self,
        key: &Key,
        ttl: Duration,
        compute: F,
    ) -> Result<(Bytes, CacheSource)>
    where
        F: FnOnce() -> C,
        C: Future<Output = Result<Bytes>>,
    {
        if let Some(value) = self.peek(key) {
            return Ok((value, CacheSource::Memory));
        }
        let flight = self.0.flights.join(key);
        let mut shared = flight.lock().await;
        let op = self.0.ops.with(key.op());
        // The requester before us may have left its result here, also where the memory tier was too
        // small to keep it.
        if let Some(value) = shared.clone().or_else(|| self.0.memory.find(key)) {
            op.hit(CacheTier::Memory);
            return Ok((value, CacheSource::Memory));
        }
        if let Some(value) = self.find_remote(key, op).await {
            *shared = Some(value.clone());
            return Ok((value, CacheSource::Redis));
        }
        op.missed();
        let began = Instant::now();
        let value = compute().await?;
        op.metrics
            .compute_seconds
            .record(began.elapsed().as_secs_f64());
        self.put(key, value.clone(), ttl);
        *shared = Some(value.clone());
        Ok((value, CacheSource::Computed))
    }

    async fn find_remote(&self, key: &Key, op: &OpCounters) -> Option<Bytes> {
        let (value, ttl) = self.0.remote.as_ref()?.find(key).await?;
        op.hit(CacheTier::Redis);
        self.0.memory.put(key, value.clone(), ttl);
        Some(value)
    }

    /// Waits until what was put so far has been handed to Redis, at most `limit`; whether it all
    /// was.
    pub async fn flush(&self, limit: Duration) -> bool {
        match &self.0.remote {
            Some(remote) => remote.flush(limit).await,
            None => true,
        }
    }

    /// Empties the memory tier. What Redis holds stays: other processes share it.
    pub fn clear(&self) {
        self.0.memory.clear();
    }

    /// What the cache holds and did.
    pub fn stats(&self) -> Stats {
        let ops = self.0.ops.iter().map(|(name, op)| (name, op.stats()));
        let (entries, bytes) = self.0.memory.size();
        Stats {
            ops: ops.collect(),
            entries,
            bytes,
            redis_up: self.0.remote.as_ref().map(RedisTier::is_up),
        }
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.stats(), f)
    }
}

#[cfg(test)]
mod tests;
