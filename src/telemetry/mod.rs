//! Logs, metric names, and samples of the host and the GPU.

mod exporter;
mod family;
mod handles;
mod logs;
mod metric;
pub mod names;
mod samplers;
mod system;
mod throttle;
mod worker;

pub use self::exporter::{Exporter, recorder};
pub use self::family::Family;
pub use self::handles::{
    BrokerMetrics, CacheMetrics, CacheTier, MediaMetrics, PipelineMetrics, QueueMetrics,
    SinkMetrics, SinkRecordMetrics, SourceMetrics, StageMetrics,
};
pub use self::logs::{LogFormat, LogSettings, Logs};
pub use self::metric::{Metric, MetricKind};
pub use self::samplers::{Sampler, Snapshot, available_bytes, resident_bytes};
pub use self::throttle::Throttle;
pub use self::worker::WorkerMetrics;
