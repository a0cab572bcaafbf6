//! The metrics of a model's worker as cached handles.

use ::metrics::{Counter, Gauge, Histogram};

use super::names;

/// What a model's worker did.
#[derive(Debug)]
pub struct WorkerMetrics {
    /// Items a batch.
    pub batch_size: Histogram,
    /// Items a batch over the most there may be.
    pub fill: Histogram,
    /// Time an item waited for its batch.
    pub queue_seconds: Histogram,
    /// Time of a batch.
    pub run_seconds: Histogram,
    /// Items that wait.
    pub depth: Gauge,
    /// The largest batch allowed now.
    pub limit: Gauge,
    /// The largest batch while memory is enough.
    pub most: Gauge,
    /// Bytes held between batches.
    pub memory: Gauge,
    /// Most bytes held during the last batch.
    pub peak: Gauge,
    /// Items answered.
    pub items: Counter,
    /// Items refused or failed on.
    pub failed: Counter,
    /// Items nobody waited for any more.
    pub cancelled: Counter,
    /// Items whose deadline had passed.
    pub expired: Counter,
    /// Batches halved because memory ran out.
    pub oom: Counter,
    /// Panics caught.
    pub panics: Counter,
    /// Times the model was unloaded.
    pub unloads: Counter,
}

impl WorkerMetrics {
    /// Those of the worker that owns `model` at `place`: `cpu`, `cuda:0`.
    pub fn new(model: &str, place: &str) -> Self {
        let labels = [model, place];
        Self {
            batch_size: names::WORKER_BATCH.histogram(&labels),
            fill: names::WORKER_FILL.histogram(&labels),
            queue_seconds: names::WORKER_QUEUE_WAIT.histogram(&labels),
            run_seconds: names::WORKER_RUN.histogram(&labels),
            depth: names::WORKER_QUEUE.gauge(&labels),
            limit: names::WORKER_LIMIT.gauge(&labels),
            most: names::WORKER_MAX.gauge(&labels),
            memory: names::WORKER_MEMORY.gauge(&labels),
            peak: names::WORKER_PEAK.gauge(&labels),
            items: names::WORKER_ITEMS.counter(&labels),
            failed: names::WORKER_FAILED.counter(&labels),
            cancelled: names::WORKER_CANCELLED.counter(&labels),
            expired: names::WORKER_EXPIRED.counter(&labels),
            oom: names::WORKER_OOM.counter(&labels),
            unloads: names::WORKER_UNLOADS.counter(&labels),
            panics: names::WORKER_PANICS.counter(&labels),
        }
    }
}
