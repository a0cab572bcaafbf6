//! The metrics of what a run stands on, as handles: build, process, host, GPUs.

use ::metrics::{Counter, Gauge};

use super::names;

/// Says what was built, with what; called once the recorder is installed.
pub(super) fn publish_build_info() {
    names::BUILD_INFO
        .gauge(&[
            env!("CARGO_PKG_VERSION"),
            env!("OPUSFLOW_BUILD_LIBTORCH"),
            env!("OPUSFLOW_BUILD_GSTREAMER"),
            env!("OPUSFLOW_BUILD_RUSTC"),
        ])
        .set(1.0);
}

/// The process, sampled.
#[derive(Debug)]
pub(super) struct ProcessMetrics {
    /// CPU time spent, whole seconds.
    pub cpu_seconds: Counter,
    /// Resident memory, bytes.
    pub resident: Gauge,
    /// Highest resident memory, bytes.
    pub peak_resident: Gauge,
    /// Virtual memory, bytes.
    pub virtual_memory: Gauge,
    /// File descriptors that are open.
    pub open_fds: Gauge,
    /// File descriptors that may be open.
    pub max_fds: Gauge,
    /// When it started, seconds since 1970.
    pub start_seconds: Gauge,
    /// Threads.
    pub threads: Gauge,
}

impl ProcessMetrics {
    /// The one set.
    pub fn new() -> Self {
        Self {
            cpu_seconds: names::PROCESS_CPU.counter(&[]),
            resident: names::PROCESS_RESIDENT.gauge(&[]),
            peak_resident: names::PROCESS_PEAK.gauge(&[]),
            virtual_memory: names::PROCESS_VIRTUAL.gauge(&[]),
            open_fds: names::PROCESS_FDS.gauge(&[]),
            max_fds: names::PROCESS_MAX_FDS.gauge(&[]),
            start_seconds: names::PROCESS_START.gauge(&[]),
            threads: names::PROCESS_THREADS.gauge(&[]),
        }
    }
}

impl Default for ProcessMetrics {
    fn default() -> Self {
        Self::new()
    }
}

/// The host, sampled.
#[derive(Debug)]
pub(super) struct HostMetrics {
    /// Memory, bytes.
    pub memory: Gauge,
    /// Memory that can still be had, bytes.
    pub available: Gauge,
    /// Load average over one minute.
    pub load: Gauge,
    /// Free space of the output's disk, bytes.
    pub disk_free: Gauge,
}

impl HostMetrics {
    /// The one set.
    pub fn new() -> Self {
        Self {
            memory: names::HOST_MEMORY.gauge(&[]),
            available: names::HOST_AVAILABLE.gauge(&[]),
            load: names::HOST_LOAD.gauge(&[]),
            disk_free: names::HOST_DISK.gauge(&[]),
        }
    }
}

impl Default for HostMetrics {
    fn default() -> Self {
        Self::new()
    }
}

/// One GPU, sampled.
#[derive(Debug)]
pub(super) struct GpuMetrics {
    /// Share of time it worked, 0 to 1.
    pub busy: Gauge,
    /// Memory in use, bytes.
    pub memory_used: Gauge,
    /// Its memory, bytes.
    pub memory: Gauge,
    /// Watts.
    pub power: Gauge,
    /// Degrees Celsius.
    pub celsius: Gauge,
}

impl GpuMetrics {
    /// Those of GPU number `index`, called `name`.
    pub fn new(index: u32, name: &str) -> Self {
        let index = index.to_string();
        let labels = [index.as_str(), name];
        Self {
            busy: names::GPU_BUSY.gauge(&labels),
            memory_used: names::GPU_MEMORY_USED.gauge(&labels),
            memory: names::GPU_MEMORY.gauge(&labels),
            power: names::GPU_POWER.gauge(&labels),
            celsius: names::GPU_CELSIUS.gauge(&labels),
        }
    }
}
