//! What is shared by all stages of a pipeline.

use std::sync::Arc;
use std::time::Duration;

use crate::broker::Producer;
use crate::cache::{Cache, ObjectStore};
use crate::codec::Codec;
use crate::inference::Models;
use crate::{Error, Result};

/// What is shared by all stages of a pipeline.
#[derive(Clone)]
pub struct Deps {
    /// The loaded models by name.
    pub models: Models,
    /// The cache.
    pub cache: Cache,
    /// How long a cached answer lives.
    pub cache_ttl: Duration,
    /// The object store, where the pipeline has one.
    pub objects: Option<ObjectStore>,
    /// How long the store keeps an object; none for ever.
    pub objects_ttl: Option<Duration>,
    /// The way to Kafka, where the pipeline has one.
    pub kafka: Option<Kafka>,
    /// The Redis of the cache, for sinks.
    pub redis: Option<String>,
    /// Threads of one stream's decoder.
    pub decode_threads: usize,
}

/// The way to Kafka.
#[derive(Clone)]
pub struct Kafka {
    /// Sends.
    pub producer: Arc<Producer>,
    /// Packets to records.
    pub codec: Codec,
    /// First part of every topic's name.
    pub namespace: String,
}

impl Deps {
    /// Nothing shared but a cache: for pipelines without models and brokers.
    pub fn bare(cache: Cache) -> Self {
        let cache_ttl = Duration::from_secs(3600);
        Self { models: Models::default(), cache, cache_ttl, objects: None, objects_ttl: None, kafka: None, redis: None, decode_threads: 1 }
    }

    /// The object store.
    ///
    /// # Errors
    /// Where the pipeline has none.
    pub fn objects(&self) -> Result<&ObjectStore> {
        self.objects.as_ref().ok_or_else(|| Error::config("pictures need a place to lie").hint("add `objects: { store: \"file:./out/objects\" }`"))
    }
}

impl std::fmt::Debug for Deps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deps").field("models", &self.models).field("kafka", &self.kafka.is_some()).finish_non_exhaustive()
    }
}
