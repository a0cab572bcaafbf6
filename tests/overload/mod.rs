//! Ten times more frames than the stages can take: memory stays under a fixed limit, queues under
//! their caps, and what is lost is counted.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its own functions too"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use opusflow::config::{Environment, SourceText};
use opusflow::pipeline::{Assembled, Connected, Overrides, Plan, Running, check};
use opusflow::stages::KINDS;
use opusflow::{media, stage};
use tokio_util::sync::CancellationToken;

use crate::outage::rig::{PATIENCE, Run, variable};

/// The film, decoded as fast as it goes at its own size, before an encoder of a few frames a
/// second.
const FILM: &str = r#"
version: 1
name: overload
threads: { tokio: 1, torch: 1, decode: 1 }
cache: { memory: 0B }
model_dir: "${OPUSFLOW_MODELS}"
models: { tags: { path: resnet-18, precision: f32, batch: { max_size: 4 } } }
stages:
  - id: films
    kind: file
    with: { paths: "${OPUSFLOW_TEST_FILM}", views: { frames: { size: 640x360 } } }
  - id: vectors
    kind: encode
    inputs: [{ from: films.frames, queue: { frames: 1000, bytes: 32MiB, when_full: drop_oldest, max_age: 2s } }]
    concurrency: 1
    with: { model: tags }
  - { id: files, kind: file, inputs: [vectors], with: { path: "${OUT}", formats: [jsonl] } }
"#;

/// Pictures as fast as they can be drawn, before an encoder; every queue of the way is bounded in
/// bytes.
const DRAWN: &str = r#"
version: 1
name: overload-live
threads: { torch: 1 }
cache: { memory: 0B }
model_dir: "${OPUSFLOW_MODELS}"
models: { tags: { path: resnet-18, batch: { max_size: 4 } } }
stages:
  - id: drawn
    kind: test
    with: { rate: 300, picture: 640x360, live: true, pattern: black, streams: 2, views: { frames: {} } }
  - { id: some, kind: sample, inputs: [{ from: drawn.frames, queue: { frames: 100, bytes: 3MiB } }] }
  - { id: vectors, kind: encode, inputs: [{ from: some, queue: { frames: 100, bytes: 5MiB } }], concurrency: 1, with: { model: tags } }
  - { id: gone, kind: discard, inputs: [{ from: vectors, queue: { frames: 10, bytes: 64KiB } }] }
"#;

/// Real decoding at ten times and more of what the encoder takes. 896 MiB: the binary with
/// libtorch, GStreamer and the model takes most of it, 32 MiB are queued.
#[test]
fn tenfold_overload_of_a_film_keeps_memory_bounded_and_counts_what_is_lost() {
    for name in ["OPUSFLOW_MODELS", "OPUSFLOW_TEST_FILM"] {
        variable(name);
    }
    let mut run = Run::start(FILM, &[]);
    let ended = run.ended(PATIENCE);
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.stdout, ended.stderr);
    let stream = run.stream().unwrap();
    let terms = &run.ledger(&stream)["frames"];
    println!("{terms:?}, {} MiB at most", ended.peak >> 20);
    assert!(terms.ingested > 5000 && terms.delivered > 10, "{terms:?}");
    assert!(
        terms.ingested >= 10 * terms.delivered,
        "not ten times too much: {terms:?}"
    );
    assert!(
        terms.dropped["queue_full"] > 0
            && terms
                .dropped
                .keys()
                .all(|reason| reason == "queue_full" || reason == "stale"),
        "{terms:?}"
    );
    assert_eq!(
        run.records(&stream, "embeddings").len() as u64,
        terms.delivered
    );
    assert!(ended.peak < 896 << 20, "{} MiB", ended.peak >> 20);
}

fn plan(text: &str) -> Plan {
    let environment: Environment =
        [("OPUSFLOW_MODELS".to_owned(), variable("OPUSFLOW_MODELS"))].into();
    check(
        &SourceText::new("overload.yaml", text),
        KINDS,
        &environment,
        &Overrides::default(),
    )
    .expect("a good pipeline")
}

/// Two live streams of 300 pictures a second: no edge ever holds more than its caps, streams share
/// the loss, and the ledger closes at a stop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_edge_passes_its_caps_under_a_live_overload() {
    media::init().unwrap();
    let plan = Arc::new(plan(DRAWN));
    let print: stage::Print = Arc::new(|_| Ok(()));
    let stop = CancellationToken::new();
    let connected = Connected::connect(&plan, &stop).await.unwrap();
    let assembled = Assembled::build(&plan, connected, print, &stop)
        .await
        .unwrap();
    let mut running = Running::start(Arc::clone(&plan), &assembled.deps).unwrap();
    let (began, mut looks, mut fullest) = (Instant::now(), 0, 0);
    while began.elapsed() < PATIENCE {
        let sessions = running.sessions();
        for queue in sessions.iter().flat_map(|session| &session.queues) {
            let (edge, caps, counts) = (&queue.edge, &queue.settings, &queue.counts);
            assert!(
                counts.peak_bytes <= caps.bytes && counts.frames <= caps.frames,
                "{edge}: {counts:?} of {caps:?}"
            );
            fullest = fullest.max(counts.peak_bytes);
            looks += 1;
        }
        let busy = |session: &opusflow::pipeline::SessionStatus| {
            session
                .ledger
                .values()
                .all(|terms| terms.ingested > 800 && terms.delivered > 5)
        };
        if sessions.len() == 2 && sessions.iter().all(busy) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    running.stop();
    let summary = running.wait().await.unwrap();
    assembled.close(Duration::from_secs(5)).await;
    assert!(
        !summary.forced && summary.errors.is_empty(),
        "{:?}",
        summary.errors
    );
    assert_eq!(summary.sessions.len(), 2);
    for session in &summary.sessions {
        let terms = &session.ledger["frames"];
        println!("{}: {terms:?}", session.stream);
        assert!(
            terms.balances() && (terms.in_flight, terms.leaked, terms.dead_lettered) == (0, 0, 0),
            "{terms:?}"
        );
        assert!(
            terms.ingested > 800 && terms.delivered > 5 && terms.dropped["queue_full"] > 0,
            "{terms:?}"
        );
    }
    // The looks saw queues that were full.
    assert!(
        looks > 20 && fullest > 4 << 20,
        "{looks} looks, {fullest} bytes"
    );
}
