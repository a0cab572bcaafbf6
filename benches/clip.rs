//! CLIP ViT-B/32's image tower at its real size with random weights, from decoded frames of 640 x
//! 360 (the sample film's first) to vectors of length 1: seconds a call for 1 frame and for 8, in
//! f32 and in bf16, on two threads. Its peer is transformers' processor and model on the same
//! frames and weights (`benches/peers/clip.py`), which also compares the vectors.

mod report;

use std::path::Path;
use std::time::Instant;

use opusflow::media::{Options, View, init, open};
use opusflow::models::ModelFolder;
use opusflow::models::clip::Clip;
use opusflow::models::picture_encoder::PictureEncoder;
use opusflow::tensor::{Device, Precision, Tensor, frames_to_tensor, threads};

const BATCHES: [i64; 2] = [1, 8];
/// Calls that are timed, after two that are not; the median counts.
const CALLS: usize = 15;

/// Bytes `[8, 360, 640, 3]`: one frame in ten.
async fn frames(film: &str) -> Tensor {
    let options = Options {
        views: vec![View::native("frames").sized(640, 360)],
        ..Options::default()
    };
    let mut opened = open(film, &options).await.expect("the film opens");
    let mut frames = Vec::new();
    for number in 0..BATCHES[1] * 10 {
        let frame = opened.views[0]
            .next()
            .await
            .expect("the film is long enough")
            .frame;
        if number % 10 == 0 {
            frames.push(frame);
        }
    }
    opened.handle.stop().await;
    frames_to_tensor(&frames.iter().collect::<Vec<_>>(), Device::Cpu).expect("frames of one size")
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes)
        .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
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
    let frames = runtime.block_on(frames(&report::film()));
    let shared = report::shared()
        .expect("BENCH_SHARED names the folder that benches/peers/clip.py --make filled");
    let folder = ModelFolder::open(shared.join("clip"))
        .expect("benches/peers/clip.py --make wrote the model");
    write(
        &shared.join("frames.u8"),
        &Vec::<u8>::try_from(frames.flatten(0, -1)).expect("bytes"),
    );
    let models = [("f32", Precision::F32), ("bf16", Precision::BF16)].map(|(name, precision)| {
        (
            name,
            Clip::load(&folder, Device::Cpu, precision).expect("the model loads"),
        )
    });
    for round in report::rounds() {
        for (name, model) in &models {
            for batch in BATCHES {
                let frames = frames.narrow(0, 0, batch);
                let encode = || model.encode(&frames).expect("it runs").embedding;
                let vectors = Vec::<f32>::try_from(encode().flatten(0, -1)).expect("numbers");
                write(
                    &shared.join(format!("opusflow_{name}_{batch}.f32")),
                    &vectors
                        .into_iter()
                        .flat_map(f32::to_le_bytes)
                        .collect::<Vec<_>>(),
                );
                let _ = encode();
                let mut seconds: Vec<f64> = (0..CALLS)
                    .map(|_| {
                        let began = Instant::now();
                        let _ = std::hint::black_box(encode());
                        began.elapsed().as_secs_f64()
                    })
                    .collect();
                seconds.sort_by(f64::total_cmp);
                report::figure(
                    "clip",
                    &format!("opusflow_{name}_{batch}"),
                    round,
                    seconds[CALLS / 2],
                    "s",
                );
            }
        }
    }
}
