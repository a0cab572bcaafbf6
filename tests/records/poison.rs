//! What cannot be delivered or worked on goes to the dead letters with its error, counted, and its
//! neighbours go on.

use serde_json::Value;

use super::topics::kcat;
use crate::support::{Place, env, film, records, unique};

/// Shots and keyframes of a film of bars, snow and a ball into Kafka, whose messages may have
/// `message_max` bytes.
fn pipeline(namespace: &str, message_max: u32, keyframes: &str) -> String {
    format!(
        r#"version: 1
name: poison
kafka:
  brokers: "{brokers}"
  namespace: {namespace}
  encoding: json
  create_topics: {{ policy: create }}
  properties: {{ message.max.bytes: "{message_max}" }}
objects: {{ store: "file:./objects", inline_max: 1MiB }}
threads: {{ tokio: 1, torch: 2, decode: 1 }}
model_dir: "${{OPUSFLOW_MODELS}}"
models: {{ cuts: {{ path: transnetv2 }} }}
stages:
  - id: films
    kind: file
    with:
      paths: "{film}"
      views: {{ cuts: {{ fps: native, size: 48x27 }}, stills: {{ fps: 5, size: 480x270 }} }}
  - id: shots
    kind: shots
    inputs: [{{ from: films.cuts, queue: {{ frames: 512, bytes: 16MiB }} }}]
    with: {{ model: cuts, max_length: 2s }}
  - id: keyframes
    kind: keyframe
    inputs: [shots, {{ from: films.stills, queue: {{ frames: 256, bytes: 128MiB }} }}]
    join: {{ per: shots, collect: [films.stills] }}
{keyframes}
  - {{ id: topics, kind: kafka, inputs: [shots, keyframes], dead_letter: files }}
  - {{ id: files, kind: file, inputs: [shots, keyframes], with: {{ path: ./out, formats: [jsonl] }} }}
"#,
        brokers = env("KAFKA_BROKERS"),
        film = film::patterns_film().display(),
    )
}

/// A message that Kafka would refuse is written to the dead letters in the output folder; what
/// comes before and after it arrives.
#[test]
fn message_too_large_is_dead_lettered_and_its_neighbours_arrive() {
    let (place, namespace) = (Place::new(), unique("e2e"));
    let file = place.write("pipeline.yaml", pipeline(&namespace, 50_000, ""));
    let run = place.run(&file, &[]).ended(1);
    let (_, files) = records::of_files(&place.path("out"));
    let letters = &files["pictures.dlq"];
    let read = kcat(&env("KAFKA_BROKERS"), &format!("{namespace}.pictures.v1"));
    let arrived = records::by_id(read.iter().map(|message| &message.value));
    assert!(
        !letters.is_empty() && !arrived.is_empty(),
        "{} letters, {} arrived",
        letters.len(),
        arrived.len()
    );
    assert_eq!(
        letters.len() + arrived.len(),
        files["pictures"].len(),
        "each picture arrived or is a letter"
    );
    for letter in letters.values() {
        let error = letter["error"].as_str().unwrap();
        assert!(
            error.contains("MessageSizeTooLarge") && error.contains("message.max.bytes"),
            "{error}"
        );
        assert_eq!(
            (&letter["record"], &letter["failed_stage"]),
            (&Value::from("picture"), &Value::from("topics"))
        );
        assert_eq!(
            (&letter["error_kind"], &letter["attempts"]),
            (&Value::from("config"), &Value::from(1))
        );
        let lost = files["pictures"]
            .values()
            .find(|picture| picture["meta"]["start"] == letter["meta"]["start"])
            .unwrap();
        assert!(
            lost["bytes"].as_u64().unwrap() > 30_000
                && !arrived.contains_key(lost["meta"]["id"].as_str().unwrap())
        );
    }
    let last = |records: &std::collections::BTreeMap<String, Value>| {
        records
            .values()
            .filter_map(|record| record["meta"]["start"].as_u64())
            .max()
    };
    assert!(last(&arrived) > last(letters), "what came after it arrived");
    let segments = kcat(&env("KAFKA_BROKERS"), &format!("{namespace}.segments.v1"));
    assert_eq!(segments.len(), files["segments"].len());
    assert!(
        run.balance("stills").dead_lettered > 0,
        "{:?}",
        run.ledger()
    );
    assert_eq!(run.delivered()["./out/pictures.dlq"], letters.len() as u64);
}

/// A packet that a stage fails on goes to its dead letter topic.
#[test]
fn what_a_stage_fails_on_goes_to_the_dead_letter_topic() {
    let (place, namespace) = (Place::new(), unique("e2e"));
    let file = place.write(
        "pipeline.yaml",
        pipeline(
            &namespace,
            1_000_000,
            "    timeout: 1us\n    retry: { attempts: 2, backoff: 1ms }",
        ),
    );
    let run = place.run(&file, &[]).ended(1);
    let (_, files) = records::of_files(&place.path("out"));
    let letters = kcat(
        &env("KAFKA_BROKERS"),
        &format!("{namespace}.segments.v1.dlq"),
    );
    assert!(
        letters.len() >= 2 && !files.contains_key("pictures"),
        "{} letters: each picture took too long",
        letters.len()
    );
    for letter in &letters {
        assert_eq!(
            (&letter.value["failed_stage"], &letter.value["record"]),
            (&Value::from("keyframes"), &Value::from("segment"))
        );
        assert_eq!(letter.value["attempts"], 2);
        assert_eq!(letter.headers["ce_type"], "dev.opusflow.v1.DeadLetter");
    }
    let segments = kcat(&env("KAFKA_BROKERS"), &format!("{namespace}.segments.v1"));
    assert_eq!(
        segments.len(),
        files["segments"].len(),
        "the segments themselves arrive"
    );
    assert_eq!(
        run.delivered()[&format!("{namespace}.segments.v1.dlq")],
        letters.len() as u64
    );
    assert!(
        run.balance("stills").dead_lettered > 0,
        "{:?}",
        run.ledger()
    );
}
