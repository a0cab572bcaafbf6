//! Apache Kafka: Python with Confluent's deserializer and the registry, Python with fastavro alone,
//! kcat, and Java.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{KINDS, Message, REGISTRY, Written, hold, read_topics};
use crate::support::{env, json_lines, output, records, root};

#[test]
fn registry_deserializer_reads_what_the_files_hold() {
    let written = &*REGISTRY;
    let topics = read_topics("avro_registry", &env("KAFKA_BROKERS"), &written.namespace);
    hold(written, &topics, "application/avro; encoding=confluent");
    for kind in KINDS {
        let traces: BTreeSet<&str> = topics[&written.topic(kind)]
            .iter()
            .map(|message| &message.headers["traceparent"][3..35])
            .collect();
        assert_eq!(traces.len(), 1, "one trace for the film's one epoch");
    }
    assert!(
        topics[&written.topic("captions")].len() >= 4,
        "a caption for every segment"
    );
    assert_eq!(
        topics[&written.topic("captions")].len(),
        topics[&written.topic("segments")].len()
    );
}

#[test]
fn vectors_and_pictures_travel_whole() {
    let written = &*REGISTRY;
    for record in written.records("embeddings") {
        let vector = STANDARD.decode(record["vector"].as_str().unwrap()).unwrap();
        assert_eq!(
            (record["dtype"].as_str(), record["dim"].as_u64()),
            (Some("f32"), Some(512))
        );
        let numbers: Vec<f32> = vector
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
            .collect();
        assert_eq!(numbers.len(), 512);
        assert!(
            numbers.iter().all(|number| number.is_finite())
                && numbers.iter().any(|number| *number > 0.1)
        );
        let scores: Vec<f64> = record["labels"]
            .as_array()
            .unwrap()
            .iter()
            .map(|label| label["score"].as_f64().unwrap())
            .collect();
        assert!(
            scores.len() == 5
                && scores.is_sorted_by(|a, b| a >= b)
                && scores.iter().sum::<f64>() <= 1.0001,
            "{scores:?}"
        );
    }
    for record in written.records("pictures") {
        let data = STANDARD.decode(record["data"].as_str().unwrap()).unwrap();
        let stored = std::fs::read(
            record["uri"]
                .as_str()
                .unwrap()
                .strip_prefix("file://")
                .unwrap(),
        )
        .unwrap();
        assert_eq!(
            data, stored,
            "the record and the object store hold the same bytes"
        );
        let digest: String = Sha256::digest(&data)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(
            (record["sha256"].as_str(), record["bytes"].as_u64()),
            (Some(&*digest), Some(data.len() as u64))
        );
        let picture = image::load_from_memory_with_format(&data, image::ImageFormat::Jpeg).unwrap();
        assert_eq!((picture.width(), picture.height()), (480, 270));
        assert_eq!(
            (record["width"].as_u64(), record["height"].as_u64()),
            (Some(480), Some(270))
        );
    }
    assert_eq!(
        written.records("pictures").len(),
        written.records("segments").len(),
        "a keyframe for every segment"
    );
}

#[test]
fn java_reads_what_the_files_hold() {
    let written = &*REGISTRY;
    let count: usize = written.files.values().map(BTreeMap::len).sum();
    let mut java = Command::new("java");
    java.args([
        "-XX:TieredStopAtLevel=1",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
        "-cp",
        &env("OPUSFLOW_JAVA_CLASSPATH"),
    ]);
    java.arg(root().join("ops/services/ReadAvro.java")).args([
        &env("KAFKA_BROKERS"),
        &env("REGISTRY_URL"),
        &count.to_string(),
    ]);
    java.args(KINDS.map(|kind| written.topic(kind)));
    let mut read: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for mut line in json_lines(&output(java)) {
        latin_bytes(&mut line["value"]);
        super::envelope(
            written,
            &Message::of(&line),
            "application/avro; encoding=confluent",
        );
        read.entry(line["topic"].as_str().unwrap().to_owned())
            .or_default()
            .push(line["value"].take());
    }
    for kind in KINDS {
        let topic = written.topic(kind);
        assert_eq!(read[&topic].len(), written.files[kind].len(), "{topic}");
        records::same(&records::by_id(&read[&topic]), &written.files[kind], &topic);
    }
}

/// Java's Avro prints bytes as the characters of these codes.
fn latin_bytes(record: &mut Value) {
    for field in ["vector", "data"] {
        if let Some(text) = record.get(field).and_then(Value::as_str) {
            let bytes: Vec<u8> = text
                .chars()
                .map(|c| u8::try_from(u32::from(c)).unwrap())
                .collect();
            record[field] = STANDARD.encode(bytes).into();
        }
    }
}

#[test]
fn single_objects_are_read_without_a_registry() {
    let written = Written::with("avro", "1KiB", "");
    let topics = read_topics("avro", &env("KAFKA_BROKERS"), &written.namespace);
    hold(
        &written,
        &topics,
        "application/avro; encoding=single-object",
    );
    for picture in written.records("pictures") {
        assert!(
            picture["data"].is_null(),
            "above the limit a picture travels by reference"
        );
        let stored = std::fs::read(
            picture["uri"]
                .as_str()
                .unwrap()
                .strip_prefix("file://")
                .unwrap(),
        )
        .unwrap();
        assert_eq!(stored.len() as u64, picture["bytes"].as_u64().unwrap());
    }
}

#[test]
fn kcat_reads_keys_headers_and_json() {
    let written = Written::with("json", "128KiB", "");
    let mut topics: BTreeMap<String, Vec<Message>> = BTreeMap::new();
    for kind in KINDS {
        let topic = written.topic(kind);
        topics.insert(topic.clone(), kcat(&env("KAFKA_BROKERS"), &topic));
    }
    hold(&written, &topics, "application/json");
}

/// Every message of a topic of JSON records, read by kcat.
pub(super) fn kcat(brokers: &str, topic: &str) -> Vec<Message> {
    kcat_lines(brokers, topic, "%t\\t%k\\t%T\\t%h\\t%s\\n")
        .iter()
        .map(|line| parse(line))
        .collect()
}

/// Every message of a topic as kcat prints it.
pub(super) fn kcat_lines(brokers: &str, topic: &str, format: &str) -> Vec<String> {
    let mut kcat = Command::new("kcat");
    kcat.args([
        "-b",
        brokers,
        "-C",
        "-q",
        "-e",
        "-o",
        "beginning",
        "-t",
        topic,
        "-f",
        format,
    ]);
    output(kcat).lines().map(str::to_owned).collect()
}

fn parse(line: &str) -> Message {
    let [topic, key, timestamp, headers, value] = line.splitn(5, '\t').collect::<Vec<_>>()[..]
    else {
        panic!("{line}")
    };
    let header = |pair: &str| {
        pair.split_once('=')
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .unwrap()
    };
    Message {
        topic: topic.to_owned(),
        key: key.to_owned(),
        timestamp: timestamp.parse().unwrap(),
        headers: headers.split(',').map(header).collect(),
        value: serde_json::from_str(value).unwrap(),
        fingerprint: None,
    }
}
