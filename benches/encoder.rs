//! The seed's video encoder over 8 clips of 30 frames of 224 x 224 (the sample film's first 240):
//! seconds a call, in f32 and in bf16, on two threads, from bytes to vectors. Its peer is the same
//! module in PyTorch (`benches/peers/encoder.py`), which also compares the vectors.

mod report;

use std::path::Path;
use std::time::Instant;

use opusflow::media::{Options, View, init, open};
use opusflow::models::ModelFolder;
use opusflow::models::opus_encoder::OpusEncoder;
use opusflow::tensor::{Device, Kind, Precision, Tensor, frames_to_tensor, threads};

const CLIPS: i64 = 8;
const FRAMES: i64 = 30;
const SIDE: u32 = 224;
/// Calls that are timed, after one that is not; the median counts.
const CALLS: usize = 3;

/// Bytes `[8, 30, 224, 224, 3]`.
async fn clips(film: &str) -> Tensor {
    let options = Options {
        views: vec![View::native("clips").sized(SIDE, SIDE)],
        ..Options::default()
    };
    let mut opened = open(film, &options).await.expect("the film opens");
    let mut frames = Vec::new();
    while (frames.len() as i64) < CLIPS * FRAMES {
        frames.push(
            opened.views[0]
                .next()
                .await
                .expect("the film is long enough")
                .frame,
        );
    }
    opened.handle.stop().await;
    let frames = frames_to_tensor(&frames.iter().collect::<Vec<_>>(), Device::Cpu)
        .expect("frames of one size");
    frames.view([CLIPS, FRAMES, i64::from(SIDE), i64::from(SIDE), 3])
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes)
        .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
}

fn bytes_of(tensor: &Tensor) -> Vec<u8> {
    if tensor.kind() == Kind::Uint8 {
        return Vec::try_from(tensor.flatten(0, -1)).expect("bytes");
    }
    Vec::<f32>::try_from(tensor.flatten(0, -1))
        .expect("numbers")
        .into_iter()
        .flat_map(f32::to_le_bytes)
        .collect()
}

fn main() {
    // On a thread of its own, as a worker has it: memory comes from another arena there.
    std::thread::spawn(measure)
        .join()
        .expect("it does not panic");
}

fn measure() {
    init().expect("GStreamer is there");
    threads(2);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts");
    let clips = runtime.block_on(clips(&report::film()));
    let folder = ModelFolder::open("models/opus-encoder").expect("ops/setup makes the model");
    let models = [("f32", Precision::F32), ("bf16", Precision::BF16)].map(|(name, precision)| {
        (
            name,
            OpusEncoder::load(&folder, Device::Cpu, precision).expect("the model loads"),
        )
    });
    let shared = report::shared();
    if let Some(shared) = &shared {
        write(&shared.join("clips.u8"), &bytes_of(&clips));
    }
    for round in report::rounds() {
        for (name, model) in &models {
            let vectors = model.forward(&clips).expect("it runs");
            if let Some(shared) = &shared {
                write(
                    &shared.join(format!("opusflow_{name}.f32")),
                    &bytes_of(&vectors),
                );
            }
            let mut seconds: Vec<f64> = (0..CALLS)
                .map(|_| {
                    let began = Instant::now();
                    let _ = std::hint::black_box(model.forward(&clips).expect("it runs"));
                    began.elapsed().as_secs_f64()
                })
                .collect();
            seconds.sort_by(f64::total_cmp);
            report::figure(
                "encoder",
                &format!("opusflow_{name}"),
                round,
                seconds[CALLS / 2],
                "s",
            );
        }
    }
}
