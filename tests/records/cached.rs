//! The cache over whole runs: with Redis a second run computes no vector and no caption again,
//! another prompt only the captions, and Redis killed under way costs nothing but its answers.

use std::path::Path;

use crate::support::live::From;
use crate::support::pipeline::Demo;
use crate::support::records::{self, Records, timeless};
use crate::support::service::Service;
use crate::support::{Place, Run, film};

fn top(redis: &Service) -> String {
    format!(
        "cache: {{ memory: 64MiB, redis: \"redis://{}\", ttl: 10m }}\nobjects: {{ \
         store: \"file:./objects\" }}",
        redis.address()
    )
}

fn run(place: &Place, pipeline: &Path, more: &[&str]) -> (Run, Records) {
    let run = place.run(pipeline, more).ended(0);
    let (_, files) = records::of_files(&place.path("out"));
    (run, files)
}

#[test]
fn second_run_computes_nothing_again_and_another_prompt_only_captions() {
    let (place, redis) = (Place::new(), Service::start("redis"));
    let text = Demo {
        top: &top(&redis),
        film: film::short(),
        sinks: "",
    }
    .text();
    let pipeline = place.write("pipeline.yaml", text);
    let (first, cold) = run(&place, &pipeline, &[]);
    let (second, warm) = run(&place, &pipeline, &[]);
    let vectors = cold["embeddings"].len() as u64;
    let captions = cold["captions"].len() as u64;
    let asked = |run: &Run, op: &str| {
        let (memory, redis, computed) = run.cache(op);
        (memory + redis + computed, computed)
    };
    assert_eq!(
        (asked(&first, "encode").0, asked(&first, "caption").0),
        (vectors, captions)
    );
    assert!(
        asked(&first, "encode").1 > vectors / 2 && asked(&first, "caption").1 > 0,
        "{}",
        first.stdout
    );
    assert_eq!(
        (asked(&second, "encode"), asked(&second, "caption")),
        ((vectors, 0), (captions, 0))
    );
    for kind in ["segments", "embeddings", "captions", "pictures"] {
        records::same(&timeless(&warm[kind]), &timeless(&cold[kind]), kind);
    }
    let hash = |records: &Records| {
        records["captions"].values().next().unwrap()["meta"]["config_hash"].clone()
    };
    assert_eq!(hash(&warm), hash(&cold));

    let prompt = "stages.captions.with.prompt=Name one thing of {tags}.";
    let (third, other) = run(&place, &pipeline, &["--set", prompt]);
    assert_eq!(asked(&third, "encode"), (vectors, 0));
    assert!(asked(&third, "caption").1 > 0, "{}", third.stdout);
    records::same(
        &timeless(&other["embeddings"]),
        &timeless(&cold["embeddings"]),
        "embeddings",
    );
    assert!(
        other["captions"]
            .keys()
            .all(|id| !cold["captions"].contains_key(id)),
        "another prompt is another record"
    );
    assert_ne!(hash(&other), hash(&cold));
}

#[test]
fn redis_killed_under_way_loses_nothing() {
    let (place, redis) = (Place::new(), Service::start("redis"));
    let latest = "  - { id: latest, kind: redis, inputs: ALL, retry: { attempts: 2 } }\n";
    let text = Demo {
        top: &top(&redis),
        film: film::short(),
        sinks: latest,
    }
    .text();
    let live = place.start(&place.write("pipeline.yaml", text), &[]);
    live.line(From::Stdout, |line| line.contains("  shot "));
    redis.kill();
    let run = live.wait().ended(0);
    let (_, files) = records::of_files(&place.path("out"));
    assert_eq!(files["captions"].len(), files["segments"].len());
    assert!(
        files["embeddings"].len() >= 23,
        "{}",
        files["embeddings"].len()
    );
    for (view, balance) in run.ledger() {
        assert_eq!((balance.dropped, balance.dead_lettered), (0, 0), "{view}");
    }
    assert!(
        run.stderr.contains("Redis did not take the records"),
        "the kill came in time:\n{}",
        run.stderr
    );
}
