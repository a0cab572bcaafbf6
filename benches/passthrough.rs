//! Packets through a 5-stage pipeline that only passes them on (source, three transforms, sink), on
//! one thread, beside the same four hops over bare tokio channels. One JSON line a run, then one
//! with the medians and their ratio.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use opusflow::Result;
use opusflow::packet::{
    Frame, Packet, Payload, PayloadKind, PixelFormat, Span, Stream, TimeSource, now_micros,
};
use opusflow::pipeline::plan::{
    CachePlan, InputPlan, MemoryPlan, ObjectsPlan, StagePlan, TelemetryPlan, ThreadsPlan,
};
use opusflow::pipeline::{Plan, Running};
use opusflow::stage::{
    Build, Deps, Emitter, Endpoint, Host, Input, Joins, Lookahead, PacketDraft, QueueSettings,
    Retry, Sink, Source, StageKind, Transform, WhenFull,
};
use tokio_util::sync::CancellationToken;

const PACKETS: u64 = 1_000_000;
const ROUNDS: usize = 7;
const HOPS: usize = 4;
/// Room of every queue and channel.
const ROOM: usize = 256;

static PIXELS: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(vec![7; 640 * 360 * 3]));
static SEEN: AtomicU64 = AtomicU64::new(0);
/// Packets whose pixels lay elsewhere than at the source.
static COPIED: AtomicUsize = AtomicUsize::new(0);

fn frame(view: &Arc<str>, index: u64) -> Frame {
    let (view, pixels) = (Arc::clone(view), PIXELS.clone());
    Frame {
        view,
        index,
        width: 640,
        height: 360,
        stride: 1920,
        format: PixelFormat::Rgb8,
        pixels,
    }
}

fn stream() -> Stream {
    let (id, session) = ("bench".into(), "bench".into());
    Stream {
        id,
        labels: BTreeMap::new(),
        session,
        live: false,
        time_source: TimeSource::File,
    }
}

struct Frames;

#[async_trait]
impl Source for Frames {
    async fn run(&self, host: Arc<dyn Host>, _stop: CancellationToken) -> Result<()> {
        let feed = host.open(stream()).await?;
        let view: Arc<str> = "frames".into();
        let arrived = now_micros();
        feed.epoch(0, arrived).await;
        for index in 0..PACKETS {
            feed.frame(
                frame(&view, index),
                Span::new(index * 1000, index * 1000 + 1000),
                arrived,
            )
            .await;
        }
        feed.finish("end_of_stream".to_owned()).await;
        Ok(())
    }
}

struct Pass;

#[async_trait]
impl Transform for Pass {
    async fn process(&self, input: Input<'_>, out: &mut Emitter) -> Result<()> {
        out.emit(PacketDraft::new(input.payload, input.head.span));
        Ok(())
    }
}

struct Count;

#[async_trait]
impl Sink for Count {
    async fn deliver(&self, batch: &[Packet]) -> Vec<Result<()>> {
        for packet in batch {
            if let Payload::Frame(frame) = &packet.payload {
                count(frame);
            }
        }
        vec![Ok(()); batch.len()]
    }
}

fn count(frame: &Frame) {
    SEEN.fetch_add(1, Ordering::Relaxed);
    if frame.pixels.as_ptr() != PIXELS.as_ptr() {
        COPIED.fetch_add(1, Ordering::Relaxed);
    }
}

const FRAMES: &[PayloadKind] = &[PayloadKind::Frame];

const fn kind(name: &'static str, build: Build) -> StageKind {
    StageKind {
        name,
        doc: "",
        accepts: FRAMES,
        emits: FRAMES,
        params: &[],
        joins: Joins::AsWritten,
        endpoint: Endpoint::Other,
        lookahead: Lookahead::none,
        build,
    }
}

static SOURCE: StageKind = kind("frames", Build::Source(|_| Ok(Arc::new(Frames))));
static PASS: StageKind = kind("pass", Build::Stateless(|_| Ok(Arc::new(Pass))));
static COUNT: StageKind = kind("count", Build::Sink(|_| Ok(Arc::new(Count))));

fn stage(id: &str, kind: &'static StageKind, from: Option<(usize, Option<&str>)>) -> StagePlan {
    let queue = QueueSettings {
        frames: ROOM,
        bytes: usize::MAX / 2,
        when_full: WhenFull::Block,
        max_age: None,
    };
    let input = |(from, view): (usize, Option<&str>)| InputPlan {
        from,
        view: view.map(Arc::from),
        queue,
    };
    StagePlan {
        id: id.into(),
        kind,
        inputs: from.map(input).into_iter().collect(),
        join: None,
        concurrency: 64,
        timeout: None,
        retry: Retry {
            attempts: 1,
            backoff: Duration::ZERO,
        },
        dead_letter: None,
        required: true,
        params: Default::default(),
        parameters: [0; 16],
    }
}

fn plan() -> Arc<Plan> {
    Arc::new(Plan {
        name: "passthrough".into(),
        config_hash: "0".into(),
        kafka: None,
        cache: CachePlan {
            memory: 0,
            redis: None,
            ttl: Duration::ZERO,
            compress_over: 0,
        },
        objects: ObjectsPlan {
            store: "file:.".to_owned(),
            inline_max: 0,
            ttl: None,
        },
        threads: ThreadsPlan {
            tokio: 1,
            torch: 1,
            decode: 1,
            spin: false,
        },
        telemetry: TelemetryPlan {
            metrics: None,
            log: "warn".to_owned(),
        },
        shutdown: Duration::from_secs(30),
        progress: Duration::from_secs(1),
        models: BTreeMap::new(),
        absent: BTreeMap::new(),
        model_cache: ".".into(),
        memory: MemoryPlan {
            threshold: None,
            idle: Duration::from_secs(60),
        },
        stages: vec![
            stage("in", &SOURCE, None),
            stage("one", &PASS, Some((0, Some("frames")))),
            stage("two", &PASS, Some((1, None))),
            stage("three", &PASS, Some((2, None))),
            stage("out", &COUNT, Some((3, None))),
        ],
    })
}

async fn engine() {
    let mut running = Running::start(plan(), &Arc::new(Deps::default())).expect("the stages build");
    let summary = running.wait().await.expect("the run ends");
    assert_eq!(summary.sessions[0].ledger["frames"].delivered, PACKETS);
}

/// What a channel carries: a boxed frame with its span, about what a packet is.
type Item = Box<(Frame, Span)>;

async fn channels() {
    let (first, mut last) = tokio::sync::mpsc::channel::<Item>(ROOM);
    for _ in 1..HOPS {
        let (next, reader) = tokio::sync::mpsc::channel::<Item>(ROOM);
        let mut before = std::mem::replace(&mut last, reader);
        tokio::spawn(async move {
            while let Some(item) = before.recv().await {
                if next.send(item).await.is_err() {
                    return;
                }
            }
        });
    }
    tokio::spawn(async move {
        let view: Arc<str> = "frames".into();
        for index in 0..PACKETS {
            let item = Box::new((
                frame(&view, index),
                Span::new(index * 1000, index * 1000 + 1000),
            ));
            if first.send(item).await.is_err() {
                return;
            }
        }
    });
    while let Some(item) = last.recv().await {
        count(&item.0);
    }
}

/// Packets a second.
fn measure(name: &str, round: usize, work: impl Future<Output = ()>) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime starts");
    SEEN.store(0, Ordering::Relaxed);
    let began = Instant::now();
    runtime.block_on(work);
    let rate = PACKETS as f64 / began.elapsed().as_secs_f64();
    assert_eq!(
        (SEEN.load(Ordering::Relaxed), COPIED.load(Ordering::Relaxed)),
        (PACKETS, 0),
        "every packet arrives, none is copied"
    );
    println!(
        r#"{{"bench":"passthrough","what":"{name}","round":{round},"packets":{PACKETS},"packets_per_second":{rate:.0}}}"#
    );
    rate
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn main() {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        ours.push(measure("engine", round, engine()));
        theirs.push(measure("tokio_mpsc", round, channels()));
    }
    let (ours, theirs) = (median(ours), median(theirs));
    let ratio = ours / theirs;
    println!(
        r#"{{"bench":"passthrough","what":"median","stages":{},"payload_copies":0,"engine":{ours:.0},"tokio_mpsc":{theirs:.0},"ratio":{ratio:.3}}}"#,
        HOPS + 1
    );
}
