//! Redis is killed in the middle of a run, under the cache and under a sink, and comes back.

use std::process::Command;

use super::rig::{PATIENCE, Run, Service, folder, free_ports, variable};

/// test -> encode, with the cache in Redis -> file and redis.
const PIPELINE: &str = r#"
version: 1
name: redis-outage
cache: { memory: 1MiB, redis: "${REDIS}", ttl: 10m }
threads: { torch: 1 }
model_dir: "${OPUSFLOW_MODELS}"
models: { tags: { path: resnet-18, batch: { max_size: 4 } } }
stages:
  - id: drawn
    kind: test
    with: { rate: 4, picture: 64x64, live: true, pattern: snow, views: { frames: {} } }
  - { id: vectors, kind: encode, inputs: [{ from: drawn.frames, queue: { max_age: 60s } }], with: { model: tags } }
  - { id: files, kind: file, inputs: [vectors], with: { path: "${OUT}", formats: [jsonl] } }
  - { id: latest, kind: redis, inputs: [vectors] }
"#;

fn keys(port: u16, pattern: &str) -> usize {
    let found = Command::new("redis-cli")
        .args(["-p", &port.to_string(), "--raw", "keys", pattern])
        .output()
        .expect("redis-cli is installed");
    String::from_utf8_lossy(&found.stdout)
        .lines()
        .filter(|line| !line.is_empty())
        .count()
}

/// The run goes on without it, nothing fails, and both the cache and the sink use it again when it
/// is back.
#[test]
fn redis_killed_midway_fails_nothing_and_is_used_again() {
    variable("OPUSFLOW_MODELS");
    let (dir, port) = (folder(), free_ports(1));
    let redis = Service::new("redis", dir.path(), &["--port", &port.to_string()]).started();
    let mut run = Run::start(PIPELINE, &[("REDIS", &format!("redis://127.0.0.1:{port}"))]);
    let vectors = |run: &Run| run.records("drawn-0", "embeddings").len();
    run.until("Redis is used", PATIENCE, |run| {
        (vectors(run) > 3 && keys(port, "*") > 3).then_some(())
    });
    let both = keys(port, "*");
    assert!(keys(port, "opusflow:latest:drawn-0") == 1 && both > 2);

    redis.kill();
    let then = vectors(&run);
    run.until("it goes on", PATIENCE, |run| {
        (vectors(run) >= then + 12).then_some(())
    });

    redis.start();
    // It came back empty.
    run.until("the sink writes again", PATIENCE, |_| {
        (keys(port, "opusflow:latest:drawn-0") == 1).then_some(())
    });
    run.until("the cache writes again", PATIENCE, |_| {
        (keys(port, "*") > 4).then_some(())
    });
    run.stopped(PATIENCE);
    let terms = &run.ledger("drawn-0")["frames"];
    assert_eq!(
        (terms.delivered, terms.lost(), terms.dead_lettered),
        (terms.ingested, 0, 0),
        "{terms:?}"
    );
    assert_eq!(vectors(&run) as u64, terms.ingested);
}
