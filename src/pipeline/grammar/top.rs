//! The keys of a pipeline file but those inside `models` and `stages`.

use super::field::field;
use super::models::{MODEL, PROFILES};
use crate::config::shape::Default::{Absent, Is, Required};
use crate::config::shape::{Field, Type};

/// The keys of a pipeline file.
pub const TOP: &[Field] = &[
    field(
        "version",
        Type::Int(1, 1),
        Required,
        "The version of this grammar: 1.",
    ),
    field(
        "name",
        Type::Text,
        Required,
        "The pipeline's name, part of every record: letters, digits, `.`, `-` and `_`.",
    ),
    field(
        "kafka",
        Type::Object(KAFKA),
        Absent,
        "Where `kafka` stages deliver to.",
    ),
    field(
        "cache",
        Type::Object(CACHE),
        Is("{}"),
        "Results that models gave, kept by content.",
    ),
    field(
        "objects",
        Type::Object(OBJECTS),
        Is("{}"),
        "Where pictures lie.",
    ),
    field(
        "threads",
        Type::Object(THREADS),
        Is("{}"),
        "How many threads each part takes; 0 leaves it to the machine's cores.",
    ),
    field(
        "shutdown",
        Type::Duration,
        Is("30s"),
        "How long a shutdown may take; what is left then is dropped and counted.",
    ),
    field(
        "progress",
        Type::Duration,
        Is("10s"),
        "How often each stream emits a `progress` event.",
    ),
    field(
        "memory",
        Type::Object(MEMORY),
        Is("{}"),
        "What happens when the process holds much memory.",
    ),
    field(
        "profile",
        Type::Choice(PROFILES),
        Absent,
        "Sets defaults of every entry of `models`, which any key of an entry overrides.",
    ),
    field(
        "model_cache",
        Type::Text,
        Is("./out/model_cache"),
        "The folder where measured batch sizes are kept from run to run, one small JSON file \
         each; delete it to measure again.",
    ),
    field(
        "model_dir",
        Type::Text,
        Is("./models"),
        "The folder of model folders. Like every relative path, it starts at the current \
         directory.",
    ),
    field(
        "models",
        Type::Map(&Type::Object(MODEL)),
        Is("{}"),
        "Models by name, one worker each, shared by every stage that names it.",
    ),
    field(
        "telemetry",
        Type::Object(TELEMETRY),
        Is("{}"),
        "Metrics and logs.",
    ),
    field(
        "stages",
        Type::Unchecked,
        Required,
        "What is done, from sources to sinks.",
    ),
];

/// The key `kafka`.
pub const KAFKA: &[Field] = &[
    field(
        "brokers",
        Type::Text,
        Required,
        "Bootstrap addresses, HOST:PORT with commas between, or `embedded` for a broker inside \
         the process.",
    ),
    field(
        "namespace",
        Type::Text,
        Is("opusflow"),
        "The first part of every topic's name: `<namespace>.<record>.v1`.",
    ),
    field(
        "encoding",
        Type::Choice(&["avro_registry", "avro", "json"]),
        Is("avro"),
        "How record values are written: in Confluent's wire format with a registry, as Avro \
         single objects, or as JSON.",
    ),
    field(
        "registry",
        Type::Object(REGISTRY),
        Absent,
        "The schema registry, for `encoding: avro_registry`.",
    ),
    field(
        "create_topics",
        Type::Object(TOPICS),
        Is("{}"),
        "What happens to topics before the first record.",
    ),
    field(
        "address_file",
        Type::Text,
        Is("./out/broker.address"),
        "With `brokers: embedded`: the file that its address is written to.",
    ),
    field(
        "in_flight",
        Type::Bytes,
        Is("32MiB"),
        "Bytes that may be with the producer unconfirmed; then sinks wait.",
    ),
    field(
        "properties",
        Type::Map(&Type::Text),
        Is("{}"),
        "librdkafka's own settings, handed over as they are.",
    ),
    field(
        "secrets",
        Type::Map(&Type::Secret),
        Is("{}"),
        "Like `properties`, never printed.",
    ),
];

const REGISTRY: &[Field] = &[
    field("url", Type::Text, Required, "The registry's URL."),
    field(
        "user",
        Type::Text,
        Absent,
        "The user's name, if it asks for one.",
    ),
    field("password", Type::Secret, Absent, "The user's password."),
];

const TOPICS: &[Field] = &[
    field(
        "policy",
        Type::Choice(&["verify", "create", "never"]),
        Is("verify"),
        "`verify` fails when a topic is missing, `create` makes it, `never` does not look.",
    ),
    field(
        "partitions",
        Type::Int(1, 10_000),
        Is("1"),
        "Partitions of created topics.",
    ),
    field(
        "replication",
        Type::Int(1, 100),
        Is("1"),
        "Replication factor of created topics.",
    ),
];

const CACHE: &[Field] = &[
    field(
        "memory",
        Type::Bytes,
        Is("256MiB"),
        "Most bytes kept in memory; `0B` keeps none.",
    ),
    field(
        "redis",
        Type::Text,
        Is("\"\""),
        "The URL of a Redis server that keeps results across runs; empty for none.",
    ),
    field(
        "ttl",
        Type::Duration,
        Is("1h"),
        "How long a result is kept.",
    ),
    field(
        "compress_over",
        Type::Bytes,
        Is("4KiB"),
        "Results longer than this are kept compressed.",
    ),
];

const OBJECTS: &[Field] = &[
    field(
        "store",
        Type::Text,
        Is("file:./out/objects"),
        "Where pictures are written: `file:FOLDER`.",
    ),
    field(
        "inline_max",
        Type::Bytes,
        Is("128KiB"),
        "Pictures up to this size also travel inside their record.",
    ),
    field(
        "ttl",
        Type::Duration,
        Absent,
        "How long the store keeps a picture; for ever when left out.",
    ),
];

const THREADS: &[Field] = &[
    field(
        "tokio",
        Type::Int(0, 1024),
        Is("0"),
        "Threads that move packets.",
    ),
    field(
        "torch",
        Type::Int(0, 1024),
        Is("0"),
        "Threads inside one operation of a model on the CPU.",
    ),
    field(
        "decode",
        Type::Int(0, 1024),
        Is("0"),
        "Threads of one stream's decoder.",
    ),
    field(
        "spin",
        Type::Bool,
        Is("false"),
        "Whether torch's threads keep their cores busy for milliseconds while they wait for one \
         another: a little faster where nothing else wants the cores, several times slower where \
         something does.",
    ),
];

const MEMORY: &[Field] = &[
    field(
        "threshold",
        Type::Bytes,
        Absent,
        "Resident memory of the process above which idle models are unloaded, until they are \
         asked again, and freed memory is given back.",
    ),
    field(
        "idle",
        Type::Duration,
        Is("1m"),
        "How long a model must have had nothing to do before it is unloaded.",
    ),
];

const TELEMETRY: &[Field] = &[
    field(
        "metrics",
        Type::Text,
        Is("\"\""),
        "Address of the Prometheus endpoint, such as `127.0.0.1:9100`; empty for none.",
    ),
    field(
        "log",
        Type::Choice(&["error", "warn", "info", "debug", "trace"]),
        Is("info"),
        "The least urgent lines that are logged.",
    ),
];
