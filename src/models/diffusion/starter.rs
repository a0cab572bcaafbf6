//! The small diffusion model in ops/models/starter-diffusion, as it is shipped: what its card says
//! of it, held against the weights themselves.

use tch::{Device, Kind, Tensor};

use super::pipeline::{
    DiffusionOptions, DiffusionRequest, GeneratedPicture, Pipeline, Source, Start,
};
use super::pixels::{from_bytes, to_bytes};
use super::similarity::{LOOK, Luma};
use super::{Autoencoder, VaeOptions};
use crate::models::ModelFolder;
use crate::models::golden::{goldens, path, trained};
use crate::models::resnet::ResNet;
use crate::tensor::Precision;

const SIDE: i64 = 128;
const STEPS: usize = 8;
const GUIDANCE: f64 = 3.;

fn pipeline() -> Pipeline {
    Pipeline::load(
        &folder(),
        Device::Cpu,
        Precision::F32,
        DiffusionOptions::default(),
    )
    .unwrap()
}

fn folder() -> ModelFolder {
    ModelFolder::open(path("ops/models/starter-diffusion")).unwrap()
}

fn request(prompt: impl Into<String>, seed: u64) -> DiffusionRequest {
    let prompt = prompt.into();
    DiffusionRequest {
        prompt,
        negative_prompt: None,
        width: SIDE,
        height: SIDE,
        steps: STEPS,
        guidance: GUIDANCE,
        seed,
        start: Start::Noise,
    }
}

fn again(frame: &Tensor, strength: f64, request: DiffusionRequest) -> DiffusionRequest {
    DiffusionRequest {
        start: Start::Picture(Source {
            pixels: frame.shallow_clone(),
            strength,
            previous: None,
        }),
        ..request
    }
}

/// Pictures `[n, 128, 128, 3]`, sixteen at a time.
fn generate(pipeline: &mut Pipeline, requests: &[DiffusionRequest]) -> Tensor {
    let requests: Vec<&DiffusionRequest> = requests.iter().collect();
    let generate = |part: &[&DiffusionRequest]| pipeline.generate(part, &|_| false).unwrap();
    let painted: Vec<GeneratedPicture> = requests
        .chunks(16)
        .flat_map(generate)
        .map(Result::unwrap)
        .collect();
    Tensor::stack(
        &painted
            .into_iter()
            .map(|painting| painting.pixels)
            .collect::<Vec<_>>(),
        0,
    )
}

#[test]
fn its_pictures_are_those_of_diffusers() {
    let (golden, mut pipeline) = (goldens("starter.safetensors"), pipeline());
    let prompts = [
        "bright, green and blue, wide, still",
        "Very dark; a close photograph of a brown hare!",
    ];
    let painted = generate(
        &mut pipeline,
        &[request(prompts[0], 1), request(prompts[1], 2)],
    );
    let frame = |at| golden["frames"].get(at);
    let repainted = generate(
        &mut pipeline,
        &[
            again(&frame(0), 0.5, request(prompts[0], 3)),
            again(&frame(1), 0.5, request(prompts[1], 4)),
        ],
    );
    for (name, found) in [("painted", painted), ("repainted", repainted)] {
        let worst = (found.to_kind(Kind::Int) - golden[name].to_kind(Kind::Int))
            .abs()
            .max()
            .int64_value(&[]);
        assert!(worst <= 1, "{name}: {worst} levels");
    }
}

/// Of every colour `[n, 3]` the mean over a picture.
fn colours(pictures: &Tensor) -> Tensor {
    pictures
        .to_kind(Kind::Float)
        .mean_dim([1, 2].as_slice(), false, Kind::Float)
}

fn count(truths: &Tensor) -> i64 {
    truths.sum(Kind::Int64).int64_value(&[])
}

/// The pairs of ops/train/evaluate.py, and the distance of what is painted for them.
#[test]
fn it_follows_its_prompts_and_paints_pictures() {
    let scenes = [
        "wide",
        "close",
        "wide, still",
        "close, moving",
        "vivid",
        "pale",
        "vivid, wide",
        "still",
        "moving",
        "close, still",
    ];
    let mut pipeline = pipeline();
    let (mut dark, mut bright) = (Vec::new(), Vec::new());
    for (low, high) in [("very dark", "very bright"), ("dark", "bright")] {
        for colour in [
            "green",
            "blue",
            "brown",
            "green and yellow",
            "blue and white",
        ] {
            for scene in &scenes[..5] {
                let seed = dark.len() as u64;
                dark.push(request(format!("{low}, {colour}, {scene}"), seed));
                bright.push(request(format!("{high}, {colour}, {scene}"), seed));
            }
        }
    }
    let (dark, bright) = (
        generate(&mut pipeline, &dark),
        generate(&mut pipeline, &bright),
    );
    let luma = |pictures: &Tensor| {
        pictures
            .to_kind(Kind::Float)
            .mean_dim([1, 2, 3].as_slice(), false, Kind::Float)
    };
    let brighter = count(&luma(&bright).gt_tensor(&luma(&dark)));

    let (mut plain, mut asked, mut channels) = (Vec::new(), Vec::new(), Vec::new());
    for (from, to, channel) in [
        ("yellow and orange", "blue", 2),
        ("brown", "green", 1),
        ("purple", "green", 1),
        ("red", "blue", 2),
        ("orange", "cyan", 2),
    ] {
        for (at, scene) in scenes.iter().enumerate() {
            let (light, seed) = (["bright", "dark"][at % 2], plain.len() as u64);
            plain.push(request(format!("{scene}, {light}, {from}"), seed));
            asked.push(request(format!("{scene}, {light}, {to}"), seed));
            channels.push(channel);
        }
    }
    let channels = Tensor::from_slice(&channels).unsqueeze(1);
    let share = |pictures: &Tensor| {
        let colours = colours(pictures);
        colours.gather(1, &channels, false).squeeze_dim(1)
            / colours.sum_dim_intlist(1, false, Kind::Float)
    };
    let hues = count(
        &share(&generate(&mut pipeline, &asked))
            .gt_tensor(&share(&generate(&mut pipeline, &plain))),
    );
    assert!(
        brighter + hues >= 90,
        "{brighter} of 50 are brighter, {hues} of 50 have the hue"
    );

    let noise = Tensor::randint(256, [100, SIDE, SIDE, 3], (Kind::Uint8, Device::Cpu));
    let (painted, noise) = (distance(&Tensor::cat(&[dark, bright], 0)), distance(&noise));
    assert!(
        painted < noise / 2.,
        "{painted}, and noise is as near as {noise}"
    );
}

/// How far pictures are from frames of shots that no training has seen, in ResNet-18's features:
/// Heusel et al., "GANs Trained by a Two Time- Scale Update Rule Converge to a Local Nash
/// Equilibrium" (2017), with features taken to be independent of one another.
fn distance(pictures: &Tensor) -> f64 {
    let golden = goldens("starter.safetensors");
    let network = ResNet::load(&trained("resnet-18"), Device::Cpu, Precision::F32).unwrap();
    let features: Vec<Tensor> = pictures
        .split(20, 0)
        .iter()
        .map(|part| network.forward_resized(part).unwrap().embedding)
        .collect();
    let features = Tensor::cat(&features, 0);
    let (mean, deviation) = (
        features.mean_dim(0, false, Kind::Float),
        features.std_dim(0, true, false),
    );
    ((mean - &golden["mean"]).square() + (deviation - &golden["deviation"]).square())
        .sum(Kind::Float)
        .double_value(&[])
}

#[test]
fn little_strength_keeps_a_frame_and_much_leaves_it() {
    let (frames, mut pipeline) = (&goldens("starter.safetensors")["frames"], pipeline());
    let luma = |picture: &Tensor| Luma::of(picture, LOOK).unwrap();
    let mut kept = |strength| {
        let asked: Vec<DiffusionRequest> = (0..frames.size()[0])
            .map(|at| {
                again(
                    &frames.get(at),
                    strength,
                    request("bright, green", at as u64),
                )
            })
            .collect();
        let painted = generate(&mut pipeline, &asked);
        let similar = |at: i64| {
            luma(&frames.get(at))
                .similarity(&luma(&painted.get(at)))
                .unwrap()
        };
        (0..frames.size()[0]).map(similar).sum::<f64>() / asked.len() as f64
    };
    let (little, much) = (kept(0.4), kept(0.9));
    assert!(
        little > 0.5 && much < little - 0.15,
        "{little} at a strength of 0.4, {much} at 0.9"
    );
}

#[test]
fn its_autoencoder_restores_frames_that_it_has_not_seen() {
    let (frames, part) = (
        &goldens("starter.safetensors")["frames"],
        folder().part("vae").unwrap(),
    );
    let weights = part.weights(Device::Cpu, Precision::F32).unwrap();
    let autoencoder = Autoencoder::build(weights, part.config(), VaeOptions::default()).unwrap();
    let latents = autoencoder
        .to_latents(&from_bytes(frames, Precision::F32).unwrap(), &mut || {
            unreachable!("it draws nothing")
        })
        .unwrap();
    let restored = to_bytes(&autoencoder.to_pictures(&latents).unwrap()).unwrap();
    let error = (restored.to_kind(Kind::Float) - frames.to_kind(Kind::Float))
        .square()
        .mean_dim([1, 2, 3].as_slice(), false, Kind::Float);
    let psnr = (error / (255. * 255.)).log10() * -10.;
    assert!(psnr.mean(Kind::Float).double_value(&[]) > 25., "{psnr:?}");
}
