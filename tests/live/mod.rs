//! Live streams from real servers: frames come, the publisher and the server are killed and come
//! back, and each gap is told, each frame accounted for.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its own functions too"
)]

mod captions;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::outage::rig::{PATIENCE, Run, Service, folder, free_ports, until, variable};

/// live -> sample -> file: every second frame is delivered, the others are absorbed.
const FRAMES: &str = r#"
version: 1
name: live-frames
stages:
  - id: cams
    kind: live
    with:
      streams: [{ id: cam, url: "${URL}", labels: { place: test } }]
      views: { frames: { fps: 5, size: 64x36 } }
      stall: 4s
      connect: 20s
      backoff: 300ms
      max_backoff: 2s
  - { id: fewer, kind: sample, inputs: [cams.frames], with: { every: 2 } }
  - { id: files, kind: file, inputs: [fewer], with: { path: "${OUT}", formats: [jsonl] } }
"#;

/// live -> shots -> file: every frame is in a segment.
const SHOTS: &str = r#"
version: 1
name: live-shots
threads: { torch: 1 }
model_dir: "${OPUSFLOW_MODELS}"
models: { cuts: { path: transnetv2 } }
stages:
  - id: cams
    kind: live
    with:
      streams: [{ id: cam, url: "${URL}" }]
      views: { cuts: { fps: 10, size: 48x27 } }
      stall: 4s
      connect: 20s
      backoff: 300ms
      max_backoff: 2s
  - id: shots
    kind: shots
    inputs: [{ from: cams.cuts, queue: { frames: 512, max_age: 60s } }]
    with: { model: cuts, max_length: 1s, on_gap: close }
  - { id: files, kind: file, inputs: [shots], with: { path: "${OUT}", formats: [jsonl] } }
"#;

fn number(record: &Value, name: &str) -> u64 {
    record["meta"][name]
        .as_u64()
        .unwrap_or_else(|| panic!("{name} in {record}"))
}

/// The records of each epoch, in the order in which they were written.
fn by_epoch(records: &[Value]) -> BTreeMap<u64, Vec<&Value>> {
    let mut epochs = BTreeMap::<u64, Vec<&Value>>::new();
    records.iter().for_each(|record| {
        epochs
            .entry(number(record, "epoch"))
            .or_default()
            .push(record)
    });
    epochs
}

fn await_epochs(run: &mut Run, kind: &str, epochs: usize, each: usize) {
    run.until(
        &format!("{each} {kind} in each of {epochs} epochs"),
        PATIENCE,
        |run| {
            let records = run.records("cam", kind);
            let found = by_epoch(&records);
            (found
                .values()
                .filter(|records| records.len() >= each)
                .count()
                >= epochs)
                .then_some(())
        },
    );
}

fn await_away(run: &mut Run, times: usize) {
    let away = |run: &Run| run.stderr().matches("stream is away").count() >= times;
    run.until("the loss is noticed", PATIENCE, |run| {
        away(run).then_some(())
    });
}

/// What must hold after a run with at least `gaps` gaps: each gap lies between the two epochs that
/// it names, records are numbered without a hole in every epoch and none has the id of another, and
/// the stream began and ended once.
fn check_story(run: &Run, kind: &str, gaps: usize) {
    let (found, records) = (run.events("cam", "gap"), run.records("cam", kind));
    assert!(found.len() >= gaps, "{found:?}");
    assert_eq!(
        (
            run.events("cam", "started").len(),
            run.events("cam", "ended").len()
        ),
        (1, 1)
    );
    assert_eq!(run.events("cam", "ended")[0]["reason"], "shutdown");
    let epochs = by_epoch(&records);
    let mut before = None;
    for gap in &found {
        let field = |name: &str| {
            gap[name]
                .as_u64()
                .unwrap_or_else(|| panic!("{name} in {gap}"))
        };
        let (from, to, from_epoch, to_epoch) = (
            field("from"),
            field("to"),
            field("from_epoch"),
            field("to_epoch"),
        );
        assert!(
            !gap["reason"].as_str().unwrap().is_empty()
                && from < to
                && from_epoch < to_epoch
                && to == to_epoch,
            "{gap}"
        );
        assert!(
            before
                .replace(to_epoch)
                .is_none_or(|before| before == from_epoch),
            "gaps follow on each other: {found:?}"
        );
        if let Some(last) = epochs.get(&from_epoch).and_then(|records| records.last()) {
            assert!(
                number(last, "ingest_time") <= from,
                "{gap} begins before {last}"
            );
        }
        if let Some(first) = epochs.get(&to_epoch).and_then(|records| records.first()) {
            assert!(
                number(first, "event_time") >= to,
                "{gap} ends after {first}"
            );
        }
    }
    for records in epochs.values() {
        let numbers: Vec<_> = records.iter().map(|record| number(record, "seq")).collect();
        assert_eq!(numbers, (0..records.len() as u64).collect::<Vec<_>>());
    }
    let ids: BTreeSet<_> = records
        .iter()
        .map(|record| record["meta"]["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), records.len());
}

/// Every frame that came was delivered or left out on purpose.
fn check_frames(run: &Run) {
    let terms = &run.ledger("cam")["frames"];
    assert_eq!(terms.delivered, run.records("cam", "frames").len() as u64);
    assert!(
        terms.lost() == 0 && terms.dead_lettered == 0 && terms.absorbed > 0,
        "{terms:?}"
    );
}

fn push(server: &std::path::Path, port: u16, name: &str) -> Service {
    let (url, film) = (
        format!("rtmp://127.0.0.1:{port}/live/{name}"),
        variable("OPUSFLOW_TEST_FILM"),
    );
    Service::new("push", server, &["--url", &url, "--film", &film])
}

/// nginx-rtmp: first the publisher is killed and comes back, then the server.
#[test]
fn rtmp_publisher_and_server_are_killed_and_come_back() {
    let (dir, port) = (folder(), free_ports(2));
    let server = Service::new("rtmp", dir.path(), &["--port", &port.to_string()]).started();
    let publisher = push(dir.path(), port, "film").started();
    let mut run = Run::start(
        FRAMES,
        &[("URL", &format!("rtmp://127.0.0.1:{port}/live/film"))],
    );
    await_epochs(&mut run, "frames", 1, 5);
    publisher.kill();
    await_away(&mut run, 1);
    publisher.start();
    await_epochs(&mut run, "frames", 2, 5);
    server.kill();
    publisher.kill();
    await_away(&mut run, 2);
    server.start();
    publisher.start();
    await_epochs(&mut run, "frames", 3, 5);
    run.stopped(PATIENCE);
    check_story(&run, "frames", 2);
    check_frames(&run);
}

/// An RTSP server is killed and comes back: no segment reaches over the gap, and every frame is in
/// one.
#[test]
fn rtsp_server_is_killed_and_no_shot_reaches_over_the_gap() {
    let (dir, port) = (folder(), free_ports(1));
    let options = [
        "--port",
        &port.to_string(),
        "--film",
        &variable("OPUSFLOW_TEST_FILM"),
    ];
    let server = Service::new("rtsp", dir.path(), &options).started();
    let mut run = Run::start(SHOTS, &[("URL", &format!("rtsp://127.0.0.1:{port}/film"))]);
    await_epochs(&mut run, "segments", 1, 3);
    server.kill();
    await_away(&mut run, 1);
    server.start();
    await_epochs(&mut run, "segments", 2, 3);
    run.stopped(PATIENCE);
    check_story(&run, "segments", 1);
    let (terms, segments) = (&run.ledger("cam")["cuts"], run.records("cam", "segments"));
    assert!(terms.lost() == 0 && terms.dead_lettered == 0, "{terms:?}");
    assert_eq!(
        terms.delivered,
        segments
            .iter()
            .map(|segment| segment["frames"].as_u64().unwrap())
            .sum::<u64>()
    );
    for segments in by_epoch(&segments).values() {
        let follow = segments
            .windows(2)
            .all(|pair| number(pair[0], "end") == number(pair[1], "start"));
        assert!(follow && number(segments[0], "start") == 0, "{segments:?}");
    }
}

/// With the camera's clock every connection begins with its first report, and every event time is
/// the camera's.
#[test]
fn rtsp_sender_reports_give_the_event_times() {
    let (dir, port) = (folder(), free_ports(1));
    let options = [
        "--port",
        &port.to_string(),
        "--film",
        &variable("OPUSFLOW_TEST_FILM"),
    ];
    let server = Service::new("rtsp", dir.path(), &options).started();
    let mut run = Run::start(
        &FRAMES.replace("stall: 4s", "stall: 4s\n      clock: ntp"),
        &[("URL", &format!("rtsp://127.0.0.1:{port}/film"))],
    );
    await_epochs(&mut run, "frames", 1, 5);
    server.kill();
    await_away(&mut run, 1);
    server.start();
    await_epochs(&mut run, "frames", 2, 5);
    run.stopped(PATIENCE);
    let records = run.records("cam", "frames");
    assert!(
        records
            .iter()
            .all(|record| record["meta"]["time_source"] == "ntp"),
        "{records:?}"
    );
    for (epoch, records) in by_epoch(&records) {
        let base = number(records[0], "event_time") - number(records[0], "start") / 1000;
        assert!(
            base != epoch && base.abs_diff(epoch) < 5_000_000,
            "the camera's clock, which is ours: {base} at {epoch}"
        );
        // Both clocks are this machine's: a frame arrives when it was taken, or soon after.
        let late =
            |record: &&Value| number(record, "ingest_time").abs_diff(number(record, "event_time"));
        assert!(
            records.iter().map(late).max().unwrap() < 2_000_000,
            "{records:?}"
        );
    }
    check_frames(&run);
}

/// A sender in SRT's listener mode is killed and comes back.
#[test]
fn srt_sender_is_killed_and_comes_back() {
    let (dir, port) = (folder(), free_ports(1));
    let options = [
        "--port",
        &port.to_string(),
        "--film",
        &variable("OPUSFLOW_TEST_FILM"),
    ];
    let server = Service::new("srt", dir.path(), &options).started();
    let mut run = Run::start(FRAMES, &[("URL", &format!("srt://127.0.0.1:{port}"))]);
    await_epochs(&mut run, "frames", 1, 5);
    server.kill();
    await_away(&mut run, 1);
    server.start();
    await_epochs(&mut run, "frames", 2, 5);
    run.stopped(PATIENCE);
    check_story(&run, "frames", 1);
    check_frames(&run);
}

/// A live HLS playlist stops growing when its publisher is killed; then the web server goes. Both
/// come back.
#[test]
fn hls_publisher_and_server_are_killed_and_come_back() {
    let (dir, port) = (folder(), free_ports(2));
    let server = Service::new("rtmp", dir.path(), &["--port", &port.to_string()]).started();
    let publisher = Service::new(
        "hls",
        dir.path(),
        &["--film", &variable("OPUSFLOW_TEST_FILM")],
    )
    .started();
    let mut run = Run::start(
        FRAMES,
        &[(
            "URL",
            &format!("http://127.0.0.1:{}/hls/film.m3u8", port + 1),
        )],
    );
    await_epochs(&mut run, "frames", 1, 5);
    publisher.kill();
    await_away(&mut run, 1);
    publisher.start();
    await_epochs(&mut run, "frames", 2, 10);
    let known = run.events("cam", "gap").len();
    server.kill();
    let away = run.stderr().matches("stream is away").count();
    await_away(&mut run, away + 1);
    server.start();
    run.until("it is back", PATIENCE, |run| {
        (run.events("cam", "gap").len() > known).then_some(())
    });
    let epochs = by_epoch(&run.records("cam", "frames")).len();
    await_epochs(&mut run, "frames", epochs, 1);
    run.stopped(PATIENCE);
    check_story(&run, "frames", 2);
    check_frames(&run);
}

/// Four streams in one stage: one that never was there, one that goes away for good, and two that
/// notice nothing of it.
#[test]
fn dead_streams_do_not_disturb_their_neighbours() {
    let pipeline = r#"
version: 1
name: neighbours
stages:
  - id: cams
    kind: live
    with:
      streams:
        - { id: nowhere, url: "srt://127.0.0.1:${NOWHERE}" }
        - { id: dying, url: "srt://127.0.0.1:${DYING}" }
        - { id: healthy-rtsp, url: "${RTSP_URL}" }
        - { id: healthy-rtmp, url: "${RTMP_URL}/film" }
      views: { frames: { fps: 5, size: 64x36 } }
      stall: 8s
      connect: 5s
      backoff: 100ms
      max_backoff: 500ms
  - { id: fewer, kind: sample, inputs: [cams.frames] }
  - { id: files, kind: file, inputs: [fewer], with: { path: "${OUT}", formats: [jsonl] } }
"#;
    for name in ["RTSP_URL", "RTMP_URL"] {
        variable(name);
    }
    let (dir, port) = (folder(), free_ports(2));
    let options = [
        "--port",
        &port.to_string(),
        "--film",
        &variable("OPUSFLOW_TEST_FILM"),
    ];
    let dying = Service::new("srt", dir.path(), &options).started();
    let mut run = Run::start(
        pipeline,
        &[
            ("DYING", &port.to_string()),
            ("NOWHERE", &(port + 1).to_string()),
        ],
    );
    let count = |run: &Run, stream: &str| run.records(stream, "frames").len();
    run.until("three streams come", PATIENCE, |run| {
        ["dying", "healthy-rtsp", "healthy-rtmp"]
            .iter()
            .all(|stream| count(run, stream) >= 5)
            .then_some(())
    });
    dying.kill();
    run.until("the loss is noticed", PATIENCE, |run| {
        (run.stderr().matches("stream is away").count() >= 2).then_some(())
    });
    let then = ["healthy-rtsp", "healthy-rtmp"].map(|stream| (stream, count(&run, stream)));
    run.until("the others go on", PATIENCE, |run| {
        then.iter()
            .all(|(stream, before)| count(run, stream) >= before + 15)
            .then_some(())
    });
    run.stopped(PATIENCE);
    for (stream, _) in then {
        assert!(
            run.events(stream, "gap").is_empty(),
            "{stream}: {:?}",
            run.events(stream, "gap")
        );
        let (terms, frames) = (&run.ledger(stream)["frames"], run.records(stream, "frames"));
        assert_eq!(
            (terms.ingested, terms.lost()),
            (frames.len() as u64, 0),
            "{stream}: {terms:?}"
        );
        // 5 frames a second, none left out.
        let late = frames
            .windows(2)
            .filter(|pair| number(&pair[1], "start") - number(&pair[0], "start") > 400_000_000)
            .count();
        assert_eq!(late, 0, "{stream}");
    }
    assert_eq!(run.ledger("nowhere")["frames"].ingested, 0);
    assert_eq!(
        run.ledger("dying")["frames"].ingested,
        count(&run, "dying") as u64
    );
}

/// A stop finds a stream that is away, and ends it.
#[test]
fn a_stream_that_is_away_can_be_stopped() {
    let (dir, port) = (folder(), free_ports(2));
    let mut run = Run::start(
        FRAMES,
        &[("URL", &format!("rtmp://127.0.0.1:{port}/live/film"))],
    );
    await_away(&mut run, 1);
    let server = Service::new("rtmp", dir.path(), &["--port", &port.to_string()]).started();
    // Now it is connected and waits for a publisher who never comes.
    until("it has connected", PATIENCE, || {
        let page = std::process::Command::new("curl")
            .args(["-sf", &format!("http://127.0.0.1:{}/stat", port + 1)])
            .output()
            .unwrap();
        String::from_utf8_lossy(&page.stdout)
            .contains("<name>film</name>")
            .then_some(())
    });
    let began = std::time::Instant::now();
    run.stopped(PATIENCE);
    assert!(began.elapsed().as_secs() < 15, "{:?}", began.elapsed());
    drop(server);
    assert_eq!(run.ledger("cam")["frames"].ingested, 0);
}
