//! How a run ends: drain, stop and deadline, force, laggards, sources that do not listen.

use std::sync::Arc;
use std::time::Duration;

use opusflow::packet::Event;
use parking_lot::Mutex;
use tracing::field::{Field, Visit};

use super::behaviour::{run, slow};
use super::lab::Lab;
use super::spec::{Act, Edge, Load, Spec, Stage, block};
use super::verdict;

fn stages(each: u64, sink: u64) -> Vec<Stage> {
    vec![
        Stage {
            behave: slow(each),
            ..Stage::new("each", Act::Each(1), vec![Edge::view("a", block(16))])
        },
        Stage {
            behave: slow(sink),
            ..Stage::new("sink", Act::Sink, vec![Edge::stage("each", block(16))])
        },
    ]
}

/// The stream ends while queues are full: everything inside is delivered.
#[tokio::test(start_paused = true)]
async fn drain() {
    let (_, summary) = run(Spec::new(
        Load {
            every: Duration::ZERO,
            ..Load::frames(100)
        },
        stages(20, 30),
    ))
    .await;
    let session = &summary.sessions[0];
    assert_eq!(
        (
            session.ledger["a"].delivered,
            session.reason.as_str(),
            summary.forced
        ),
        (100, "end_of_stream", false)
    );
}

/// A stop cancels the source; what it had sent is delivered. When that takes too long, the
/// deadline drops and counts the rest.
#[tokio::test(start_paused = true)]
async fn stop_then_deadline() {
    for (shutdown, forced) in [(600, false), (1, true)] {
        let spec = Spec {
            shutdown: Duration::from_secs(shutdown),
            ..Spec::new(Load::frames(100_000), stages(10, 400))
        };
        let (lab, mut running) = Lab::start(spec);
        tokio::time::sleep(Duration::from_secs(5)).await;
        running.stop();
        let stopped = tokio::time::Instant::now();
        let summary = running.wait().await.expect("no panic");
        verdict::check(&lab, &summary);
        let balance = &summary.sessions[0].ledger["a"];
        assert_eq!(
            (summary.forced, balance.dropped.contains_key("shutdown")),
            (forced, forced),
            "{balance:?}"
        );
        if forced {
            assert!(
                stopped.elapsed() < Duration::from_secs(5),
                "{:?}",
                stopped.elapsed()
            );
        } else {
            assert_eq!(
                (balance.delivered, &*summary.sessions[0].reason),
                (balance.ingested, "shutdown")
            );
        }
        assert_eq!(
            lab.book.lock().closed,
            ["sink"],
            "sinks are closed also when time is up"
        );
    }
}

/// A second signal ends at once, whatever is under way.
#[tokio::test(start_paused = true)]
async fn force() {
    let (lab, mut running) = Lab::start(Spec::new(Load::frames(100_000), stages(10, 3_600_000)));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let began = tokio::time::Instant::now();
    running.force();
    let summary = running.wait().await.expect("no panic");
    verdict::check(&lab, &summary);
    assert!(
        summary.forced && began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    let balance = &summary.sessions[0].ledger["a"];
    assert!(balance.dropped["shutdown"] > 10, "{balance:?}");
}

/// A source that ignores the stop loses its feed some time after the deadline.
#[tokio::test(start_paused = true)]
async fn a_deaf_source_is_ended_by_the_deadline() {
    let spec = Spec {
        shutdown: Duration::from_secs(2),
        ..Spec::new(
            Load {
                deaf: true,
                ..Load::frames(u32::MAX)
            },
            stages(0, 0),
        )
    };
    let (lab, mut running) = Lab::start(spec);
    tokio::time::sleep(Duration::from_secs(1)).await;
    running.stop();
    let summary = tokio::time::timeout(Duration::from_secs(20), running.wait())
        .await
        .expect("it ends")
        .expect("no panic");
    verdict::check(&lab, &summary);
    assert_eq!(
        (summary.forced, &*summary.sessions[0].reason),
        (true, "shutdown")
    );
}

/// A feed that is kept open after its source has gone: the deadline ends the session.
#[tokio::test(start_paused = true)]
async fn a_feed_that_is_kept_open_is_ended_by_the_deadline() {
    let spec = Spec {
        shutdown: Duration::from_secs(2),
        ..Spec::new(
            Load {
                keeps: true,
                ..Load::frames(10)
            },
            stages(0, 0),
        )
    };
    let (lab, mut running) = Lab::start(spec);
    tokio::time::sleep(Duration::from_secs(1)).await;
    running.stop();
    let summary = tokio::time::timeout(Duration::from_secs(20), running.wait())
        .await
        .expect("it ends")
        .expect("no panic");
    verdict::check(&lab, &summary);
    assert_eq!(
        (summary.forced, summary.sessions[0].ledger["a"].delivered),
        (true, 10)
    );
}

/// `ended` is emitted after the drain, so that its ledger has nothing in flight.
#[tokio::test(start_paused = true)]
async fn ended_waits_for_the_drain() {
    let (lab, _) = run(Spec::new(
        Load {
            every: Duration::ZERO,
            ..Load::frames(40)
        },
        stages(100, 100),
    ))
    .await;
    let book = lab.book.lock();
    let Some(Event::Ended { ledger, .. }) = book.events[&("sink".to_owned(), 0)].last() else {
        panic!("no end")
    };
    assert_eq!((ledger["a"].in_flight, ledger["a"].delivered), (0, 40));
}

#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Visit for Warnings {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.lock().push(format!("{}={value:?}", field.name()));
    }
}

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// While a stopped pipeline drains slowly, the stages that hold it up are named every five seconds.
#[test]
fn laggards() {
    let warnings = Warnings::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime starts");
    tracing::subscriber::with_default(warnings.clone(), || {
        runtime.block_on(async {
            let (_lab, mut running) = Lab::start(Spec {
                seed: 5,
                ..Spec::new(Load::frames(100_000), stages(0, 3000))
            });
            tokio::time::sleep(Duration::from_secs(5)).await;
            running.stop();
            running.wait().await.expect("no panic");
        });
    });
    let named = warnings
        .0
        .lock()
        .iter()
        .filter(|text| text.starts_with("stages=") && text.contains("sink"))
        .count();
    assert!(named >= 2, "{:?}", warnings.0.lock());
}
