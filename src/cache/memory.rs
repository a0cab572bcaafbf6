//! The memory tier: moka, weighed in bytes, with a lifetime an entry.

use std::time::{Duration, Instant};

use bytes::Bytes;
use moka::Expiry;
use moka::sync::Cache;

use super::key::{BuildIdentityHasher, Digest, Key};
use crate::telemetry::names;

/// What an entry costs beside its value: key, counts and links, as measured by moka's own
/// structures.
const OVERHEAD: usize = 160;

#[derive(Clone)]
struct Entry {
    value: Bytes,
    ttl: Duration,
}

struct Lifetime;

impl Expiry<Digest, Entry> for Lifetime {
    fn expire_after_create(&self, _: &Digest, entry: &Entry, _: Instant) -> Option<Duration> {
        Some(entry.ttl)
    }

    fn expire_after_update(
        &self,
        _: &Digest,
        entry: &Entry,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.ttl)
    }
}

pub(super) struct MemoryTier {
    entries: Option<Cache<Digest, Entry, BuildIdentityHasher>>,
    bytes: metrics::Gauge,
    count: metrics::Gauge,
}

impl MemoryTier {
    pub fn new(bytes: u64) -> Self {
        let entries = (bytes > 0).then(|| {
            Cache::builder()
                .max_capacity(bytes)
                .weigher(|_, entry: &Entry| {
                    u32::try_from(entry.value.len() + OVERHEAD).unwrap_or(u32::MAX)
                })
                .expire_after(Lifetime)
                .build_with_hasher(BuildIdentityHasher::default())
        });
        Self {
            entries,
            bytes: names::CACHE_BYTES.gauge(&[]),
            count: names::CACHE_ENTRIES.gauge(&[]),
        }
    }

    pub fn find(&self, key: &Key) -> Option<Bytes> {
        self.entries
            .as_ref()?
            .get(&Digest(*key.digest()))
            .map(|entry| entry.value)
    }

    pub fn put(&self, key: &Key, value: Bytes, ttl: Duration) {
        if let Some(entries) = self.entries.as_ref().filter(|_| !ttl.is_zero()) {
            entries.insert(Digest(*key.digest()), Entry { value, ttl });
            self.bytes.set(entries.weighted_size() as f64);
            self.count.set(entries.entry_count() as f64);
        }
    }

    pub fn clear(&self) {
        if let Some(entries) = &self.entries {
            entries.invalidate_all();
            entries.run_pending_tasks();
        }
    }

    /// Entries and their bytes.
    pub fn size(&self) -> (u64, u64) {
        let Some(entries) = &self.entries else {
            return (0, 0);
        };
        entries.run_pending_tasks();
        (entries.entry_count(), entries.weighted_size())
    }
}
