//! Logs, metric names, and samples of the host and the GPU.

mod exporter;
mod handles;
mod logs;
mod metrics;
mod samplers;
mod throttle;
mod worker;

pub use self::exporter::{Exporter, recorder};
pub use self::handles::{
    BrokerMetrics, CacheMetrics, CacheTier, GpuMetrics, HostMetrics, MediaMetrics, PipelineMetrics,
    ProcessMetrics, QueueMetrics, SinkMetrics, SinkRecordMetrics, SourceMetrics, StageMetrics,
};
pub use self::logs::{LogFormat, LogSettings, Logs};
pub use self::metrics::{ALL, Family, Metric, MetricKind, describe, names};
pub use self::samplers::{Sampler, Snapshot, available_bytes, resident_bytes};
pub use self::throttle::Throttle;
pub use self::worker::WorkerMetrics;
