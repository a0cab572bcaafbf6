//! The grammar of a pipeline file: the shapes of everything but a stage's `with`, and the JSON
//! Schema of the whole.

use serde_json::{Value as Json, json};

use crate::config::schema;
use crate::config::shape::Default::{Absent, Is, Required};
use crate::config::shape::{Default, Field, Type};
use crate::stage::{Role, StageKind};

const fn field(name: &'static str, ty: Type, default: Default, doc: &'static str) -> Field {
    Field {
        name,
        ty,
        default,
        doc,
    }
}

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
         each; delete it to measure anew.",
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
        "Resident memory of the process above which idle models are put down, until they are \
         asked again, and freed memory is given back.",
    ),
    field(
        "idle",
        Type::Duration,
        Is("1m"),
        "How long a model must have had nothing to do before it is put down.",
    ),
];

/// The words that `profile` takes; what each sets is in `check/sections/profiles.rs`.
pub const PROFILES: &[&str] = &["throughput", "latency", "memory", "small_models"];

/// The keys of an entry of `models`.
pub const MODEL: &[Field] = &[
    field(
        "path",
        Type::Text,
        Required,
        "The model's folder inside `model_dir`, or a path that begins with `/`, `./` or `../`, or \
         a hub id, `owner/name` or `owner/name@revision`.",
    ),
    field(
        "pull",
        Type::Choice(&["never", "missing"]),
        Is("never"),
        "With a hub id: whether `run` fetches a `missing` model first, as `opusflow models pull` \
         does, or `never` fetches anything.",
    ),
    field(
        "small",
        Type::Text,
        Absent,
        "A smaller model of the same kind, found as `path` is, which `size: small` takes in its \
         place.",
    ),
    field(
        "size",
        Type::Choice(&["full", "small"]),
        Is("full"),
        "`small` takes the model of the key `small`; a profile's `small` leaves entries without \
         that key as they are.",
    ),
    field(
        "profile",
        Type::Choice(PROFILES),
        Absent,
        "Sets defaults of this entry in place of the pipeline's `profile`.",
    ),
    field(
        "precision",
        Type::Choice(&["auto", "f32", "bf16", "f16"]),
        Is("auto"),
        "The number format it computes in; `auto` is bf16 where the device is fast at it, else \
         f32.",
    ),
    field(
        "tf32",
        Type::Bool,
        Is("false"),
        "Whether f32 may be rounded to TF32 inside products on GPUs, which have it from compute \
         capability 8 on. One switch for the process: on only where every model allows it.",
    ),
    field(
        "attention",
        Type::Choice(&["sdpa", "sliced"]),
        Is("sdpa"),
        "`sdpa` is the fused kernel; `sliced` computes one head and some of its queries at a \
         time, which takes longer and less memory.",
    ),
    field(
        "vae",
        Type::Object(VAE),
        Is("{}"),
        "How the decoder of a diffusion model saves memory.",
    ),
    field(
        "offload",
        Type::Choice(&["none", "model"]),
        Is("none"),
        "`model` keeps the parts of a diffusion model in the CPU's memory until each is used, on \
         GPUs.",
    ),
    field(
        "device",
        Type::List(&Type::Text),
        Is("auto"),
        "`auto`, `cpu` or `cuda:N`; or a list, with a worker on each: work goes where the queue \
         is shortest.",
    ),
    field(
        "memory_limit",
        Type::Bytes,
        Absent,
        "What a worker's weights and running batch may hold on its device. A batch that needs \
         more is halved, as when memory runs out.",
    ),
    field(
        "batch",
        Type::Object(BATCH),
        Is("{}"),
        "How items of all streams are put together.",
    ),
    field(
        "queue",
        Type::Int(1, 65_536),
        Is("64"),
        "Items that may wait for a worker of the model; then stages wait.",
    ),
];

/// The key `vae` of a model.
pub const VAE: &[Field] = &[
    field(
        "slicing",
        Type::Bool,
        Is("false"),
        "Decodes one picture of a batch at a time.",
    ),
    field(
        "tiling",
        Type::Bool,
        Is("false"),
        "Decodes a picture in overlapping tiles, which large pictures need.",
    ),
];

/// The key `batch` of a model.
pub const BATCH: &[Field] = &[
    field(
        "max_size",
        Type::IntOrAuto(1, 4096),
        Is("16"),
        "Most items in a batch. `auto` measures it when the model is warm: doubled until that \
         gains less than a twentieth, memory ends, or half of `queue` is reached; remembered in \
         `model_cache`.",
    ),
    field(
        "max_wait",
        Type::Duration,
        Is("10ms"),
        "How long a batch that is not full waits for more.",
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

/// The keys of a stage.
pub const STAGE: &[Field] = &[
    field(
        "id",
        Type::Text,
        Required,
        "The stage's id: letters, digits, `-` and `_`.",
    ),
    field(
        "kind",
        Type::Text,
        Required,
        "What it does; `opusflow stages` lists the kinds.",
    ),
    field(
        "inputs",
        Type::Unchecked,
        Absent,
        "Where it reads from: `STAGE`, `SOURCE.VIEW`, or a mapping of `from` and `queue`.",
    ),
    field(
        "join",
        Type::Object(JOIN),
        Absent,
        "Joins the inputs by time; without it packets are taken as they come.",
    ),
    field(
        "concurrency",
        Type::Int(1, 1024),
        Absent,
        "Packets of one stream that it works on at a time: 8 for transforms without memory, else \
         1.",
    ),
    field(
        "timeout",
        Type::Duration,
        Is("0s"),
        "How long one packet may take; `0s` for as long as it needs.",
    ),
    field(
        "retry",
        Type::Object(RETRY),
        Is("{}"),
        "How often a packet is tried again after an error that may pass.",
    ),
    field(
        "dead_letter",
        Type::Text,
        Absent,
        "The sink that takes packets that failed: the first required sink when left out, also for \
         itself; `none` to drop and count them.",
    ),
    field(
        "required",
        Type::Bool,
        Absent,
        "For sinks: whether a frame counts as delivered only when this sink has it; true but for \
         `redis` and `console`.",
    ),
    field(
        "with",
        Type::Unchecked,
        Absent,
        "The parameters of its kind.",
    ),
];

/// One of the inputs, written as a mapping.
pub const INPUT: &[Field] = &[
    field("from", Type::Text, Required, "`STAGE`, or `SOURCE.VIEW`."),
    field(
        "queue",
        Type::Object(QUEUE),
        Is("{}"),
        "The queue between the two stages.",
    ),
];

const QUEUE: &[Field] = &[
    field(
        "frames",
        Type::Int(1, 1_000_000),
        Is("64"),
        "Most packets inside. On the driving side of a join of segments, where a collected side \
         looks ahead: as many as may wait for it.",
    ),
    field(
        "bytes",
        Type::Bytes,
        Is("64MiB"),
        "Most bytes inside; a single packet above it passes alone.",
    ),
    field(
        "when_full",
        Type::Choice(&["block", "drop_oldest", "drop_newest"]),
        Absent,
        "What happens when a packet does not fit: `block` for files, `drop_oldest` for live \
         streams.",
    ),
    field(
        "max_age",
        Type::Duration,
        Absent,
        "A packet that arrived longer ago is dropped when it is read: `5s` for the frames of live \
         streams, else never; `0s` for never.",
    ),
];

const JOIN: &[Field] = &[
    field(
        "per",
        Type::Stage,
        Required,
        "The input that drives: one result for each of its packets.",
    ),
    field(
        "collect",
        Type::List(&Type::Stage),
        Absent,
        "The inputs whose packets inside the driving packet's span are collected; all others when \
         left out.",
    ),
    field(
        "wait",
        Type::Duration,
        Absent,
        "How long a span waits for inputs that lag: `3s` for live streams, for files until they \
         have caught up.",
    ),
    field(
        "late",
        Type::Choice(&["partial", "drop"]),
        Is("partial"),
        "What happens to a span whose wait is over: it goes on with what is there, or it is \
         dropped and counted.",
    ),
];

const RETRY: &[Field] = &[
    field("attempts", Type::Int(1, 100), Is("3"), "Tries in all."),
    field(
        "backoff",
        Type::Duration,
        Is("100ms"),
        "The pause before the second try; it doubles with each further one.",
    ),
];

/// The JSON Schema (draft 2020-12) of pipeline files with these stage kinds.
pub fn json_schema(kinds: &[&'static StageKind]) -> Json {
    let mut top = schema::object(TOP);
    let mut definitions = schema::definitions();
    definitions.insert(
        "input".to_owned(),
        json!({ "anyOf": [{ "$ref": "#/$defs/text" }, schema::object(INPUT)] }),
    );
    definitions.insert("stage".to_owned(), stage_schema(kinds));
    for kind in kinds {
        definitions.insert(definition(kind), schema::object(kind.params));
    }
    top["properties"]["stages"] = json!({ "type": "array", "minItems": 1, "items": { "$ref": "#/$defs/stage" }, "description": doc(TOP, "stages") });
    let mut whole = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "opusflow pipeline",
    });
    if let (Json::Object(whole), Json::Object(top)) = (&mut whole, top) {
        whole.extend(top);
        whole.insert("$defs".to_owned(), Json::Object(definitions));
    }
    whole
}

fn stage_schema(kinds: &[&'static StageKind]) -> Json {
    let mut stage = schema::object(STAGE);
    let twice = |kind: &StageKind| kinds.iter().filter(|other| other.name == kind.name).count() > 1;
    let first = |at: &usize| {
        !kinds[..*at]
            .iter()
            .any(|other| other.name == kinds[*at].name)
    };
    let words: Vec<Json> = (0..kinds.len())
        .filter(first)
        .map(|at| json!({ "const": kinds[at].name, "description": kinds[at].doc }))
        .collect();
    stage["properties"]["kind"] = json!({ "oneOf": words, "description": doc(STAGE, "kind") });
    let inputs = json!({ "$ref": "#/$defs/input" });
    stage["properties"]["inputs"] = json!({ "anyOf": [{ "type": "array", "items": inputs }, inputs], "description": doc(STAGE, "inputs") });
    stage["allOf"] = kinds
        .iter()
        .map(|kind| {
            let needs_with = kind.params.iter().any(|field| matches!(field.default, Required));
            let mut required = Vec::from_iter(needs_with.then_some("with"));
            let mut then =
                json!({ "properties": { "with": { "$ref": format!("#/$defs/{}", definition(kind)), "description": kind.doc } } });
            if kind.role() == Role::Source {
                then["properties"]["inputs"] = json!(false);
            } else {
                required.push("inputs");
            }
            then["required"] = json!(required);
            let mut when = json!({ "properties": { "kind": { "const": kind.name } }, "required": ["kind"] });
            if twice(kind) {
                // A source and a sink share the name: what reads something is the sink.
                let reads = json!({ "required": ["inputs"] });
                if kind.role() == Role::Source { when["not"] = reads } else { when["required"] = json!(["kind", "inputs"]) }
            }
            json!({ "if": when, "then": then })
        })
        .collect();
    stage
}

fn definition(kind: &StageKind) -> String {
    format!("{}_{}", kind.role().as_str(), kind.name)
}

fn doc(fields: &'static [Field], name: &str) -> &'static str {
    fields
        .iter()
        .find(|field| field.name == name)
        .map_or("", |field| field.doc)
}
