//! Stable Diffusion 1.5's networks at their real sizes, with random weights, on two threads:
//! seconds for the picture of 512 x 512 pixels of one latent, by its autoencoder and by the tiny
//! one, and for one guided step of its UNet, whose prompt was read before; and for a whole picture
//! of 128 x 128 by the small model in `ops/models/starter-diffusion`, from a prompt in eight guided
//! steps. Its peer is diffusers (`benches/peers/diffusion.py`), which makes networks and latents,
//! and compares what comes out.

mod report;

use std::path::Path;
use std::time::Instant;

use opusflow::models::diffusion::pipeline::{DiffusionOptions, DiffusionRequest, Pipeline, Start};
use opusflow::models::diffusion::unet::{Condition, UNet};
use opusflow::models::diffusion::{Autoencoder, VaeOptions};
use opusflow::models::{Config, ModelFolder, Weights};
use opusflow::tensor::{Device, Kind, Precision, Tensor, threads};

/// Calls that are timed, after one that is not; the median counts.
const CALLS: usize = 3;

fn main() {
    // On a thread of its own, as a worker has it: memory comes from another arena there.
    std::thread::spawn(measure)
        .join()
        .expect("it does not panic");
}

fn measure() {
    threads(2);
    let shared =
        report::shared().expect("`benches/run diffusion` runs this: its peer makes the networks");
    for round in report::rounds() {
        for (name, precision) in [("f32", Precision::F32), ("bf16", Precision::BF16)] {
            for network in ["vae", "taesd"] {
                let autoencoder = autoencoder(&shared.join(network), precision);
                let latents = numbers(&shared.join("latents.f32"), &[1, 4, 64, 64]);
                let call = || autoencoder.to_pictures(&latents).expect("it runs");
                let seconds = time(call, &shared.join(format!("opusflow_{network}_{name}.f32")));
                report::figure(
                    "diffusion",
                    &format!("opusflow_{network}_{name}"),
                    round,
                    seconds,
                    "s",
                );
            }
            let seconds = step(
                &shared,
                precision,
                &shared.join(format!("opusflow_unet_{name}.f32")),
            );
            report::figure(
                "diffusion",
                &format!("opusflow_unet_{name}"),
                round,
                seconds,
                "s",
            );
            let seconds = picture(
                precision,
                &shared.join(format!("opusflow_starter_{name}.f32")),
            );
            report::figure(
                "diffusion",
                &format!("opusflow_starter_{name}"),
                round,
                seconds,
                "s",
            );
        }
    }
}

/// Seconds of a step of the UNet: two latents of 64 x 64, two prompts of 77 tokens.
fn step(shared: &Path, precision: Precision, result: &Path) -> f64 {
    let folder = ModelFolder::open(shared.join("unet")).expect("the peer has written it");
    let unet = UNet::load(&folder, Device::Cpu, precision).expect("the network loads");
    let keys = unet
        .keys(&numbers(&shared.join("prompt.f32"), &[2, 77, 768]))
        .expect("it reads the prompt");
    let (latents, condition) = (
        numbers(&shared.join("noisy.f32"), &[2, 4, 64, 64]),
        Condition {
            keys,
            ..Condition::default()
        },
    );
    time(
        || unet.forward(&latents, 481., &condition).expect("it runs"),
        result,
    )
}

/// Seconds of a picture by the small model, each of another prompt and seed, which are the peer's.
fn picture(precision: Precision, result: &Path) -> f64 {
    let folder =
        ModelFolder::open("ops/models/starter-diffusion").expect("it comes with the source");
    let mut pipeline = Pipeline::load(&folder, Device::Cpu, precision, DiffusionOptions::default())
        .expect("the model loads");
    let mut seeds = 0..;
    let paint = || {
        let seed: u64 = seeds.next().expect("without end");
        let prompt = format!(
            "bright, green and blue, {}",
            ["wide", "close", "still", "moving"][seed as usize % 4]
        );
        let request = DiffusionRequest {
            prompt,
            negative_prompt: None,
            width: 128,
            height: 128,
            steps: 8,
            guidance: 3.,
            seed,
            start: Start::Noise,
        };
        let painted = pipeline
            .generate(&[&request], &|_| false)
            .expect("it runs")
            .remove(0);
        painted.expect("nothing cancels it").pixels
    };
    time(paint, result)
}

fn autoencoder(folder: &Path, precision: Precision) -> Autoencoder {
    let config = Config::read(&folder.join("config.json")).expect("the peer has written it");
    let weights = Weights::open(
        &[folder.join("diffusion_pytorch_model.safetensors")],
        Device::Cpu,
        precision,
    )
    .expect("as it has these");
    Autoencoder::build(weights, &config, VaeOptions::default()).expect("the network loads")
}

/// Little-endian f32 numbers of a file.
fn numbers(path: &Path, shape: &[i64]) -> Tensor {
    let bytes = std::fs::read(path)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    Tensor::f_from_data_size(&bytes, shape, Kind::Float).expect("as many numbers as the shape has")
}

/// Seconds that a call takes. What it gives is written to `result`, as f32 numbers.
fn time(mut call: impl FnMut() -> Tensor, result: &Path) -> f64 {
    let made = call().to_kind(Kind::Float).contiguous().flatten(0, -1);
    let bytes: Vec<u8> = Vec::<f32>::try_from(made)
        .expect("numbers")
        .into_iter()
        .flat_map(f32::to_le_bytes)
        .collect();
    std::fs::write(result, bytes)
        .unwrap_or_else(|error| panic!("cannot write {}: {error}", result.display()));
    let mut seconds: Vec<f64> = (0..CALLS)
        .map(|_| {
            let began = Instant::now();
            let _ = std::hint::black_box(call());
            began.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    seconds[CALLS / 2]
}
