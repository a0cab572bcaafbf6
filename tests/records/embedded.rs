//! The broker inside the process: while it lingers, kcat, Python and the script that the demo names
//! read it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use super::topics::kcat_lines;
use super::{KINDS, Message, Written, hold, read_topics};
use crate::support::live::From;
use crate::support::pipeline::Demo;
use crate::support::{Place, Run, env, film, output, records, root};

#[test]
fn embedded_broker_serves_readers_while_it_lingers() {
    let place = Place::new();
    let top = format!(
        r#"kafka: {{ brokers: embedded, namespace: media, encoding: avro, address_file: ./address }}
cache: {{ memory: 64MiB, redis: "{}", ttl: 10m }}
objects: {{ store: "file:./objects", inline_max: 128KiB }}"#,
        env("REDIS_URL")
    );
    let sinks = "  - { id: topics, kind: kafka, inputs: ALL }\n";
    let pipeline = place.write(
        "pipeline.yaml",
        Demo {
            top: &top,
            film: film::short(),
            sinks,
        }
        .text(),
    );
    let live = place.start(&pipeline, &["--linger", "60s"]);
    let said = live.line(From::Stdout, |line| line.contains("ops/read_captions.py"));
    live.line(From::Stdout, |line| line.starts_with("streams: "));
    let brokers = std::fs::read_to_string(place.path("address"))
        .unwrap()
        .trim()
        .to_owned();
    assert!(said.contains(&brokers), "{said}");

    let topics = read_topics("avro", &brokers, "media");
    let (stream, files) = records::of_files(&place.path("out"));
    kcat_sees_the_same_envelopes(&brokers, &topics);
    captions_are_read_by_the_script(&brokers, &files);

    live.signal("TERM");
    let run: Run = live.wait().ended(0);
    let written = Written {
        place,
        namespace: "media".to_owned(),
        run,
        stream,
        files,
    };
    hold(
        &written,
        &topics,
        "application/avro; encoding=single-object",
    );
    assert_eq!(
        topics.len(),
        KINDS.len(),
        "one for each kind, and none for dead letters, which go to the files"
    );
}

fn kcat_sees_the_same_envelopes(brokers: &str, topics: &BTreeMap<String, Vec<Message>>) {
    for (topic, messages) in topics {
        let envelope = |message: &Message| {
            let headers: BTreeSet<String> = message
                .headers
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            (message.key.clone(), message.timestamp.to_string(), headers)
        };
        let printed = kcat_lines(brokers, topic, "%k\\t%T\\t%h\\n");
        let seen = printed.iter().map(|line| {
            let [key, timestamp, headers] = line.split('\t').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            (
                key.to_owned(),
                timestamp.to_owned(),
                headers.split(',').map(str::to_owned).collect(),
            )
        });
        assert_eq!(
            seen.collect::<Vec<_>>(),
            messages.iter().map(envelope).collect::<Vec<_>>(),
            "{topic}"
        );
    }
}

/// The line that the demo shows to paste into a second terminal.
fn captions_are_read_by_the_script(brokers: &str, files: &records::Records) {
    let mut script = Command::new(env("OPUSFLOW_PYTHON"));
    let count = files["captions"].len().to_string();
    script.arg(root().join("ops/read_captions.py")).args([
        brokers,
        "--namespace",
        "media",
        "--count",
        &count,
    ]);
    let printed = output(script);
    assert_eq!(printed.lines().count(), files["captions"].len());
    for caption in files["captions"].values() {
        let text = caption["text"].as_str().unwrap();
        let text = text.lines().next().unwrap_or_default();
        assert!(printed.contains(text), "{text} is not in\n{printed}");
    }
    for line in printed.lines().filter(|line| line.contains("  films-")) {
        assert!(line.contains(" ms, lag ") && line.ends_with(']'), "{line}");
    }
}
