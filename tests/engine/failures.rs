//! What goes wrong in stages: panics, retries, timeouts, dead letters, and receipts that leak on
//! purpose.

use std::sync::Arc;
use std::time::Duration;

use opusflow::stage::Retry;

use super::acts;
use super::behaviour::{run, slow};
use super::lab::Lab;
use super::spec::{Act, Behave, Edge, Load, Spec, Stage, block};

fn each(behave: Behave) -> Stage {
    Stage {
        behave,
        ..Stage::new("each", Act::Each(1), vec![Edge::view("a", block(8))])
    }
}

fn sink() -> Stage {
    Stage::new("sink", Act::Sink, vec![Edge::stage("each", block(8))])
}

/// source -> each that panics now and then -> sink: neighbours go on.
#[tokio::test(start_paused = true)]
async fn panics_are_caught() {
    let (_, summary) = run(Spec::new(
        Load::frames(200),
        vec![
            each(Behave {
                panic: 20,
                ..Behave::default()
            }),
            sink(),
        ],
    ))
    .await;
    let balance = &summary.sessions[0].ledger["a"];
    assert!(
        balance.dropped["failed"] > 10 && balance.delivered > 100,
        "{balance:?}"
    );
    assert_eq!(balance.dropped["failed"] + balance.delivered, 200);
}

/// A sink that panics loses its batch, not the stream.
#[tokio::test(start_paused = true)]
async fn a_sink_that_panics_goes_on() {
    let sink = Stage {
        behave: Behave {
            panic: 10,
            ..Behave::default()
        },
        ..sink()
    };
    let (_, summary) = run(Spec::new(
        Load::frames(100),
        vec![each(Behave::default()), sink],
    ))
    .await;
    let balance = &summary.sessions[0].ledger["a"];
    assert!(
        balance.dropped["failed"] > 0 && balance.delivered > 50,
        "{balance:?}"
    );
}

/// An error that may pass is tried again, with pauses that double; one that will not is tried once.
#[tokio::test(start_paused = true)]
async fn retries() {
    let retry = Retry {
        attempts: 20,
        backoff: Duration::from_millis(1),
    };
    let stage = Stage {
        retry,
        ..each(Behave {
            transient: 50,
            ..Behave::default()
        })
    };
    let (lab, summary) = run(Spec::new(
        Load::frames(100),
        vec![
            stage,
            Stage {
                retry,
                behave: Behave {
                    transient: 30,
                    ..Behave::default()
                },
                ..sink()
            },
        ],
    ))
    .await;
    assert_eq!(summary.sessions[0].ledger["a"].delivered, 100);
    assert!(
        lab.book
            .lock()
            .calls
            .values()
            .filter(|call| call.tries > 2)
            .count()
            > 10
    );

    let began = tokio::time::Instant::now();
    let stage = Stage {
        retry: Retry {
            attempts: 4,
            backoff: Duration::from_secs(1),
        },
        ..each(Behave {
            transient: 100,
            ..Behave::default()
        })
    };
    let (lab, _) = run(Spec::new(Load::frames(1), vec![stage, sink()])).await;
    assert!(lab.book.lock().calls.values().all(|call| call.tries == 4));
    assert_eq!(began.elapsed().as_secs(), 1 + 2 + 4);

    let stage = Stage {
        retry,
        ..each(Behave {
            permanent: 100,
            ..Behave::default()
        })
    };
    let (lab, _) = run(Spec::new(Load::frames(5), vec![stage, sink()])).await;
    assert!(lab.book.lock().calls.values().all(|call| call.tries == 1));
}

/// A call that does not answer is given up; a full reader is no reason to give up what is at work
/// behind it.
#[tokio::test(start_paused = true)]
async fn timeouts() {
    let timeout = Some(Duration::from_millis(100));
    let stage = Stage {
        timeout,
        ..each(Behave {
            hang: 10,
            ..Behave::default()
        })
    };
    let (_, summary) = run(Spec::new(Load::frames(100), vec![stage, sink()])).await;
    let balance = &summary.sessions[0].ledger["a"];
    assert!(
        balance.dropped["failed"] > 0 && balance.delivered > 50,
        "{balance:?}"
    );

    let stage = Stage {
        timeout,
        concurrency: 8,
        ..each(slow(60))
    };
    let slow_sink = Stage {
        behave: slow(1000),
        ..Stage::new("sink", Act::Sink, vec![Edge::stage("each", block(1))])
    };
    let (_, summary) = run(Spec::new(Load::frames(60), vec![stage, slow_sink])).await;
    assert_eq!(summary.sessions[0].ledger["a"].delivered, 60);
}

/// A sink that does not answer within its timeout is tried again.
#[tokio::test(start_paused = true)]
async fn a_sink_has_its_timeout_too() {
    let retry = Retry {
        attempts: 30,
        backoff: Duration::from_micros(1),
    };
    let sink = Stage {
        timeout: Some(Duration::from_millis(50)),
        retry,
        behave: Behave {
            hang: 8,
            ..Behave::default()
        },
        ..sink()
    };
    let (_, summary) = run(Spec::new(
        Load::frames(50),
        vec![each(Behave::default()), sink],
    ))
    .await;
    assert_eq!(summary.sessions[0].ledger["a"].delivered, 50);
}

/// What fails lies in the dead letters with its error; without them it is dropped and counted.
#[tokio::test(start_paused = true)]
async fn dead_letters() {
    let failing = Stage {
        dead_letter: Some("letters".to_owned()),
        ..each(Behave {
            permanent: 30,
            ..Behave::default()
        })
    };
    let letters = Stage::new("letters", Act::Sink, vec![Edge::view("a", block(8))]);
    let bad_sink = Stage {
        dead_letter: Some("letters".to_owned()),
        behave: Behave {
            permanent: 10,
            ..Behave::default()
        },
        ..sink()
    };
    let (lab, summary) = run(Spec::new(
        Load::frames(200),
        vec![failing, bad_sink, letters],
    ))
    .await;
    let (session, book) = (&summary.sessions[0], lab.book.lock());
    assert_eq!(session.ledger["a"].dead_lettered, book.letters.len() as u64);
    assert_eq!(session.records["frames.dlq"], book.letters.len() as u64);
    assert!(
        ["each", "sink"]
            .iter()
            .all(|stage| book.letters.iter().any(|(failed, _)| failed == stage))
    );
}

/// Two sinks that are each other's dead letters would wait for each other for ever.
#[tokio::test(start_paused = true)]
async fn dead_letters_that_come_round_end_all_the_same() {
    let failing = |id: &str, letters: &str| Stage {
        dead_letter: Some(letters.to_owned()),
        behave: Behave {
            permanent: 30,
            ..Behave::default()
        },
        ..Stage::new(id, Act::Sink, vec![Edge::view("a", block(8))])
    };
    let (_, summary) = run(Spec::new(
        Load::frames(50),
        vec![failing("x", "y"), failing("y", "x")],
    ))
    .await;
    assert!(summary.sessions[0].ledger["a"].dropped["failed"] > 0);
}

/// A sink that only counts: neither its losses nor its failures show in the ledger.
#[tokio::test(start_paused = true)]
async fn a_sink_that_is_not_required_holds_no_frame() {
    let queue = opusflow::stage::QueueSettings {
        when_full: opusflow::stage::WhenFull::DropNewest,
        ..block(1)
    };
    let extra = Stage {
        required: false,
        behave: Behave {
            delay: 1000,
            permanent: 50,
            ..Behave::default()
        },
        ..Stage::new("extra", Act::Sink, vec![Edge::stage("each", queue)])
    };
    let (lab, summary) = run(Spec::new(
        Load::frames(100),
        vec![each(Behave::default()), sink(), extra],
    ))
    .await;
    assert_eq!(summary.sessions[0].ledger["a"].delivered, 100);
    assert!(
        lab.book
            .lock()
            .calls
            .keys()
            .filter(|(stage, _)| stage == "extra")
            .count()
            < 20
    );
}

/// A sink that reports too few outcomes has lied about its batch: none of it counts as delivered,
/// and no receipt falls.
#[tokio::test(start_paused = true)]
async fn a_sink_that_reports_too_little_loses_its_batch() {
    let (_, mut running) = Lab::start(Spec::new(
        Load::frames(20),
        vec![
            each(Behave::default()),
            Stage {
                act: Act::Short,
                ..sink()
            },
        ],
    ));
    let summary = running.wait().await.expect("no panic");
    let balance = &summary.sessions[0].ledger["a"];
    assert_eq!((balance.leaked, balance.dropped["failed"]), (0, 20));
}

/// A stage that panics while it is built refuses the start; one that panics for a stream refuses
/// the stream.
#[tokio::test(start_paused = true)]
async fn panics_while_opening_are_errors() {
    let (_, running) = Lab::try_start(Spec::new(
        Load::frames(1),
        vec![
            Stage {
                act: Act::Each(u8::MAX),
                ..each(Behave::default())
            },
            sink(),
        ],
    ));
    assert!(running.is_err_and(|error| error.to_string().contains("stage `each`: panicked")));
    let (lab, mut running) = Lab::start(Spec::new(
        Load::frames(1),
        vec![
            Stage {
                act: Act::Window(0),
                ..each(Behave::default())
            },
            sink(),
        ],
    ));
    let summary = tokio::time::timeout(Duration::from_secs(60), running.wait())
        .await
        .expect("it ends")
        .expect("no panic");
    assert_eq!((summary.sessions.len(), lab.book.lock().opened), (0, 0));
}

/// The test of the tests: a receipt that falls without an outcome is counted, and the verdict
/// refuses the run.
#[tokio::test(start_paused = true)]
async fn a_leak_is_found() {
    let (lab, mut running) = Lab::start(Spec::new(
        Load::frames(10),
        vec![each(Behave::default()), acts::leaking(sink())],
    ));
    let summary = running.wait().await.expect("no panic");
    let balance = &summary.sessions[0].ledger["a"];
    assert_eq!((balance.leaked, balance.delivered), (10, 0));
    let verdict = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        super::verdict::check(&lab, &summary)
    }));
    assert!(verdict.is_err(), "the verdict lets a leak pass");
}

/// A receipt that is never let go keeps the stream in flight; the deadline ends it, and the ledger
/// names the frames.
#[tokio::test(start_paused = true)]
async fn a_receipt_kept_for_ever_is_found() {
    let spec = Spec {
        shutdown: Duration::from_secs(30),
        ..Spec::new(
            Load::frames(10),
            vec![each(Behave::default()), acts::hoarding(sink())],
        )
    };
    let (lab, mut running) = Lab::start(spec);
    assert!(
        tokio::time::timeout(Duration::from_secs(60), running.wait())
            .await
            .is_err()
    );
    running.stop();
    let summary = running.wait().await.expect("no panic");
    assert!(summary.forced);
    let balance = &summary.sessions[0].ledger["a"];
    assert_eq!((balance.in_flight, balance.balances()), (10, true));
    let verdict = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        super::verdict::check(&Arc::clone(&lab), &summary)
    }));
    assert!(verdict.is_err(), "the verdict lets a hoarded receipt pass");
}
