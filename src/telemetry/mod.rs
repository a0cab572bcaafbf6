//! Logs, metric names, and samples of the host and the GPU.

mod exporter;
mod family;
mod handles;
mod logs;
mod metric;
pub(crate) mod names;
mod samplers;
mod system;
mod throttle;
mod worker;

pub use self::exporter::Exporter;
pub(crate) use self::family::Family;
pub(crate) use self::handles::{
    BrokerMetrics, CacheMetrics, CacheTier, MediaMetrics, PipelineMetrics, QueueMetrics,
    SinkMetrics, SourceMetrics, StageMetrics,
};
pub(crate) use self::logs::{LogSettings, Logs};
pub(crate) use self::metric::{Metric, MetricKind};
pub(crate) use self::samplers::{Sampler, Snapshot, available_bytes, resident_bytes};
pub(crate) use self::throttle::Throttle;
pub(crate) use self::worker::WorkerMetrics;
