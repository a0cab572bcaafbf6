//! What is shared by all stages of a pipeline.

use std::io::{self, Write};
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
    /// Puts whole lines on standard output.
    pub print: Print,
}

/// Puts whole lines on standard output; who draws on the terminal gives one of its own.
pub type Print = Arc<dyn Fn(&str) -> io::Result<()> + Send + Sync>;

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
    /// The object store.
    ///
    /// # Errors
    /// Where the pipeline has none.
    pub fn objects(&self) -> Result<&ObjectStore> {
        self.objects.as_ref().ok_or_else(|| {
            Error::config("pictures need a place to lie")
                .hint("add `objects: { store: \"file:./out/objects\" }`")
        })
    }
}

impl Default for Deps {
    /// Nothing shared but a small cache: for pipelines without models and brokers.
    fn default() -> Self {
        Self {
            models: Models::default(),
            cache: Cache::in_memory(1 << 20),
            cache_ttl: Duration::from_secs(3600),
            objects: None,
            objects_ttl: None,
            kafka: None,
            redis: None,
            decode_threads: 1,
            print: Arc::new(|lines| io::stdout().lock().write_all(lines.as_bytes())),
        }
    }
}

impl std::fmt::Debug for Deps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deps")
            .field("models", &self.models)
            .field("kafka", &self.kafka.is_some())
            .finish_non_exhaustive()
    }
}
