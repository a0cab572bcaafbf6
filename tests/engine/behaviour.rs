//! How packets flow: order, fan-out, independence of streams, batches, events and epochs.

use std::time::Duration;

use opusflow::packet::{Event, PayloadKind};
use opusflow::pipeline::Summary;
use opusflow::stage::{JoinSettings, Late, QueueSettings, WhenFull};

use super::lab::{Lab, Token};
use super::spec::{Act, Behave, Edge, Load, Spec, Stage, block};
use super::verdict;

/// Runs `spec` to its end and checks every account.
pub async fn run(spec: Spec) -> (std::sync::Arc<Lab>, Summary) {
    let (lab, mut running) = Lab::start(spec);
    let summary = tokio::time::timeout(Duration::from_secs(3600), running.wait())
        .await
        .expect("the drain ends")
        .expect("no panic");
    verdict::check(&lab, &summary);
    (lab, summary)
}

pub fn slow(delay: u64) -> Behave {
    Behave {
        delay,
        ..Behave::default()
    }
}

/// source -> each (8 at a time, uneven) -> sink: packets leave in the order of their inputs.
#[tokio::test(start_paused = true)]
async fn ordering() {
    let mut each = Stage::new("each", Act::Each(1), vec![Edge::view("a", block(64))]);
    (each.concurrency, each.behave) = (8, slow(50));
    let sink = Stage::new("sink", Act::Sink, vec![Edge::stage("each", block(4))]);
    let (lab, summary) = run(Spec::new(Load::frames(300), vec![each, sink])).await;
    assert_eq!(summary.sessions[0].ledger["a"].delivered, 300);
    let book = lab.book.lock();
    let seen = &book.order[&(
        "sink".to_owned(),
        0,
        "each.0".to_owned(),
        PayloadKind::Frame,
    )];
    assert_eq!(*seen, (0..300).map(|n| (0, n)).collect::<Vec<_>>());
    assert_eq!(
        book.busy["each"].1, 8,
        "the stage is worked on as concurrently as it allows"
    );
}

/// source -> 3 sinks: all of them see the same bytes, none a copy.
#[tokio::test(start_paused = true)]
async fn fan_out_copies_no_payload() {
    let sink = |id: &str| Stage::new(id, Act::Sink, vec![Edge::view("a", block(4))]);
    let (lab, _) = run(Spec::new(
        Load::frames(20),
        vec![sink("x"), sink("y"), sink("z")],
    ))
    .await;
    let book = lab.book.lock();
    assert_eq!(book.pixels.len(), 20);
    assert!(book.pixels.values().all(|places| places.len() == 1));
    assert_eq!(book.calls.len(), 60);
}

/// Two streams through one slow stage: one whose work takes long does not hold back the other.
#[tokio::test(start_paused = true)]
async fn streams_do_not_wait_for_each_other() {
    let mut each = Stage::new("each", Act::Each(1), vec![Edge::view("a", block(1))]);
    each.behave = slow(100);
    let sink = Stage::new("sink", Act::Sink, vec![Edge::stage("each", block(1))]);
    let began = tokio::time::Instant::now();
    run(Spec::new(
        Load {
            every: Duration::ZERO,
            ..Load::frames(50)
        },
        vec![each.clone(), sink.clone()],
    ))
    .await;
    let alone = began.elapsed();
    let began = tokio::time::Instant::now();
    run(Spec::new(
        Load {
            every: Duration::ZERO,
            streams: 8,
            ..Load::frames(50)
        },
        vec![each, sink],
    ))
    .await;
    assert!(
        began.elapsed() < alone * 2,
        "8 streams took {:?}, one {alone:?}",
        began.elapsed()
    );
}

/// A slow transform behind a queue that drops its oldest: only what is at work is out of the
/// queue's reach.
#[tokio::test(start_paused = true)]
async fn a_slow_stage_takes_no_more_than_it_works_on() {
    let newest = QueueSettings {
        when_full: WhenFull::DropOldest,
        ..block(2)
    };
    let mut each = Stage::new("each", Act::Each(1), vec![Edge::view("a", newest)]);
    each.behave = slow(0);
    each.behave.delay = 200;
    let sink = Stage::new("sink", Act::Sink, vec![Edge::stage("each", block(4))]);
    let (lab, _) = run(Spec {
        seed: 3,
        ..Spec::new(Load::frames(500), vec![each, sink])
    })
    .await;
    let book = lab.book.lock();
    let seen = &book.order[&("each".to_owned(), 0, "in.0".to_owned(), PayloadKind::Frame)];
    // One at work when the rest came, and the two newest.
    assert_eq!(seen[seen.len() - 2..], [(0, 498), (0, 499)]);
    let widest = seen.windows(2).map(|pair| pair[1].1 - pair[0].1).max();
    assert!(
        widest > Some(10),
        "frames between were dropped while it worked: {widest:?}"
    );
}

/// source -> window -> join <- each <- source, the join's stage slow: spans wait in the queues,
/// whose caps hold.
#[tokio::test(start_paused = true)]
async fn a_slow_join_keeps_to_its_queues() {
    let window = Stage::new("window", Act::Window(5), vec![Edge::view("a", block(8))]);
    let each = Stage::new("each", Act::Each(1), vec![Edge::view("a", block(8))]);
    let mut join = Stage::new(
        "join",
        Act::Each(1),
        vec![
            Edge::stage("window", block(3)),
            Edge::stage("each", block(12)),
        ],
    );
    join.join = Some(JoinSettings {
        per: 0,
        collect: vec![1],
        wait: None,
        late: Late::Partial,
    });
    join.behave = slow(500);
    let sink = Stage::new("sink", Act::Sink, vec![Edge::stage("join", block(4))]);
    let (lab, mut running) = Lab::start(Spec::new(
        Load {
            every: Duration::ZERO,
            ..Load::frames(200)
        },
        vec![window, each, join, sink],
    ));
    tokio::time::sleep(Duration::from_millis(400)).await;
    let sent = running.sessions()[0].ledger["a"].ingested;
    assert!(
        sent < 60,
        "{sent} frames went into queues that hold far fewer"
    );
    let summary = running.wait().await.expect("no panic");
    verdict::check(&lab, &summary);
    assert_eq!(summary.sessions[0].ledger["a"].delivered, 200);
}

/// A join behind a stage that merges a fast and a slow view: spans wait for the slow one.
#[tokio::test(start_paused = true)]
async fn a_join_behind_merged_inputs_waits_for_the_slowest() {
    let window = Stage::new("window", Act::Window(4), vec![Edge::view("a", block(200))]);
    let mut late = Stage::new("late", Act::Each(1), vec![Edge::view("b", block(200))]);
    late.behave = slow(40);
    let merged = Stage::new(
        "merged",
        Act::Each(1),
        vec![Edge::view("a", block(200)), Edge::stage("late", block(200))],
    );
    let mut join = Stage::new(
        "join",
        Act::Each(1),
        vec![
            Edge::stage("window", block(200)),
            Edge::stage("merged", block(400)),
        ],
    );
    join.join = Some(JoinSettings {
        per: 0,
        collect: vec![1],
        wait: None,
        late: Late::Partial,
    });
    let sink = Stage::new("sink", Act::Sink, vec![Edge::stage("join", block(4))]);
    let load = Load {
        views: vec![("a", 60), ("b", 60)],
        gaps: vec![20, 41],
        ..Load::frames(0)
    };
    // The verdict compares what each span got with all that was emitted inside it.
    let (lab, summary) = run(Spec::new(load, vec![window, late, merged, join, sink])).await;
    assert_eq!(summary.sessions[0].ledger["b"].delivered, 60);
    assert!(
        lab.book
            .lock()
            .calls
            .values()
            .any(|call| call.collected.len() == 8)
    );
}

/// A stage that works on several windows at once: a later window, taken in before an earlier one is
/// answered, does not make it late.
#[tokio::test(start_paused = true)]
async fn a_window_at_work_holds_the_watermark() {
    let spans = Stage::new("spans", Act::Window(3), vec![Edge::view("a", block(200))]);
    let mut gather = Stage::new("gather", Act::Gather(4), vec![Edge::view("a", block(200))]);
    (gather.concurrency, gather.behave) = (16, slow(300));
    let mut join = Stage::new(
        "join",
        Act::Each(1),
        vec![
            Edge::stage("spans", block(200)),
            Edge::stage("gather", block(200)),
        ],
    );
    join.join = Some(JoinSettings {
        per: 0,
        collect: vec![1],
        wait: None,
        late: Late::Partial,
    });
    let sink = Stage::new("sink", Act::Sink, vec![Edge::stage("join", block(4))]);
    let (lab, _) = run(Spec::new(
        Load {
            gaps: vec![50],
            ..Load::frames(120)
        },
        vec![spans, gather, join, sink],
    ))
    .await;
    assert!(
        lab.book
            .lock()
            .calls
            .values()
            .any(|call| !call.collected.is_empty())
    );
}

/// source -> spans of one frame, source -> windows of ten; a join per span, whose queue holds
/// `room`.
fn ahead(room: usize) -> Spec {
    let spans = Stage::new("spans", Act::Window(1), vec![Edge::view("a", block(1))]);
    let windows = Stage::new("windows", Act::Window(10), vec![Edge::view("a", block(1))]);
    let mut join = Stage::new(
        "join",
        Act::Each(1),
        vec![
            Edge::stage("spans", block(room)),
            Edge::stage("windows", block(2)),
        ],
    );
    join.join = Some(JoinSettings {
        per: 0,
        collect: vec![1],
        wait: None,
        late: Late::Partial,
    });
    let sink = Stage::new("sink", Act::Sink, vec![Edge::stage("join", block(1))]);
    Spec::new(Load::frames(100), vec![spans, windows, join, sink])
}

/// Spans wait on the driving side for a collected side that looks ahead. With room for its
/// look-ahead all flows, however small the other queues are; with less the one source of both
/// stands still, which is why the check wants it (`pipeline/check/capacity.rs`).
#[tokio::test(start_paused = true)]
async fn spans_wait_for_a_side_that_looks_ahead() {
    let (_, summary) = run(ahead(10)).await;
    assert_eq!(summary.sessions[0].ledger["a"].delivered, 100);

    let (_, mut running) = Lab::start(ahead(4));
    assert!(
        tokio::time::timeout(Duration::from_secs(600), running.wait())
            .await
            .is_err(),
        "it stands still"
    );
    let sent = running.sessions()[0].ledger["a"].ingested;
    assert!(sent < 20, "{sent} frames were let in");
    running.force();
    running.wait().await.expect("no panic");
}

/// Of two collected sides one looks ahead: what the other has for a span waits as long.
#[tokio::test(start_paused = true)]
async fn a_quick_side_waits_for_one_that_looks_ahead() {
    let spec = |room: usize| {
        let mut spec = ahead(20);
        spec.stages[2].inputs.push(Edge::view("a", block(room)));
        spec.stages[2].join = Some(JoinSettings {
            per: 0,
            collect: vec![1, 2],
            wait: None,
            late: Late::Partial,
        });
        spec
    };
    let (_, summary) = run(spec(12)).await;
    assert_eq!(summary.sessions[0].ledger["a"].delivered, 100);
    let (_, mut running) = Lab::start(spec(4));
    assert!(
        tokio::time::timeout(Duration::from_secs(600), running.wait())
            .await
            .is_err(),
        "it stands still"
    );
    running.force();
    running.wait().await.expect("no panic");
}

/// source -> two stages of different pace -> a stage that merges -> sink, with gaps: queues of one
/// packet hold nothing up.
#[tokio::test(start_paused = true)]
async fn a_diamond_without_a_join_needs_no_room() {
    let spans = Stage::new("spans", Act::Window(7), vec![Edge::view("a", block(1))]);
    let each = Stage {
        behave: slow(3),
        ..Stage::new("each", Act::Each(1), vec![Edge::view("b", block(1))])
    };
    let inputs = vec![
        Edge::stage("spans", block(1)),
        Edge::stage("each", block(1)),
        Edge::view("a", block(1)),
    ];
    let merged = Stage::new("merged", Act::Each(1), inputs);
    let sink = Stage::new(
        "sink",
        Act::Sink,
        vec![
            Edge::stage("merged", block(1)),
            Edge::stage("spans", block(1)),
        ],
    );
    let load = Load {
        views: vec![("a", 60), ("b", 60)],
        gaps: vec![5, 20, 41],
        ..Load::frames(0)
    };
    let (_, summary) = run(Spec::new(load, vec![spans, each, merged, sink])).await;
    assert_eq!(
        (
            summary.sessions[0].ledger["a"].delivered,
            summary.sessions[0].ledger["b"].delivered
        ),
        (60, 60)
    );
}

/// source -> slow sink: what has come meanwhile goes in one call.
#[tokio::test(start_paused = true)]
async fn sink_batches() {
    let mut sink = Stage::new("sink", Act::Sink, vec![Edge::view("a", block(64))]);
    sink.behave = slow(20);
    let (lab, summary) = run(Spec::new(Load::frames(200), vec![sink])).await;
    assert_eq!(summary.sessions[0].ledger["a"].delivered, 200);
    assert_eq!(summary.sessions[0].records["frames"], 200);
    let book = lab.book.lock();
    let most = book.batches.iter().map(|(_, size)| *size).max();
    assert_eq!(most, Some(64), "the queue's room");
}

/// `started` comes first, `progress` rises, `ended` comes last with a ledger that balances; every
/// sink is sent them.
#[tokio::test(start_paused = true)]
async fn events() {
    let sink = |id: &str| Stage::new(id, Act::Sink, vec![Edge::stage("each", block(4))]);
    let mut each = Stage::new("each", Act::Each(1), vec![Edge::view("a", block(4))]);
    each.behave = slow(10);
    let (lab, summary) = run(Spec::new(
        Load::frames(100),
        vec![each, sink("x"), sink("y")],
    ))
    .await;
    let book = lab.book.lock();
    for sink in ["x", "y"] {
        let events = &book.events[&(sink.to_owned(), 0)];
        assert!(matches!(&events[0], Event::Started { uri, .. } if uri == "lab:0"));
        let Some(Event::Ended {
            reason,
            ledger,
            records,
        }) = events.last()
        else {
            panic!("{:?}", events.last())
        };
        assert_eq!(reason, "end_of_stream");
        assert!(ledger["a"].balances());
        assert_eq!(
            (
                ledger["a"].ingested,
                ledger["a"].delivered,
                ledger["a"].in_flight
            ),
            (100, 100, 0)
        );
        assert_eq!(records["frames"], 200);
        let progress: Vec<_> = events[1..events.len() - 1]
            .iter()
            .map(|event| {
                if let Event::Progress { complete } = event {
                    *complete
                } else {
                    0
                }
            })
            .collect();
        assert!(
            progress.len() > 2 && progress.is_sorted() && progress[0] > 0,
            "{progress:?}"
        );
    }
    assert_eq!(summary.sessions[0].reason, "end_of_stream");
    assert_eq!(book.closed, ["x", "y"]);
}

/// A gap closes the open segment: none spans two epochs, and sequence numbers begin again.
#[tokio::test(start_paused = true)]
async fn epoch_gap() {
    let window = Stage::new("window", Act::Window(10), vec![Edge::view("a", block(4))]);
    let sink = Stage::new("sink", Act::Sink, vec![Edge::stage("window", block(4))]);
    let load = Load {
        gaps: vec![15, 18],
        ..Load::frames(40)
    };
    let (lab, summary) = run(Spec::new(load, vec![window, sink])).await;
    assert_eq!(summary.sessions[0].ledger["a"].delivered, 40);
    let book = lab.book.lock();
    let segments: Vec<_> = book
        .made
        .iter()
        .filter(|(token, _)| matches!(token, Token::Draft(_)))
        .map(|(_, made)| (made.epoch, made.roots.len()))
        .collect();
    assert_eq!(
        segments,
        [(0, 10), (0, 5), (1, 3), (2, 10), (2, 10), (2, 2)]
    );
    let seen = &book.order[&(
        "sink".to_owned(),
        0,
        "window.0".to_owned(),
        PayloadKind::Segment,
    )];
    assert_eq!(*seen, [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1), (2, 2)]);
}
