//! Every metric of the crate: name, kind, unit, labels and text in one table, so that a dashboard's
//! author reads one file. Names follow Prometheus' rules: `opusflow_<part>_<thing>_<unit>`, base
//! units, `_total` on what only grows; the process's own metrics have the names that all of
//! Prometheus' client libraries give them.

use ::metrics::Unit;

use super::metric::{Metric, MetricKind};

const NONE: &[&str] = &[];
const BUILD: &[&str] = &["version", "libtorch", "gstreamer", "rustc"];
const PIPELINE: &[&str] = &["pipeline"];
const OUTCOME: &[&str] = &["pipeline", "outcome"];
const STAGE: &[&str] = &["pipeline", "stage"];
const REASON: &[&str] = &["pipeline", "stage", "reason"];
const QUEUE: &[&str] = &["pipeline", "stage", "input"];
const RECORD: &[&str] = &["pipeline", "stage", "record"];
const VIEW: &[&str] = &["pipeline", "stage", "view"];
const MODEL: &[&str] = &["model", "device"];
const ERROR: &[&str] = &["error"];
const OP: &[&str] = &["op"];
const TIER: &[&str] = &["op", "tier"];
const GPU: &[&str] = &["gpu", "name"];

/// What the values of each label are.
pub const LABELS: &[(&str, &str)] = &[
    ("device", "where a model runs: `cpu`, `cuda:0`"),
    (
        "error",
        "kind of an error: `all_brokers_down`, `transport`, `resolve`, `authentication`, `tls`, `timeout`, `fatal`, `other`",
    ),
    ("gpu", "number of a GPU, from 0"),
    (
        "gstreamer",
        "version of GStreamer the binary was built with",
    ),
    ("input", "what a stage's input reads: `cams.cuts`"),
    ("libtorch", "version of libtorch the binary was built with"),
    ("model", "name of a model under `models`"),
    ("name", "a GPU's product name"),
    ("op", "what a cached result is of: `encode`, `caption`"),
    (
        "outcome",
        "what became of a frame: `delivered`, `absorbed`, `dropped`, `dead_lettered`; `leaked` is a bug",
    ),
    ("pipeline", "the pipeline's `name`"),
    (
        "reason",
        "why a packet was dropped: `queue_full`, `stale`, `late`, `gap`, `shutdown`, `failed`",
    ),
    ("record", "kind of a record: `segment`, `caption`"),
    ("rustc", "version of the compiler"),
    ("stage", "`id` of a stage"),
    ("tier", "where a result was found: `memory`, `redis`"),
    ("version", "version of opusflow"),
    ("view", "a source's view"),
];

const fn counter(
    name: &'static str,
    unit: Unit,
    labels: &'static [&'static str],
    text: &'static str,
) -> Metric {
    Metric {
        name,
        kind: MetricKind::Counter,
        unit,
        labels,
        text,
    }
}

const fn gauge(
    name: &'static str,
    unit: Unit,
    labels: &'static [&'static str],
    text: &'static str,
) -> Metric {
    Metric {
        name,
        kind: MetricKind::Gauge,
        unit,
        labels,
        text,
    }
}

const fn histogram(
    name: &'static str,
    unit: Unit,
    labels: &'static [&'static str],
    text: &'static str,
) -> Metric {
    Metric {
        name,
        kind: MetricKind::Histogram,
        unit,
        labels,
        text,
    }
}

macro_rules! table {
    ($($id:ident = $kind:ident($name:literal, $unit:ident, $labels:ident, $text:literal);)*) => {
        $(#[doc = $text] pub const $id: Metric = $kind($name, Unit::$unit, $labels, $text);)*
        /// Every metric there is.
        pub const ALL: &[Metric] = &[$($id),*];
    };
}

table! {
    BUILD_INFO = gauge("opusflow_build_info", Count, BUILD, "Always 1; its labels say what was built, with what.");

    STAGE_RECEIVED = counter("opusflow_stage_received_packets_total", Count, STAGE, "Packets a stage took from its queues.");
    STAGE_EMITTED = counter("opusflow_stage_emitted_packets_total", Count, STAGE, "Packets a stage emitted.");
    STAGE_DROPPED = counter("opusflow_stage_dropped_packets_total", Count, REASON, "Packets lost at a stage or its queues, by reason.");
    STAGE_FAILED = counter("opusflow_stage_failed_packets_total", Count, STAGE, "Packets a stage failed on: dead letters, or dropped without them.");
    STAGE_RETRIES = counter("opusflow_stage_retries_total", Count, STAGE, "Repeated attempts at a packet.");
    STAGE_TIMEOUTS = counter("opusflow_stage_timeouts_total", Count, STAGE, "Attempts at a packet that ran out of time.");
    STAGE_PANICS = counter("opusflow_stage_panics_total", Count, STAGE, "Panics caught while a stage processed a packet.");
    STAGE_PROCESSING = histogram("opusflow_stage_processing_seconds", Seconds, STAGE, "Time from taking a packet to having its results; one packet in 16 is timed.");
    QUEUE_PACKETS = gauge("opusflow_stage_queue_packets", Count, QUEUE, "Packets that wait in an input's queue.");
    QUEUE_BYTES = gauge("opusflow_stage_queue_bytes", Bytes, QUEUE, "Bytes that wait in an input's queue.");
    QUEUE_WAIT = histogram("opusflow_stage_queue_wait_seconds", Seconds, QUEUE, "Time a packet lay in an input's queue; sampled.");
    QUEUE_BLOCKED = histogram("opusflow_stage_queue_blocked_seconds", Seconds, QUEUE, "Time a producer stood before a full queue.");

    PIPELINE_INGESTED = counter("opusflow_pipeline_ingested_frames_total", Count, PIPELINE, "Frames that sources gave to a pipeline.");
    PIPELINE_SETTLED = counter("opusflow_pipeline_settled_frames_total", Count, OUTCOME, "Frames by what the ledger says became of them.");
    PIPELINE_STREAMS = gauge("opusflow_pipeline_open_streams", Count, PIPELINE, "Streams that run.");

    WORKER_BATCH = histogram("opusflow_inference_batch_items", Count, MODEL, "Items a model ran at once.");
    WORKER_FILL = histogram("opusflow_inference_batch_fill_ratio", Count, MODEL, "Items of a batch over the most that it may have, from 0 to 1.");
    WORKER_QUEUE_WAIT = histogram("opusflow_inference_queue_wait_seconds", Seconds, MODEL, "Time an item waited for its batch.");
    WORKER_RUN = histogram("opusflow_inference_batch_run_seconds", Seconds, MODEL, "Time a model took for a batch.");
    WORKER_QUEUE = gauge("opusflow_inference_queue_items", Count, MODEL, "Items that wait for a model.");
    WORKER_LIMIT = gauge("opusflow_inference_batch_limit_items", Count, MODEL, "The largest batch allowed now; lower after out of memory.");
    WORKER_MAX = gauge("opusflow_inference_batch_max_items", Count, MODEL, "The largest batch while memory is enough, as it is set or was measured.");
    WORKER_MEMORY = gauge("opusflow_inference_memory_bytes", Bytes, MODEL, "Memory that a worker's model holds between batches; nearly 0 while it is unloaded.");
    WORKER_PEAK = gauge("opusflow_inference_batch_peak_memory_bytes", Bytes, MODEL, "Most memory that a worker held during its last batch.");
    WORKER_ITEMS = counter("opusflow_inference_items_total", Count, MODEL, "Items a model answered.");
    WORKER_FAILED = counter("opusflow_inference_failed_items_total", Count, MODEL, "Items a model refused or failed on.");
    WORKER_CANCELLED = counter("opusflow_inference_cancelled_items_total", Count, MODEL, "Items skipped because nobody waited any more.");
    WORKER_EXPIRED = counter("opusflow_inference_expired_items_total", Count, MODEL, "Items skipped because their deadline had passed.");
    WORKER_OOM = counter("opusflow_inference_out_of_memory_total", Count, MODEL, "Batches halved because memory ran out.");
    WORKER_UNLOADS = counter("opusflow_inference_unloads_total", Count, MODEL, "Times an idle model was unloaded to give its memory back.");
    WORKER_PANICS = counter("opusflow_inference_panics_total", Count, MODEL, "Panics caught inside a model.");

    CACHE_HITS = counter("opusflow_cache_hits_total", Count, TIER, "Results found, by tier.");
    CACHE_MISSES = counter("opusflow_cache_misses_total", Count, OP, "Results found in no tier.");
    CACHE_ERRORS = counter("opusflow_cache_errors_total", Count, OP, "Failed calls to Redis and values that did not decode.");
    CACHE_SKIPPED = counter("opusflow_cache_skipped_writes_total", Count, OP, "Results not written to Redis: it was away or too slow.");
    CACHE_REDIS = histogram("opusflow_cache_redis_seconds", Seconds, OP, "Time of a call to Redis.");
    CACHE_COMPUTE = histogram("opusflow_cache_compute_seconds", Seconds, OP, "Time to compute what no tier had.");
    CACHE_BYTES = gauge("opusflow_cache_memory_bytes", Bytes, NONE, "Bytes held by the memory tier.");
    CACHE_ENTRIES = gauge("opusflow_cache_memory_entries", Count, NONE, "Results held by the memory tier.");
    CACHE_REDIS_UP = gauge("opusflow_cache_redis_up", Count, NONE, "1 while Redis answers, else 0.");

    SINK_DELIVERED = counter("opusflow_sink_delivered_records_total", Count, RECORD, "Records a sink delivered, by kind.");
    SINK_FAILED = counter("opusflow_sink_failed_records_total", Count, RECORD, "Records a sink could not deliver, by kind.");
    SINK_DELIVERY = histogram("opusflow_sink_delivery_seconds", Seconds, STAGE, "Time from handing a batch over to its outcome.");
    SINK_LATENCY = histogram("opusflow_sink_end_to_end_seconds", Seconds, RECORD, "Time from a frame's arrival to its record's delivery.");

    BROKER_IN_FLIGHT = gauge("opusflow_broker_in_flight_bytes", Bytes, PIPELINE, "Bytes given to the producer and not yet acknowledged.");
    BROKER_UP = gauge("opusflow_broker_up", Count, PIPELINE, "1 while a broker answers the producer, else 0.");
    BROKER_RESTARTS = counter("opusflow_broker_producer_restarts_total", Count, PIPELINE, "Producers replaced after a fatal error; nothing is lost by it.");
    BROKER_ERRORS = counter("opusflow_broker_errors_total", Count, ERROR, "Errors that Kafka's clients reported, by kind.");

    MEDIA_FRAMES = counter("opusflow_media_frames_total", Count, VIEW, "Frames decoded, and stretches of sound, by view.");
    MEDIA_BYTES = counter("opusflow_media_bytes_total", Bytes, VIEW, "Bytes of decoded frames and sound, by view.");
    MEDIA_CORRUPT = counter("opusflow_media_corrupt_frames_total", Count, STAGE, "Frames the decoder marked as damaged or gave up, or whose pts or duration is damaged.");
    MEDIA_GAPS = counter("opusflow_media_gaps_total", Count, STAGE, "Discontinuities of streams.");
    MEDIA_RECONNECTS = counter("opusflow_media_reconnects_total", Count, STAGE, "Attempts to reach a lost live source again.");
    MEDIA_CONNECTED = gauge("opusflow_media_connected_streams", Count, STAGE, "Live streams that deliver frames.");

    PROCESS_CPU = counter("process_cpu_seconds_total", Seconds, NONE, "User and system CPU time spent, in whole seconds.");
    PROCESS_RESIDENT = gauge("process_resident_memory_bytes", Bytes, NONE, "Resident memory of the process.");
    PROCESS_VIRTUAL = gauge("process_virtual_memory_bytes", Bytes, NONE, "Virtual memory of the process.");
    PROCESS_FDS = gauge("process_open_fds", Count, NONE, "File descriptors the process has open.");
    PROCESS_MAX_FDS = gauge("process_max_fds", Count, NONE, "File descriptors the process may have open.");
    PROCESS_START = gauge("process_start_time_seconds", Seconds, NONE, "When the process started, in seconds since 1970.");
    PROCESS_THREADS = gauge("process_threads", Count, NONE, "Threads of the process.");
    PROCESS_PEAK = gauge("opusflow_process_peak_resident_memory_bytes", Bytes, NONE, "Highest resident memory of the process so far.");

    HOST_MEMORY = gauge("opusflow_host_memory_bytes", Bytes, NONE, "Memory of the host.");
    HOST_AVAILABLE = gauge("opusflow_host_memory_available_bytes", Bytes, NONE, "Memory of the host that can still be had.");
    HOST_LOAD = gauge("opusflow_host_load1", Count, NONE, "Load average of the host over one minute.");
    HOST_DISK = gauge("opusflow_host_disk_free_bytes", Bytes, NONE, "Free space on the disk that takes the output.");

    GPU_BUSY = gauge("opusflow_gpu_utilization_ratio", Count, GPU, "Share of time a GPU worked, from 0 to 1.");
    GPU_MEMORY = gauge("opusflow_gpu_memory_bytes", Bytes, GPU, "Memory of a GPU.");
    GPU_MEMORY_USED = gauge("opusflow_gpu_memory_used_bytes", Bytes, GPU, "Memory in use on a GPU.");
    GPU_POWER = gauge("opusflow_gpu_power_watts", Count, GPU, "Power a GPU draws.");
    GPU_CELSIUS = gauge("opusflow_gpu_temperature_celsius", Count, GPU, "Temperature of a GPU.");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeSet, HashSet};

    /// What a name may be about.
    const PARTS: [&str; 11] = [
        "build",
        "stage",
        "sink",
        "pipeline",
        "inference",
        "cache",
        "broker",
        "media",
        "process",
        "host",
        "gpu",
    ];

    /// Those that Prometheus' client libraries share.
    const STANDARD: [&str; 7] = [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
        "process_threads",
    ];

    #[test]
    fn names_are_unique_and_open_with_their_part() {
        let mut seen = HashSet::new();
        for metric in ALL {
            assert!(seen.insert(metric.name), "{} twice", metric.name);
            if STANDARD.contains(&metric.name) {
                continue;
            }
            let rest = metric.name.strip_prefix("opusflow_");
            let part = rest.and_then(|rest| rest.split_once('_'));
            let part = part.map_or("none", |(part, _)| part);
            assert!(PARTS.contains(&part), "{} is about no part", metric.name);
        }
        for name in STANDARD {
            assert!(seen.contains(name), "{name} is missing");
        }
    }

    /// What `promtool check metrics` holds, and that a unit is said where there is one.
    #[test]
    fn names_follow_prometheus_rules() {
        const TYPES: [&str; 4] = ["counter", "gauge", "histogram", "summary"];
        const SCALED: [&str; 11] = [
            "milliseconds",
            "microseconds",
            "ms",
            "minutes",
            "hours",
            "kilobytes",
            "megabytes",
            "bits",
            "percent",
            "fahrenheit",
            "kelvin",
        ];
        for metric in ALL {
            let name = metric.name;
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(name.chars().all(plain) && !name.contains("__"), "{name}");
            let total = name.ends_with("_total");
            assert_eq!(total, metric.kind == MetricKind::Counter, "{name}");
            for word in name.split('_') {
                assert!(!TYPES.contains(&word), "{name} repeats its type");
                assert!(!SCALED.contains(&word), "{name} is in no base unit");
            }
            // The first two words are the namespace and the room, which may share a label's name.
            for word in name.split('_').skip(2) {
                let repeats = metric.labels.contains(&word);
                assert!(!repeats || !total, "{name} repeats a label");
            }
            for reserved in ["_count", "_sum", "_bucket", "_info"] {
                let info = metric.name == BUILD_INFO.name && reserved == "_info";
                assert!(info || !name.ends_with(reserved), "{name}");
            }
            let bare = name.trim_end_matches("_total");
            let said = [(Unit::Seconds, "_seconds"), (Unit::Bytes, "_bytes")];
            for (unit, end) in said {
                assert_eq!(metric.unit == unit, bare.ends_with(end), "{name}");
            }
            assert!(metric.text.ends_with('.'), "{name}: a text is a sentence");
        }
    }

    #[test]
    fn every_label_is_explained_and_used() {
        let used: BTreeSet<_> = ALL.iter().flat_map(|metric| metric.labels).collect();
        let explained: BTreeSet<_> = LABELS.iter().map(|(label, _)| label).collect();
        assert_eq!(used, explained);
        assert!(LABELS.is_sorted(), "labels are looked up by eye");
        for label in used {
            assert!(
                !["le", "quantile", "job", "instance"].contains(label),
                "{label}"
            );
        }
    }
}
