//! Every metric of the crate: name, kind, unit and text in one table, so that a dashboard's author
//! reads one file. The name's second word is the room it comes from.
#![allow(
    clippy::disallowed_macros,
    reason = "the one place where names meet the recorder"
)]

use std::fmt;
use std::sync::OnceLock;

use ::metrics::{Counter, Gauge, Histogram, Label, Unit};

/// How a metric moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MetricKind {
    /// Only up.
    Counter,
    /// Up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

/// One metric's name and meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// `opusflow_<room>_<thing>_<unit>[_total]`.
    pub name: &'static str,
    /// How it moves.
    pub kind: MetricKind,
    /// What it is counted in.
    pub unit: Unit,
    /// What it says, for the `# HELP` line.
    pub text: &'static str,
}

/// Names and texts, one const a metric.
pub mod names {
    use super::{Metric, MetricKind, Unit};

    const fn counter(name: &'static str, unit: Unit, text: &'static str) -> Metric {
        Metric {
            name,
            kind: MetricKind::Counter,
            unit,
            text,
        }
    }
    const fn gauge(name: &'static str, unit: Unit, text: &'static str) -> Metric {
        Metric {
            name,
            kind: MetricKind::Gauge,
            unit,
            text,
        }
    }
    const fn histogram(name: &'static str, unit: Unit, text: &'static str) -> Metric {
        Metric {
            name,
            kind: MetricKind::Histogram,
            unit,
            text,
        }
    }

    macro_rules! table {
        ($($id:ident = $kind:ident($name:literal, $unit:ident, $text:literal);)*) => {
            $(#[doc = $text] pub const $id: Metric = $kind($name, Unit::$unit, $text);)*
            /// Every metric there is.
            pub const ALL: &[Metric] = &[$($id),*];
        };
    }

    table! {
        STAGE_PACKETS_IN = counter("opusflow_stage_in_packets_total", Count, "Packets a stage took from its queues.");
        STAGE_PACKETS_OUT = counter("opusflow_stage_out_packets_total", Count, "Packets a stage emitted.");
        STAGE_DROPPED = counter("opusflow_stage_dropped_packets_total", Count, "Packets lost at a stage or its queues, by reason.");
        STAGE_FAILED = counter("opusflow_stage_failed_packets_total", Count, "Packets a stage failed on: dead letters, or dropped without them.");
        STAGE_RETRIES = counter("opusflow_stage_retries_total", Count, "Repeated attempts at a packet.");
        STAGE_TIMEOUTS = counter("opusflow_stage_timeouts_total", Count, "Attempts at a packet that ran out of time.");
        STAGE_PANICS = counter("opusflow_stage_panics_total", Count, "Panics caught while a stage \
                                                                      processed a packet.");
        STAGE_PROCESS = histogram("opusflow_stage_process_seconds", Seconds, "Time from taking a packet to having its results; one packet in 16 is timed.");
        QUEUE_FRAMES = gauge("opusflow_stage_queue_frames", Count, "Packets that wait in an \
                                                                    input's queue.");
        QUEUE_BYTES = gauge("opusflow_stage_queue_bytes", Bytes, "Bytes that wait in an input's \
                                                                  queue.");
        QUEUE_WAIT = histogram("opusflow_stage_queue_wait_seconds", Seconds, "Time a packet lay in an input's queue; sampled.");
        QUEUE_BLOCKED = histogram("opusflow_stage_queue_blocked_seconds", Seconds, "Time a producer stood before a full queue.");
        PIPELINE_FRAMES = counter("opusflow_pipeline_frames_total", Count, "Frames by what the ledger says became of them.");
        PIPELINE_STREAMS = gauge("opusflow_pipeline_open_streams", Count, "Streams that run.");
        WORKER_BATCH = histogram("opusflow_inference_batch_items", Count, "Items a model ran at once.");
        WORKER_FILL = histogram("opusflow_inference_batch_fill_ratio", Count, "Items of a batch over the most that it may have, from 0 to 1.");
        WORKER_QUEUE = histogram("opusflow_inference_queue_seconds", Seconds, "Time an item waited for its batch.");
        WORKER_RUN = histogram("opusflow_inference_run_seconds", Seconds, "Time a model took for a batch.");
        WORKER_DEPTH = gauge("opusflow_inference_queue_items", Count, "Items that wait for a model.");
        WORKER_LIMIT = gauge("opusflow_inference_batch_limit_items", Count, "The largest batch allowed now; lower after out of memory.");
        WORKER_MOST = gauge("opusflow_inference_batch_most_items", Count, "The largest batch while memory is enough, as it is set or was measured.");
        WORKER_MEMORY = gauge("opusflow_inference_memory_bytes", Bytes, "Memory that a worker's model holds between batches; nearly 0 while it is put down.");
        WORKER_PEAK = gauge("opusflow_inference_peak_memory_bytes", Bytes, "Most memory that a worker held during its last batch.");
        WORKER_ITEMS = counter("opusflow_inference_items_total", Count, "Items a model answered.");
        WORKER_FAILED = counter("opusflow_inference_failed_items_total", Count, "Items a model refused or failed on.");
        WORKER_CANCELLED = counter("opusflow_inference_cancelled_items_total", Count, "Items skipped because nobody waited any more.");
        WORKER_EXPIRED = counter("opusflow_inference_expired_items_total", Count, "Items skipped because their deadline had passed.");
        WORKER_OOM = counter("opusflow_inference_out_of_memory_total", Count, "Batches halved because memory ran out.");
        WORKER_PUT_DOWN = counter("opusflow_inference_put_down_total", Count, "Times an idle model was put down to give its memory back.");
        WORKER_PANICS = counter("opusflow_inference_panics_total", Count, "Panics caught inside a model.");
        CACHE_HITS = counter("opusflow_cache_hits_total", Count, "Results found, by tier.");
        CACHE_MISSES = counter("opusflow_cache_misses_total", Count, "Results found in no tier.");
        CACHE_ERRORS = counter("opusflow_cache_errors_total", Count, "Failed calls to Redis and \
                                                                      values that did not decode.");
        CACHE_SKIPPED = counter("opusflow_cache_skipped_writes_total", Count, "Results not written to Redis: it was away or too slow.");
        CACHE_REDIS = histogram("opusflow_cache_redis_seconds", Seconds, "Time of a call to Redis.");
        CACHE_COMPUTE = histogram("opusflow_cache_compute_seconds", Seconds, "Time to compute what no tier had.");
        CACHE_BYTES = gauge("opusflow_cache_memory_bytes", Bytes, "Bytes held by the memory tier.");
        CACHE_ENTRIES = gauge("opusflow_cache_memory_entries", Count, "Results held by the memory tier.");
        CACHE_REDIS_UP = gauge("opusflow_cache_redis_up", Count, "1 while Redis answers, else 0.");
        SINK_RECORDS = counter("opusflow_stages_sink_records_total", Count, "Records a sink delivered, by kind.");
        SINK_FAILED = counter("opusflow_stages_sink_failed_records_total", Count, "Records a sink could not deliver, by kind.");
        SINK_DELIVERY = histogram("opusflow_stages_sink_delivery_seconds", Seconds, "Time from handing a batch over to its outcome.");
        SINK_LATENCY = histogram("opusflow_stages_end_to_end_seconds", Seconds, "Time from a frame's arrival to its record's delivery.");
        BROKER_IN_FLIGHT = gauge("opusflow_broker_in_flight_bytes", Bytes, "Bytes given to the producer and not yet acknowledged.");
        BROKER_UP = gauge("opusflow_broker_up", Count, "1 while a broker answers the producer, \
                                                        else 0.");
        MEDIA_FRAMES = counter("opusflow_media_frames_total", Count, "Frames decoded, by view.");
        MEDIA_BYTES = counter("opusflow_media_frames_bytes_total", Bytes, "Bytes of decoded frames, by view.");
        MEDIA_CORRUPT = counter("opusflow_media_corrupt_frames_total", Count, "Frames the decoder marked as damaged or gave up.");
        MEDIA_GAPS = counter("opusflow_media_gaps_total", Count, "Discontinuities of streams.");
        MEDIA_RECONNECTS = counter("opusflow_media_reconnects_total", Count, "Attempts to reach a lost live source again.");
        MEDIA_CONNECTED = gauge("opusflow_media_connected_streams", Count, "Streams that deliver frames.");
        PROCESS_RSS = gauge("opusflow_telemetry_process_resident_bytes", Bytes, "Resident memory of the process.");
        PROCESS_PEAK = gauge("opusflow_telemetry_process_peak_resident_bytes", Bytes, "Highest resident memory of the process so far.");
        PROCESS_CPU = gauge("opusflow_telemetry_process_cpu_cores", Count, "Cores the process kept busy since the last sample.");
        PROCESS_THREADS = gauge("opusflow_telemetry_process_threads", Count, "Threads of the process.");
        PROCESS_FILES = gauge("opusflow_telemetry_process_open_files", Count, "File descriptors of the process.");
        HOST_MEMORY = gauge("opusflow_telemetry_host_memory_bytes", Bytes, "Memory of the host.");
        HOST_AVAILABLE = gauge("opusflow_telemetry_host_available_memory_bytes", Bytes, "Memory of the host that can still be had.");
        HOST_LOAD = gauge("opusflow_telemetry_host_load_one_minute", Count, "Load average of the host over one minute.");
        HOST_DISK = gauge("opusflow_telemetry_host_disk_free_bytes", Bytes, "Free space on the disk that takes the output.");
        GPU_BUSY = gauge("opusflow_telemetry_gpu_busy_ratio", Count, "Share of time a GPU worked, \
                                                                      from 0 to 1.");
        GPU_MEMORY = gauge("opusflow_telemetry_gpu_memory_bytes", Bytes, "Memory in use on a GPU.");
        GPU_MEMORY_TOTAL = gauge("opusflow_telemetry_gpu_total_memory_bytes", Bytes, "Memory of a GPU.");
        GPU_POWER = gauge("opusflow_telemetry_gpu_power_watts", Count, "Power a GPU draws.");
        GPU_CELSIUS = gauge("opusflow_telemetry_gpu_temperature_celsius", Count, "Temperature of a GPU.");
    }
}

pub use names::ALL;

impl Metric {
    /// The cached handle of this counter under `labels`. Made after [`super::Exporter::install`],
    /// else it counts into nothing.
    pub fn counter(&self, labels: &[(&'static str, &str)]) -> Counter {
        debug_assert_eq!(self.kind, MetricKind::Counter, "{}", self.name);
        ::metrics::counter!(self.name, owned(labels))
    }

    /// The cached handle of this gauge under `labels`.
    pub fn gauge(&self, labels: &[(&'static str, &str)]) -> Gauge {
        debug_assert_eq!(self.kind, MetricKind::Gauge, "{}", self.name);
        ::metrics::gauge!(self.name, owned(labels))
    }

    /// The cached handle of this histogram under `labels`.
    pub fn histogram(&self, labels: &[(&'static str, &str)]) -> Histogram {
        debug_assert_eq!(self.kind, MetricKind::Histogram, "{}", self.name);
        ::metrics::histogram!(self.name, owned(labels))
    }
}

fn owned(labels: &[(&'static str, &str)]) -> Vec<Label> {
    labels
        .iter()
        .map(|(key, value)| Label::new(*key, value.to_string()))
        .collect()
}

/// Tells the recorder every metric's unit and text.
pub fn describe() {
    for metric in ALL {
        match metric.kind {
            MetricKind::Counter => {
                ::metrics::describe_counter!(metric.name, metric.unit, metric.text)
            }
            MetricKind::Gauge => ::metrics::describe_gauge!(metric.name, metric.unit, metric.text),
            MetricKind::Histogram => {
                ::metrics::describe_histogram!(metric.name, metric.unit, metric.text)
            }
        }
    }
}

const SLOTS: usize = 16;

/// Handles by the value of one label whose values are few words of ours (a reason, a record kind).
/// Looking one up takes no lock and allocates nothing; past 16 values the rest share the word
/// `other`, so that a metric's size stays bounded.
pub struct Family<T> {
    slots: [OnceLock<(&'static str, T)>; SLOTS],
    make: Box<dyn Fn(&'static str) -> T + Send + Sync>,
}

impl<T> Family<T> {
    /// A family whose handles `make` builds from the label's value on first use.
    pub fn new(make: impl Fn(&'static str) -> T + Send + Sync + 'static) -> Self {
        Self {
            slots: [const { OnceLock::new() }; SLOTS],
            make: Box::new(make),
        }
    }

    /// The handle for `value`.
    pub fn with(&self, value: &'static str) -> &T {
        let last = SLOTS - 1;
        for slot in &self.slots[..last] {
            let (name, handle) = slot.get_or_init(|| (value, (self.make)(value)));
            if same(name, value) {
                return handle;
            }
        }
        &self.slots[last]
            .get_or_init(|| ("other", (self.make)("other")))
            .1
    }

    /// The handles made so far with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &T)> {
        self.slots
            .iter()
            .filter_map(|slot| slot.get().map(|(name, handle)| (*name, handle)))
    }
}

fn same(a: &'static str, b: &'static str) -> bool {
    (std::ptr::eq(a.as_ptr(), b.as_ptr()) && a.len() == b.len()) || a == b
}

impl<T> fmt::Debug for Family<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.iter().map(|(name, _)| name))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const ROOMS: [&str; 8] = [
        "stage",
        "stages",
        "pipeline",
        "inference",
        "cache",
        "broker",
        "media",
        "telemetry",
    ];

    #[test]
    fn names_are_unique_and_open_with_a_room() {
        let mut seen = HashSet::new();
        for metric in ALL {
            assert!(seen.insert(metric.name), "{} twice", metric.name);
            let rest = metric
                .name
                .strip_prefix("opusflow_")
                .expect("the crate's prefix");
            assert!(
                ROOMS
                    .iter()
                    .any(|room| rest.starts_with(&format!("{room}_"))),
                "{} names no room",
                metric.name
            );
            assert!(metric.text.ends_with('.'), "{}", metric.name);
        }
    }

    #[test]
    fn names_end_with_their_unit() {
        for metric in ALL {
            assert_eq!(
                metric.name.ends_with("_total"),
                metric.kind == MetricKind::Counter,
                "{}",
                metric.name
            );
            let bare = metric.name.trim_end_matches("_total");
            match metric.unit {
                Unit::Seconds => assert!(bare.ends_with("_seconds"), "{}", metric.name),
                Unit::Bytes => assert!(bare.ends_with("_bytes"), "{}", metric.name),
                _ => assert!(
                    !bare.ends_with("_seconds") && !bare.ends_with("_bytes"),
                    "{}",
                    metric.name
                ),
            }
        }
    }

    #[test]
    fn family_finds_equal_words_and_stays_bounded() {
        let family = Family::new(|word| word.to_owned());
        assert_eq!(family.with("late"), "late");
        let same_word: &'static str = Box::leak("late".to_owned().into_boxed_str());
        assert!(std::ptr::eq(family.with("late"), family.with(same_word)));
        for n in 0..100 {
            family.with(Box::leak(format!("word{n}").into_boxed_str()));
        }
        assert_eq!(family.iter().count(), SLOTS);
        assert_eq!(family.with("unheard of"), "other");
    }
}
