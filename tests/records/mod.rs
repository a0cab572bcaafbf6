//! Records on their way out: what the sinks wrote is read back by clients and decoders that nobody
//! here wrote, and is the same everywhere.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its own functions too"
)]

mod cached;
mod demo;
mod embedded;
mod files;
mod poison;
mod topics;
mod vectors;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use serde_json::Value;

use crate::support::pipeline::Demo;
use crate::support::records::{self, Records};
use crate::support::{Place, Run, env, film, python, unique};

const READ_BACK: &str = "tests/records/read_back.py";

/// A run of the demo's stages into a broker, into files and, with the registry, into Redis.
pub(crate) struct Written {
    place: Place,
    pub(crate) namespace: String,
    run: Run,
    stream: String,
    files: Records,
}

impl Written {
    /// With Apache Kafka and this encoding.
    fn with(encoding: &str, inline_max: &str, sinks: &str) -> Self {
        let (place, namespace) = (Place::new(), unique("e2e"));
        let top = format!(
            r#"kafka:
  brokers: "{}"
  namespace: {namespace}
  encoding: {encoding}
  registry: {{ url: "{}" }}
  create_topics: {{ policy: create, partitions: 3 }}
cache: {{ memory: 64MiB, redis: "{}", ttl: 10m }}
objects: {{ store: "file:./objects", inline_max: {inline_max} }}"#,
            env("KAFKA_BROKERS"),
            env("REGISTRY_URL"),
            env("REDIS_URL")
        );
        let sinks = format!("  - {{ id: topics, kind: kafka, inputs: ALL }}\n{sinks}");
        let pipeline = place.write(
            "pipeline.yaml",
            Demo {
                top: &top,
                film: film::short(),
                sinks: &sinks,
            }
            .text(),
        );
        let run = place.run(&pipeline, &[]).ended(0);
        let (stream, files) = records::of_files(&place.path("out"));
        Self {
            place,
            namespace,
            run,
            stream,
            files,
        }
    }

    fn topic(&self, kind: &str) -> String {
        format!("{}.{kind}.v1", self.namespace)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.place.path("out").join(&self.stream).join(name)
    }

    /// The records of a kind, in order of time.
    pub(crate) fn records(&self, kind: &str) -> Vec<&Value> {
        let mut records: Vec<&Value> = self.files[kind].values().collect();
        records.sort_by_key(|record| {
            (
                record["meta"]["start"].as_u64(),
                record["meta"]["end"].as_u64(),
            )
        });
        records
    }
}

/// The run that most tests look at: Confluent's wire format with the registry, pictures inside
/// their records, and Redis.
pub(crate) static REGISTRY: LazyLock<Written> = LazyLock::new(|| {
    Written::with(
        "avro_registry",
        "1MiB",
        &format!(
            "  - {{ id: latest, kind: redis, inputs: ALL, with: {{ prefix: {} }} }}\n",
            prefix()
        ),
    )
});

/// The prefix of the run's keys in Redis.
fn prefix() -> &'static str {
    static PREFIX: LazyLock<String> = LazyLock::new(|| unique("e2e"));
    &PREFIX
}

/// The kinds of record that a run gives.
const KINDS: [&str; 6] = [
    "captions",
    "embeddings",
    "events",
    "frames",
    "pictures",
    "segments",
];

/// A message as a foreign client read it.
struct Message {
    topic: String,
    key: String,
    timestamp: i64,
    headers: BTreeMap<String, String>,
    value: Value,
    /// The fingerprint of the schema that the client decoded it by.
    fingerprint: Option<String>,
}

impl Message {
    fn of(json: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Self {
            topic: text(&json["topic"]),
            key: text(&json["key"]),
            timestamp: json["timestamp"].as_i64().unwrap(),
            headers: json["headers"]
                .as_object()
                .unwrap()
                .iter()
                .map(|(name, value)| (name.clone(), text(value)))
                .collect(),
            value: json["value"].clone(),
            fingerprint: json["fingerprint"].as_str().map(str::to_owned),
        }
    }
}

/// Every message of the topics under `namespace`, by topic; topics without messages too.
fn read_topics(encoding: &str, brokers: &str, namespace: &str) -> BTreeMap<String, Vec<Message>> {
    let registry = env("REGISTRY_URL");
    let mut topics: BTreeMap<String, Vec<Message>> = BTreeMap::new();
    for json in python(
        READ_BACK,
        ["topics", encoding, brokers, namespace, &registry],
    ) {
        if let Some(topic) = json["partition_of"].as_str() {
            topics.entry(topic.to_owned()).or_default();
        } else {
            let message = Message::of(&json);
            topics.get_mut(&message.topic).unwrap().push(message);
        }
    }
    topics
}

/// Holds the messages of every topic to the files' records: each once, equal in every field, in its
/// envelope.
fn hold(written: &Written, topics: &BTreeMap<String, Vec<Message>>, content_type: &str) {
    let delivered = written.run.delivered();
    let ended = written.files["events"]
        .values()
        .find(|event| event["kind"] == "ended")
        .unwrap();
    for kind in KINDS {
        let topic = written.topic(kind);
        let messages = &topics[&topic];
        messages
            .iter()
            .for_each(|message| envelope(written, message, content_type));
        let read = records::by_id(messages.iter().map(|message| &message.value));
        assert_eq!(read.len(), messages.len(), "{topic}: an id came twice");
        records::same(&read, &written.files[kind], &topic);
        assert_eq!(
            delivered[&topic],
            read.len() as u64,
            "{topic}: delivered, as the summary says"
        );
        assert_eq!(
            delivered[&format!("./out/{kind}")],
            read.len() as u64,
            "files of {kind}"
        );
        if kind != "events" {
            assert_eq!(
                ended["ended"]["records"][&topic],
                read.len(),
                "{topic}: delivered, as the ended event says"
            );
        }
        assert!(
            !topics.contains_key(&format!("{topic}.dlq")),
            "{topic}.dlq: dead letters go to the files, so nobody needs it"
        );
    }
    let summary: BTreeMap<_, _> = written.run.ledger().into_iter().collect();
    let views = ended["ended"]["ledger"].as_object().unwrap();
    assert_eq!(
        views.keys().collect::<Vec<_>>(),
        summary.keys().collect::<Vec<_>>()
    );
    for (view, told) in views {
        let number = |term: &str| told[term].as_u64().unwrap();
        let dropped: u64 = told["dropped"]
            .as_object()
            .unwrap()
            .values()
            .map(|count| count.as_u64().unwrap())
            .sum();
        assert_eq!(
            (number("ingested"), number("in_flight"), number("leaked")),
            (summary[view].ingested, 0, 0),
            "{view}"
        );
        assert_eq!(
            number("ingested"),
            number("delivered") + number("absorbed") + dropped + number("dead_lettered"),
            "{view}"
        );
        assert_eq!(number("delivered"), summary[view].delivered, "{view}");
    }
}

/// What surrounds a record says what the record says.
fn envelope(written: &Written, message: &Message, content_type: &str) {
    let (meta, header) = (&message.value["meta"], |name: &str| {
        message.headers[name].as_str()
    });
    let text = |field: &str| meta[field].as_str().unwrap();
    assert_eq!(
        (message.key.as_str(), text("stream")),
        (written.stream.as_str(), written.stream.as_str())
    );
    let millis = |field: &str| meta[field].as_i64().unwrap().div_euclid(1000);
    // A film's event time runs ahead of the clock when it is read faster than it plays; brokers
    // refuse such timestamps.
    let held_back =
        millis("emit_time") <= message.timestamp && message.timestamp < millis("event_time");
    assert!(
        message.timestamp == millis("event_time") || held_back,
        "{} of {meta}",
        message.timestamp
    );
    assert_eq!(header("content-type"), content_type);
    assert_eq!(
        (header("ce_specversion"), header("ce_id")),
        ("1.0", text("id"))
    );
    assert_eq!(
        (header("opusflow_stage"), header("opusflow_pipeline")),
        (text("stage"), "e2e")
    );
    assert_eq!(
        header("ce_source"),
        format!("/pipelines/e2e/streams/{}", written.stream)
    );
    let kind = message
        .topic
        .trim_start_matches(&format!("{}.", written.namespace))
        .trim_end_matches("s.v1");
    assert_eq!(
        header("ce_type").to_lowercase(),
        format!("dev.opusflow.v1.{kind}")
    );
    let time: jiff::Timestamp = header("ce_time").parse().unwrap();
    assert_eq!(time.as_microsecond(), meta["event_time"].as_i64().unwrap());
    if let Some(fingerprint) = &message.fingerprint {
        assert_eq!(header("schema_fingerprint"), fingerprint);
    }
    let trace: Vec<&str> = header("traceparent").split('-').collect();
    let hexadecimal = |word: &str, length: usize| {
        word.len() == length
            && word
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    assert!(
        trace.len() == 4 && hexadecimal(trace[1], 32) && hexadecimal(trace[2], 16),
        "{trace:?}"
    );
    assert_eq!(
        (trace[0], trace[2], trace[3]),
        ("00", &text("id")[..16], "01")
    );
}
