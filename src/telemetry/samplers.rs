//! Samples of the process, the host and its GPUs at an interval, as gauges and as a snapshot for
//! the log.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use parking_lot::RwLock;
use sysinfo::{Disks, Pid, ProcessRefreshKind, ProcessesToUpdate, System};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::system::{GpuMetrics, HostMetrics, ProcessMetrics};

/// What the last sample saw.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Snapshot {
    /// Resident memory, bytes.
    pub rss: u64,
    /// Highest resident memory so far, bytes.
    pub peak_rss: u64,
    /// Cores kept busy since the sample before: 1.5 is one and a half.
    pub cpu_cores: f32,
    /// Threads; 0 where the system does not tell.
    pub threads: u64,
    /// File descriptors; 0 where the system does not tell.
    pub open_files: u64,
    /// Memory of the host that can still be had, bytes.
    pub available: u64,
    /// Load average over one minute.
    pub load: f64,
    /// Free space of the output's disk, bytes.
    pub disk_free: Option<u64>,
    /// Mean share of time the GPUs worked, 0 to 1; none without a GPU.
    pub gpu_busy: Option<f32>,
    /// Memory in use on all GPUs, bytes; none without a GPU.
    pub gpu_memory: Option<u64>,
}

/// The running sampler. Cheap to clone; it ends with its shutdown token.
#[derive(Debug, Clone)]
pub struct Sampler {
    last: Arc<RwLock<Snapshot>>,
}

impl Sampler {
    /// Takes a first sample, then one each `interval` until `shutdown`. `disk` is a path on the
    /// disk whose free space is watched. A machine without a GPU or its driver is found out once,
    /// here.
    pub async fn start(
        interval: Duration,
        disk: PathBuf,
        shutdown: CancellationToken,
    ) -> (Self, JoinHandle<()>) {
        let sampler = Self {
            last: Arc::default(),
        };
        let mut probes = sampler
            .sample(Box::new(Probes::default()), Some(disk))
            .await;
        let this = sampler.clone();
        let task = tokio::spawn(async move {
            let mut tick = tokio::time::interval(interval);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            tick.tick().await;
            loop {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    _ = tick.tick() => {}
                }
                let Some(current) = probes else { return };
                probes = this.sample(current, None).await;
            }
        });
        (sampler, task)
    }

    /// The last sample.
    pub fn snapshot(&self) -> Snapshot {
        *self.last.read()
    }

    /// One sample, off the runtime's threads as it reads /proc and asks drivers. None if the
    /// runtime is ending.
    async fn sample(&self, mut probes: Box<Probes>, open: Option<PathBuf>) -> Option<Box<Probes>> {
        let last = Arc::clone(&self.last);
        let job = move || {
            if let Some(disk) = open {
                probes.open(disk);
            }
            let peak = last.read().peak_rss;
            let snapshot = probes.sample(peak);
            *last.write() = snapshot;
            probes
        };
        tokio::task::spawn_blocking(job).await.ok()
    }
}

#[derive(Default)]
struct Probes {
    system: System,
    disks: Disks,
    disk: PathBuf,
    process: ProcessMetrics,
    host: HostMetrics,
    gpus: Option<Gpus>,
}

struct Gpus {
    nvml: Nvml,
    handles: Vec<GpuMetrics>,
}

impl Probes {
    fn open(&mut self, disk: PathBuf) {
        self.disk = std::path::absolute(&disk).unwrap_or(disk);
        self.disks = Disks::new_with_refreshed_list();
        self.gpus = Gpus::open();
    }

    fn sample(&mut self, peak: u64) -> Snapshot {
        let mut snapshot = Snapshot::default();
        self.sample_process(&mut snapshot, peak);
        self.sample_host(&mut snapshot);
        if let Some(gpus) = &self.gpus {
            gpus.sample(&mut snapshot);
        }
        snapshot
    }

    fn sample_process(&mut self, snapshot: &mut Snapshot, peak: u64) {
        let pid = Pid::from_u32(std::process::id());
        let what = ProcessRefreshKind::nothing().with_memory().with_cpu();
        self.system
            .refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), true, what);
        if let Some(process) = self.system.process(pid) {
            snapshot.rss = process.memory();
            snapshot.cpu_cores = process.cpu_usage() / 100.0;
            snapshot.open_files = process.open_files().unwrap_or(0) as u64;
            let handles = &self.process;
            handles
                .cpu_seconds
                .absolute(process.accumulated_cpu_time() / 1000);
            handles.virtual_memory.set(process.virtual_memory() as f64);
            handles.start_seconds.set(process.start_time() as f64);
            if let Some(most) = process.open_files_limit() {
                handles.max_fds.set(most as f64);
            }
        }
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let high_water = status_field(&status, "VmHWM:").unwrap_or(0) * 1024;
        snapshot.peak_rss = peak.max(snapshot.rss).max(high_water);
        snapshot.threads = status_field(&status, "Threads:").unwrap_or(0);
        self.process.resident.set(snapshot.rss as f64);
        self.process.peak_resident.set(snapshot.peak_rss as f64);
        self.process.threads.set(snapshot.threads as f64);
        self.process.open_fds.set(snapshot.open_files as f64);
    }

    fn sample_host(&mut self, snapshot: &mut Snapshot) {
        self.system.refresh_memory();
        snapshot.available = self.system.available_memory();
        snapshot.load = System::load_average().one;
        self.disks.refresh(true);
        snapshot.disk_free = free_space(&self.disks, &self.disk);
        self.host.memory.set(self.system.total_memory() as f64);
        self.host.available.set(snapshot.available as f64);
        self.host.load.set(snapshot.load);
        if let Some(free) = snapshot.disk_free {
            self.host.disk_free.set(free as f64);
        }
    }
}

impl Gpus {
    fn open() -> Option<Self> {
        let nvml = Nvml::init().ok()?;
        let handles: Vec<_> = (0..nvml.device_count().ok()?)
            .map(|index| {
                let name = nvml
                    .device_by_index(index)
                    .and_then(|gpu| gpu.name())
                    .unwrap_or_default();
                GpuMetrics::new(index, &name)
            })
            .collect();
        (!handles.is_empty()).then_some(Self { nvml, handles })
    }

    fn sample(&self, snapshot: &mut Snapshot) {
        let (mut busy, mut memory) = (Vec::new(), 0);
        for (index, handles) in (0..).zip(&self.handles) {
            let Ok(gpu) = self.nvml.device_by_index(index) else {
                continue;
            };
            if let Ok(rates) = gpu.utilization_rates() {
                let share = rates.gpu as f32 / 100.0;
                handles.busy.set(share);
                busy.push(share);
            }
            if let Ok(info) = gpu.memory_info() {
                handles.memory_used.set(info.used as f64);
                handles.memory.set(info.total as f64);
                memory += info.used;
            }
            if let Ok(milliwatts) = gpu.power_usage() {
                handles.power.set(f64::from(milliwatts) / 1000.0);
            }
            if let Ok(celsius) = gpu.temperature(TemperatureSensor::Gpu) {
                handles.celsius.set(celsius);
            }
        }
        snapshot.gpu_busy =
            (!busy.is_empty()).then(|| busy.iter().sum::<f32>() / busy.len() as f32);
        snapshot.gpu_memory = Some(memory);
    }
}

/// Resident memory of the process now; 0 where the system does not tell.
pub fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status_field(&status, "VmRSS:").unwrap_or(0) * 1024
}

/// Memory that the process can still have: the host's, or what its control group leaves it.
pub fn available_bytes() -> u64 {
    let mut system = System::new();
    system.refresh_memory();
    system
        .cgroup_limits()
        .map_or(u64::MAX, |group| group.free_memory)
        .min(system.available_memory())
}

fn status_field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Free bytes of the disk mounted nearest above `path`.
fn free_space(disks: &Disks, path: &Path) -> Option<u64> {
    let above = disks
        .list()
        .iter()
        .filter(|disk| path.starts_with(disk.mount_point()));
    above
        .max_by_key(|disk| disk.mount_point().as_os_str().len())
        .map(|disk| disk.available_space())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_fields_are_read_by_name() {
        let status = "Name:\tx\nVmHWM:\t  2048 kB\nThreads:\t7\n";
        assert_eq!(status_field(status, "VmHWM:"), Some(2048));
        assert_eq!(status_field(status, "Threads:"), Some(7));
        assert_eq!(status_field(status, "VmSwap:"), None);
    }

    #[tokio::test]
    async fn first_sample_is_there_at_once_and_the_task_ends_with_its_token() {
        let shutdown = CancellationToken::new();
        let (sampler, task) = Sampler::start(
            Duration::from_secs(3600),
            PathBuf::from("."),
            shutdown.clone(),
        )
        .await;
        let seen = sampler.snapshot();
        assert!(seen.rss > 1 << 20 && seen.peak_rss >= seen.rss, "{seen:?}");
        assert!(resident_bytes() > 1 << 20 && available_bytes() > 1 << 20);
        assert!(
            seen.threads >= 1 && seen.open_files >= 3 && seen.available > 0,
            "{seen:?}"
        );
        shutdown.cancel();
        task.await.unwrap();
    }
}
