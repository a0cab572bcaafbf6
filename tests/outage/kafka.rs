//! Kafka is away at the start, is killed in the middle of a run and comes back: a film loses
//! nothing, a live stream drops by policy, and both say so.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::rig::{Consumer, PATIENCE, Run, Service, folder, free_ports, variable};

const KAFKA: &str = r#"
version: 1
name: NAME
shutdown: SHUTDOWN
progress: 1s
kafka:
  brokers: "${BROKERS}"
  namespace: NAME
  encoding: json
  in_flight: 64KiB
  create_topics: { policy: create, partitions: 2 }
threads: { torch: 1 }
"#;

/// A film's frames and shots to Kafka and, to compare, to files.
const FILM: &str = r#"
model_dir: "${OPUSFLOW_MODELS}"
models: { cuts: { path: transnetv2 } }
stages:
  - id: films
    kind: file
    with: { paths: "${OPUSFLOW_TEST_FILM}", views: { cuts: { fps: 5, size: 48x27 }, frames: { fps: 10, size: 64x36 } } }
  - { id: shots, kind: shots, inputs: [{ from: films.cuts, queue: { frames: 256 } }], with: { model: cuts, max_length: 2s } }
  - { id: topics, kind: kafka, inputs: [films.frames, shots] }
  - { id: files, kind: file, inputs: [films.frames, shots], with: { path: "${OUT}", formats: [jsonl] } }
"#;

/// A live stream's frames to Kafka; the file sink only takes the events, of frames it would tell
/// nothing new.
const LIVE: &str = r#"
stages:
  - id: drawn
    kind: test
    with: { rate: 50, picture: 64x36, live: true, views: { frames: {} } }
  - id: topics
    kind: kafka
    inputs: [{ from: drawn.frames, queue: { frames: 32, when_full: drop_oldest, max_age: 5s } }]
  - { id: few, kind: sample, inputs: [drawn.frames], with: { every: 1000000 } }
  - { id: files, kind: file, inputs: [few], with: { path: "${OUT}", formats: [jsonl] } }
"#;

fn start(name: &str, stages: &str, shutdown: &str, brokers: &str) -> Run {
    let text = format!("{KAFKA}{stages}")
        .replace("NAME", name)
        .replace("SHUTDOWN", shutdown);
    Run::start(&text, &[("BROKERS", brokers)])
}

/// How long Kafka is away: `OPUSFLOW_OUTAGE_SECONDS`, 20 where it is not set.
fn outage() -> Duration {
    Duration::from_secs(
        std::env::var("OPUSFLOW_OUTAGE_SECONDS")
            .map_or(20, |seconds| seconds.parse().expect("a number of seconds")),
    )
}

fn ids<'a>(records: impl IntoIterator<Item = &'a Value>) -> BTreeSet<String> {
    records
        .into_iter()
        .map(|record| record["meta"]["id"].as_str().unwrap().to_owned())
        .collect()
}

fn frames(run: &Run) -> usize {
    run.stream()
        .map_or(0, |stream| run.records(&stream, "frames").len())
}

/// One broker, four runs: a film and a live stream that start before it, live through its outage
/// and end after it; a live stream that is stopped during the outage; and what all this left on the
/// topics.
#[test]
fn kafka_killed_midway_costs_a_film_nothing_and_a_live_stream_what_is_counted() {
    for name in ["OPUSFLOW_MODELS", "OPUSFLOW_TEST_FILM"] {
        variable(name);
    }
    let (dir, port) = (folder(), free_ports(2));
    let kafka = Service::new("kafka", dir.path(), &["--port", &port.to_string()]);
    let brokers = format!("127.0.0.1:{port}");

    // Nobody is there: they wait.
    let (mut film, mut live) = (
        start("film", FILM, "30s", &brokers),
        start("live", LIVE, "30s", &brokers),
    );
    let mut stopped = start("stopped", LIVE, "3s", &brokers);
    sleep(Duration::from_secs(3));
    assert!(
        film.runs() && live.runs() && stopped.runs() && frames(&film) == 0,
        "{}",
        film.stderr()
    );
    kafka.start();
    let arrived = |topic: &str| Consumer::all(&brokers, &[topic]).len();
    live.until("the live stream delivers", PATIENCE, |_| {
        (arrived("live.frames.v1") > 0).then_some(())
    });
    stopped.until("the other live stream delivers", PATIENCE, |_| {
        (arrived("stopped.frames.v1") > 0).then_some(())
    });
    film.until("the film is under way", PATIENCE, |run| {
        (frames(run) >= 100).then_some(())
    });

    kafka.kill();
    let (began, ended_at) = (Instant::now(), outage());
    // What is in flight is bounded, so the film stands still.
    let mut seen = frames(&film);
    let standstill = film.until("the film stands still", PATIENCE, |run| {
        sleep(Duration::from_secs(2));
        let now = frames(run);
        (std::mem::replace(&mut seen, now) == now).then_some(now)
    });
    assert!(
        standstill < 1700,
        "{standstill} frames of 1800: the film had ended before Kafka went"
    );
    stopped.term();
    let cut = stopped.ended(PATIENCE);
    assert_eq!(
        cut.code,
        Some(4),
        "the deadline passed:\n{}\n{}",
        cut.stdout,
        cut.stderr
    );
    assert!(
        cut.stdout.contains(" + 0 in flight")
            && !cut.stdout.contains("LEAKED")
            && cut.stdout.contains("shutdown"),
        "{}",
        cut.stdout
    );
    sleep(ended_at.saturating_sub(began.elapsed()));
    assert!(film.runs() && live.runs());
    assert_eq!(frames(&film), standstill);

    kafka.start();
    let whole = film.ended(PATIENCE);
    assert_eq!(whole.code, Some(0), "{}\n{}", whole.stdout, whole.stderr);
    let here = arrived("live.frames.v1");
    live.until("the live stream delivers again", PATIENCE, |_| {
        (arrived("live.frames.v1") > here).then_some(())
    });
    live.stopped(PATIENCE);
    check_film(&film, &brokers);
    check_live(&live, &brokers);
}

/// Nothing was lost: the ledger says so, and everything that the file sink has is on the topics.
fn check_film(film: &Run, brokers: &str) {
    let stream = film.stream().unwrap();
    let ledger = film.ledger(&stream);
    for (view, terms) in &ledger {
        assert_eq!(
            (terms.delivered, terms.lost(), terms.dead_lettered),
            (terms.ingested, 0, 0),
            "{view}: {terms:?}"
        );
    }
    for kind in ["frames", "segments"] {
        let (written, topic) = (film.records(&stream, kind), format!("film.{kind}.v1"));
        let read = Consumer::all(brokers, &[&topic]);
        let (written_ids, read_ids) = (
            ids(&written),
            ids(read.iter().map(|record| &record["value"])),
        );
        assert!(
            written_ids.len() == written.len() && written.len() > 50,
            "{} {kind}",
            written.len()
        );
        assert_eq!(read_ids, written_ids, "{kind}");
        println!(
            "{kind}: {} written, {} read, {} of them twice",
            written.len(),
            read.len(),
            read.len() - read_ids.len()
        );
    }
    assert_eq!(
        ledger["frames"].ingested as usize,
        film.records(&stream, "frames").len()
    );
}

/// The frames of the outage were dropped by the queue's policy, those before and after it arrived;
/// every frame that counts as delivered is on the topic.
fn check_live(live: &Run, brokers: &str) {
    let terms = &live.ledger("drawn-0")["frames"];
    assert!(terms.lost() > 100 && terms.dead_lettered == 0, "{terms:?}");
    assert!(
        terms
            .dropped
            .keys()
            .all(|reason| reason == "queue_full" || reason == "stale"),
        "{terms:?}"
    );
    let read = Consumer::all(brokers, &["live.frames.v1"]);
    let distinct = ids(read.iter().map(|record| &record["value"])).len() as u64;
    assert_eq!(distinct, terms.delivered, "{terms:?}");
    let indices: BTreeSet<i64> = read
        .iter()
        .map(|record| record["value"]["index"].as_i64().unwrap())
        .collect();
    assert!(
        indices
            .iter()
            .zip(indices.iter().skip(1))
            .any(|(before, after)| after - before > 100),
        "no hole where the outage was: {indices:?}"
    );
    println!("live: {terms:?}");
}
