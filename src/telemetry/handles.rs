//! The metrics of one stage, queue, cache, sink or stream as cached handles: what the hot path does
//! with them is an atomic add.

use ::metrics::{Counter, Gauge, Histogram};

use super::family::Family;
use super::names;

/// What a stage did.
#[derive(Debug)]
pub struct StageMetrics {
    /// Packets taken from its queues.
    pub received: Counter,
    /// Packets emitted.
    pub emitted: Counter,
    /// Packets that failed for good.
    pub failed: Counter,
    /// Repeated attempts.
    pub retries: Counter,
    /// Attempts that ran out of time.
    pub timeouts: Counter,
    /// Panics caught.
    pub panics: Counter,
    /// Time from taking a packet to having its results.
    pub process_seconds: Histogram,
    dropped: Family<Counter>,
}

impl StageMetrics {
    /// Those of `stage` in `pipeline`.
    pub fn new(pipeline: &str, stage: &str) -> Self {
        let labels = [pipeline, stage];
        let (pipeline, stage) = (pipeline.to_owned(), stage.to_owned());
        Self {
            received: names::STAGE_RECEIVED.counter(&labels),
            emitted: names::STAGE_EMITTED.counter(&labels),
            failed: names::STAGE_FAILED.counter(&labels),
            retries: names::STAGE_RETRIES.counter(&labels),
            timeouts: names::STAGE_TIMEOUTS.counter(&labels),
            panics: names::STAGE_PANICS.counter(&labels),
            process_seconds: names::STAGE_PROCESSING.histogram(&labels),
            dropped: Family::new(move |reason| {
                names::STAGE_DROPPED.counter(&[&pipeline, &stage, reason])
            }),
        }
    }

    /// Packets lost for `reason`.
    pub fn dropped(&self, reason: &'static str) -> &Counter {
        self.dropped.with(reason)
    }
}

/// What lies in a queue.
#[derive(Debug)]
pub struct QueueMetrics {
    /// Packets that wait.
    pub packets: Gauge,
    /// Bytes that wait.
    pub bytes: Gauge,
    /// Time a packet lay in it.
    pub wait_seconds: Histogram,
    /// Time a producer stood before it.
    pub blocked_seconds: Histogram,
}

impl QueueMetrics {
    /// Those of `stage`'s queue for `input`.
    pub fn new(pipeline: &str, stage: &str, input: &str) -> Self {
        let labels = [pipeline, stage, input];
        Self {
            packets: names::QUEUE_PACKETS.gauge(&labels),
            bytes: names::QUEUE_BYTES.gauge(&labels),
            wait_seconds: names::QUEUE_WAIT.histogram(&labels),
            blocked_seconds: names::QUEUE_BLOCKED.histogram(&labels),
        }
    }
}

/// What became of a pipeline's frames.
#[derive(Debug)]
pub struct PipelineMetrics {
    /// Streams that run.
    pub streams: Gauge,
    /// Frames that sources gave.
    pub ingested: Counter,
    settled: Family<Counter>,
}

impl PipelineMetrics {
    /// Those of `pipeline`.
    pub fn new(pipeline: &str) -> Self {
        let streams = names::PIPELINE_STREAMS.gauge(&[pipeline]);
        let ingested = names::PIPELINE_INGESTED.counter(&[pipeline]);
        let pipeline = pipeline.to_owned();
        Self {
            streams,
            ingested,
            settled: Family::new(move |outcome| {
                names::PIPELINE_SETTLED.counter(&[&pipeline, outcome])
            }),
        }
    }

    /// Frames that came to `outcome`: a term of the ledger (`delivered`, `absorbed`, `dropped`,
    /// `dead_lettered`, `leaked`).
    pub fn settled(&self, outcome: &'static str) -> &Counter {
        self.settled.with(outcome)
    }
}

/// Where the cache found a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheTier {
    /// In this process.
    Memory,
    /// In Redis.
    Redis,
}

/// What the cache did for one kind of result.
#[derive(Debug)]
pub struct CacheMetrics {
    /// Found in no tier.
    pub misses: Counter,
    /// Failed calls to Redis and values that did not decode.
    pub errors: Counter,
    /// Results not written to Redis.
    pub skipped: Counter,
    /// Time of a call to Redis.
    pub redis_seconds: Histogram,
    /// Time to compute what no tier had.
    pub compute_seconds: Histogram,
    memory_hits: Counter,
    redis_hits: Counter,
}

impl CacheMetrics {
    /// Those of `op`: what the result is of (`encode`, `caption`).
    pub fn new(op: &str) -> Self {
        let labels = [op];
        Self {
            misses: names::CACHE_MISSES.counter(&labels),
            errors: names::CACHE_ERRORS.counter(&labels),
            skipped: names::CACHE_SKIPPED.counter(&labels),
            redis_seconds: names::CACHE_REDIS.histogram(&labels),
            compute_seconds: names::CACHE_COMPUTE.histogram(&labels),
            memory_hits: names::CACHE_HITS.counter(&[op, "memory"]),
            redis_hits: names::CACHE_HITS.counter(&[op, "redis"]),
        }
    }

    /// Results found in `tier`.
    pub fn hits(&self, tier: CacheTier) -> &Counter {
        match tier {
            CacheTier::Memory => &self.memory_hits,
            CacheTier::Redis => &self.redis_hits,
        }
    }
}

/// What a sink did with one kind of record.
#[derive(Debug)]
pub struct SinkRecordMetrics {
    /// Records delivered.
    pub delivered: Counter,
    /// Records that could not be delivered.
    pub failed: Counter,
    /// Time from a frame's arrival to its record's delivery.
    pub latency_seconds: Histogram,
}

/// What a sink did.
#[derive(Debug)]
pub struct SinkMetrics {
    /// Time from handing a batch over to its outcome.
    pub delivery_seconds: Histogram,
    records: Family<SinkRecordMetrics>,
}

impl SinkMetrics {
    /// Those of the sink `stage` in `pipeline`.
    pub fn new(pipeline: &str, stage: &str) -> Self {
        let delivery_seconds = names::SINK_DELIVERY.histogram(&[pipeline, stage]);
        let (pipeline, stage) = (pipeline.to_owned(), stage.to_owned());
        let records = Family::new(move |record| {
            let labels = [pipeline.as_str(), stage.as_str(), record];
            SinkRecordMetrics {
                delivered: names::SINK_DELIVERED.counter(&labels),
                failed: names::SINK_FAILED.counter(&labels),
                latency_seconds: names::SINK_LATENCY.histogram(&labels),
            }
        });
        Self {
            delivery_seconds,
            records,
        }
    }

    /// Those of the records of kind `record` (a payload kind's word).
    pub fn record(&self, record: &'static str) -> &SinkRecordMetrics {
        self.records.with(record)
    }
}

/// What the Kafka producer did.
#[derive(Debug)]
pub struct BrokerMetrics {
    /// Bytes not yet acknowledged.
    pub in_flight_bytes: Gauge,
    /// Whether a broker answers.
    pub up: Gauge,
    /// Producers replaced after a fatal error.
    pub restarts: Counter,
}

impl BrokerMetrics {
    /// Those of the producer of `pipeline`.
    pub fn new(pipeline: &str) -> Self {
        let labels = [pipeline];
        Self {
            in_flight_bytes: names::BROKER_IN_FLIGHT.gauge(&labels),
            up: names::BROKER_UP.gauge(&labels),
            restarts: names::BROKER_RESTARTS.counter(&labels),
        }
    }
}

/// What a source's decoder did for one view.
#[derive(Debug)]
pub struct MediaMetrics {
    /// Frames decoded.
    pub frames: Counter,
    /// Their bytes.
    pub bytes: Counter,
}

impl MediaMetrics {
    /// Those of `view` of the source `stage` in `pipeline`; its streams share them, as files are
    /// many.
    pub fn new(pipeline: &str, stage: &str, view: &str) -> Self {
        let labels = [pipeline, stage, view];
        Self {
            frames: names::MEDIA_FRAMES.counter(&labels),
            bytes: names::MEDIA_BYTES.counter(&labels),
        }
    }
}

/// What happened to a source's streams.
#[derive(Debug)]
pub struct SourceMetrics {
    /// Frames damaged or given up.
    pub corrupt: Counter,
    /// Discontinuities.
    pub gaps: Counter,
    /// Attempts to reach a lost source again.
    pub reconnects: Counter,
    /// Streams that deliver.
    pub connected: Gauge,
}

impl SourceMetrics {
    /// Those of the source `stage` in `pipeline`.
    pub fn new(pipeline: &str, stage: &str) -> Self {
        let labels = [pipeline, stage];
        Self {
            corrupt: names::MEDIA_CORRUPT.counter(&labels),
            gaps: names::MEDIA_GAPS.counter(&labels),
            reconnects: names::MEDIA_RECONNECTS.counter(&labels),
            connected: names::MEDIA_CONNECTED.gauge(&labels),
        }
    }
}
