//! A whole film through `file -> sample -> discard`, every frame, scaled and in RGB, as `opusflow
//! run` would run it: frames a second, one decoder thread and one tokio thread. Its peers are
//! `gst-launch-1.0 ... ! fakesink` with the same caps (`benches/run`).

mod report;

use std::sync::Arc;

use opusflow::config::{Environment, SourceText};
use opusflow::media;
use opusflow::pipeline::{Overrides, Plan, Running, check};
use opusflow::stage::Deps;
use opusflow::stages::KINDS;
use opusflow::telemetry::Exporter;

const SIZES: [&str; 2] = ["48x27", "640x360"];

fn plan(film: &str, size: &str) -> Arc<Plan> {
    let text = format!(
        r#"
version: 1
name: sample
threads: {{ tokio: 1, torch: 1, decode: 1 }}
stages:
  - id: film
    kind: file
    with: {{ paths: ["{film}"], views: {{ frames: {{ fps: native, size: {size} }} }} }}
  - id: sampled
    kind: sample
    inputs: [film.frames]
    with: {{ every: 1 }}
  - id: nowhere
    kind: discard
    inputs: [sampled]
"#
    );
    let plan = check(
        &SourceText::new("sample", &text),
        KINDS,
        &Environment::new(),
        &Overrides::default(),
    );
    Arc::new(plan.unwrap_or_else(|problems| panic!("the pipeline is refused: {problems:?}")))
}

/// Frames that arrived, and the seconds from the first decoded frame, where `gst-launch-1.0` starts
/// its clock too, to the session's end.
async fn run(plan: Arc<Plan>) -> (u64, f64) {
    let deps = Arc::new(Deps {
        decode_threads: plan.threads.decode,
        ..Deps::default()
    });
    let mut running = Running::start(plan, &deps).expect("the stages build");
    let summary = running.wait().await.expect("the run ends");
    assert!(summary.errors.is_empty(), "{:?}", summary.errors);
    let session = &summary.sessions[0];
    let frames = &session.ledger["frames"];
    assert_eq!(frames.ingested, frames.delivered, "every frame arrives");
    (frames.delivered, session.elapsed.as_secs_f64())
}

fn main() {
    let film = report::film();
    media::init().expect("GStreamer is there");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime starts");
    runtime.block_on(async {
        Exporter::install(None).expect("the only recorder");
        for round in report::rounds() {
            for size in SIZES {
                let (frames, seconds) = run(plan(&film, size)).await;
                report::figure(
                    "sample",
                    &format!("frames_{size}"),
                    round,
                    frames as f64,
                    "frames",
                );
                report::figure(
                    "sample",
                    &format!("opusflow_{size}"),
                    round,
                    frames as f64 / seconds,
                    "frames/s",
                );
            }
        }
    });
}
