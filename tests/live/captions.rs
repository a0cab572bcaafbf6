//! `pipelines/live.yaml` as it is: a stream over RTMP becomes captions on Kafka while it runs,
//! until it is stopped.

use std::path::Path;
use std::time::UNIX_EPOCH;

use crate::outage::rig::{
    Consumer, PATIENCE, Run, Service, Terms, folder, free_ports, until, variable,
};

/// Microseconds, as epochs of live streams are counted.
fn since_1970() -> i64 {
    let elapsed = UNIX_EPOCH.elapsed().expect("the clock is past 1970");
    i64::try_from(elapsed.as_micros()).expect("it is not so late")
}

/// Captions arrive on the topic while the stream runs, readable by Confluent's own client with the
/// registry; a stop closes the ledger.
#[test]
fn live_pipeline_captions_a_stream_until_it_is_stopped() {
    let (dir, name) = (folder(), format!("captions-{:08x}", rand::random::<u32>()));
    let (brokers, registry) = (variable("KAFKA_BROKERS"), variable("REGISTRY_URL"));
    let url = format!("{}/{name}", variable("RTMP_URL"));
    let _publisher = Service::new(
        "push",
        dir.path(),
        &["--url", &url, "--film", &variable("OPUSFLOW_TEST_FILM")],
    )
    .started();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/live.yaml");
    let (models, metrics) = (
        variable("OPUSFLOW_MODELS"),
        format!("127.0.0.1:{}", free_ports(1)),
    );
    let variables = [
        ("RTMP_URL", &*url),
        ("OPUSFLOW_MODELS", &*models),
        ("OPUSFLOW_METRICS", &*metrics),
        ("REDIS_URL", &*variable("REDIS_URL")),
    ];
    let began = since_1970();
    let mut run = Run::start_in(folder(), &file, &variables);
    let consumer = Consumer::follow(
        &brokers,
        &["media.events.v1", "media.captions.v1", "media.segments.v1"],
        &registry,
    );
    // Earlier runs wrote under the same stream's id, and the URL is not shown whole: ours is the
    // session whose connection is younger than this test.
    let shown = format!("{}/***", variable("RTMP_URL"));
    let mine = |topic: &str| {
        let seen = consumer.seen();
        let started = seen.iter().find(|record| {
            let value = &record["value"];
            let epoch = value["meta"]["epoch"].as_i64();
            value["started"]["uri"] == *shown && epoch >= Some(began)
        });
        let session = started.map(|record| record["value"]["meta"]["session"].clone());
        let ours = seen.into_iter().filter(|record| {
            record["topic"] == topic
                && Some(&record["value"]["meta"]["session"]) == session.as_ref()
        });
        ours.map(|record| record["value"].clone())
            .collect::<Vec<_>>()
    };
    let captions = run.until("captions come", PATIENCE, |_| {
        Some(mine("media.captions.v1")).filter(|captions| captions.len() >= 2)
    });
    for caption in &captions {
        assert!(
            !caption["text"].as_str().expect("a text").is_empty(),
            "{caption}"
        );
        assert_eq!(
            (
                &caption["meta"]["stream"],
                &caption["meta"]["labels"]["channel"]
            ),
            (&"studio-1".into(), &"one".into())
        );
    }
    let ended = run.stopped(PATIENCE);
    let told = until("the end is on the topic", PATIENCE, || {
        mine("media.events.v1")
            .into_iter()
            .find(|event| event["kind"] == "ended")
            .map(|event| event["ended"].clone())
    });
    assert_eq!(told["reason"], "shutdown", "{}", ended.stdout);
    for (view, terms) in told["ledger"].as_object().expect("a ledger") {
        let terms = Terms::of(terms);
        assert!(
            terms.delivered > 0 && terms.dead_lettered == 0,
            "{view}: {terms:?}"
        );
    }
    // What the run says it delivered is what a foreign client reads.
    for topic in ["media.captions.v1", "media.segments.v1"] {
        let records = told["records"][topic].as_u64().expect("a count");
        until("every record is read", PATIENCE, || {
            (mine(topic).len() as u64 == records).then_some(())
        });
    }
}
