//! The networks of pictures held against the reference implementations: goldens of `tests/golden/`,
//! beside the scripts that made them. Weights and pictures come by the formulas of
//! `tests/golden/formula.py`, or from the folders that ops/setup fills.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tch::{Device, Kind, Tensor};

use super::opus_encoder::{OpusEncoder, OpusEncoderConfig};
use super::resnet::{LayerType, ResNet, ResNetConfig};
use super::transnetv2::{TransNetV2, Windows, predictions_to_scenes};
use super::{ModelFolder, Weights};
use crate::tensor::Precision;

pub(super) fn path(parts: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(parts)
}

/// A trained model's folder. A test that cannot find it fails: it must not pass by looking away.
pub(super) fn trained(name: &str) -> ModelFolder {
    ModelFolder::open(path("models").join(name))
        .unwrap_or_else(|error| panic!("{error}; run ops/setup"))
}

pub(super) fn goldens(name: &str) -> BTreeMap<String, Tensor> {
    Tensor::read_safetensors(path("tests/golden").join(name))
        .unwrap()
        .into_iter()
        .collect()
}

/// As `formula.mixed`.
pub(super) fn mixed(seed: &str, count: usize) -> impl Iterator<Item = u32> {
    let start = seed.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    (0..count as u32).map(move |index| {
        let mut x = index.wrapping_add(start);
        x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
        x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
        x ^ (x >> 16)
    })
}

/// As `formula.weight`.
pub(super) fn weight(key: &str, shape: &[i64]) -> Tensor {
    let fan_in: i64 = shape.iter().skip(1).product();
    let (base, span) = match () {
        () if shape.len() > 1 => (0., (6. / fan_in as f64).sqrt() as f32),
        () if key.ends_with("running_var") => (1., 0.5),
        () if key.ends_with("weight") => (1., 0.25),
        () => (0., 0.125),
    };
    let unit = |bits: u32| (bits >> 8) as f32 / 8_388_608. - 1.;
    let values: Vec<f32> = mixed(key, shape.iter().product::<i64>() as usize)
        .map(|bits| base + unit(bits) * span)
        .collect();
    Tensor::from_slice(&values).view(shape)
}

/// The weights by formula of a network that `tests/golden/<file>` lists the keys of.
pub(super) fn weights(file: &str, network: &str, precision: Precision) -> Weights {
    scaled_weights(file, network, precision, 1.)
}

/// The same, those of more than one dimension times `scale`.
pub(super) fn scaled_weights(
    file: &str,
    network: &str,
    precision: Precision,
    scale: f64,
) -> Weights {
    let text = std::fs::read_to_string(path("tests/golden").join(file)).unwrap();
    let keys: BTreeMap<String, BTreeMap<String, Vec<i64>>> = serde_json::from_str(&text).unwrap();
    let scaled =
        |key: &str, shape: &[i64]| weight(key, shape) * if shape.len() > 1 { scale } else { 1. };
    let tensors: Vec<(&String, Tensor)> = keys[network]
        .iter()
        .map(|(key, shape)| (key, scaled(key, shape)))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    Tensor::write_safetensors(&tensors, &file).unwrap();
    // The file stays readable through its open handle when the folder goes.
    Weights::open(&[file], Device::Cpu, precision).unwrap()
}

/// As `formula.noise`.
pub(super) fn noise(seed: &str, shape: &[i64]) -> Tensor {
    let bytes: Vec<u8> = mixed(seed, shape.iter().product::<i64>() as usize)
        .map(|bits| (bits >> 24) as u8)
        .collect();
    Tensor::from_slice(&bytes).view(shape)
}

/// As `formula.film`.
pub(super) fn film(frames: i64, height: i64, width: i64) -> Tensor {
    let mut noise = mixed("film", (frames * height * width * 3) as usize);
    let mut bytes = Vec::new();
    for t in 0..frames {
        let scene = t / 37;
        for y in 0..height {
            for at in 0..width * 3 {
                let (x, c) = (at / 3, at % 3);
                let stripes = (x * (3 + 5 * scene)
                    + y * (7 * scene + 2)
                    + t * (scene % 3 + 1)
                    + c * (60 + 40 * scene))
                    % 256;
                let grain = i64::from(noise.next().unwrap() >> 24);
                bytes.push(((stripes * 15 + grain) / 16) as u8);
            }
        }
    }
    Tensor::from_slice(&bytes).view([frames, height, width, 3])
}

pub(super) fn relative_error(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.size(), expected.size());
    let (found, expected) = (found.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    (found - &expected).norm().double_value(&[]) / expected.norm().double_value(&[])
}

pub(super) fn cosine(found: &Tensor, expected: &Tensor) -> f64 {
    let (found, expected) = (
        found.to_kind(Kind::Double).reshape(-1),
        expected.to_kind(Kind::Double).reshape(-1),
    );
    found.dot(&expected).double_value(&[]) / (found.norm() * expected.norm()).double_value(&[])
}

fn clips(name: &str, shape: &[i64]) -> Tensor {
    let clips = noise(name, shape);
    let _ = clips.get(1).floor_divide_scalar_(3);
    clips
}

fn small_encoder() -> OpusEncoderConfig {
    OpusEncoderConfig {
        channels: vec![8, 16, 24],
        kernels: vec![5, 3, 3],
        heads: 3,
        layers: 2,
        intermediate: 40,
        output: 20,
    }
}

#[test]
fn opus_encoder_equals_the_reference_in_small() {
    let encoder = OpusEncoder::build(
        weights("opus_encoder.json", "small", Precision::F32),
        &small_encoder(),
    )
    .unwrap();
    let clips = clips("small", &[2, 5, 64, 96, 3]);
    let expected = &goldens("opus_encoder.safetensors")["small"];
    let error = relative_error(&encoder.forward(&clips).unwrap(), expected);
    assert!(error < 1e-5, "{error}");
    let numbers = clips.permute([0, 1, 4, 2, 3]).to_kind(Kind::Float) / 255.;
    let error = relative_error(&encoder.forward(&numbers).unwrap(), expected);
    assert!(
        error < 1e-5,
        "planes of numbers are the same clips: {error}"
    );
}

#[test]
fn opus_encoder_equals_the_reference_in_full() {
    let expected = &goldens("opus_encoder.safetensors")["full"];
    let clips = clips("full", &[2, 6, 224, 224, 3]);
    let encode = |precision| {
        let encoder = OpusEncoder::build(
            weights("opus_encoder.json", "full", precision),
            &OpusEncoderConfig::default(),
        )
        .unwrap();
        encoder.forward(&clips).unwrap()
    };
    let error = relative_error(&encode(Precision::F32), expected);
    assert!(error < 1e-4, "f32: {error}");
    let similarity = cosine(&encode(Precision::BF16), expected);
    assert!(similarity > 0.999, "bf16: {similarity}");
}

#[test]
fn opus_encoder_refuses_what_is_no_clip() {
    let encoder = OpusEncoder::build(
        weights("opus_encoder.json", "small", Precision::F32),
        &small_encoder(),
    )
    .unwrap();
    for shape in [
        &[2, 64, 96, 3][..],
        &[1, 2, 3, 64, 96],
        &[1, 0, 64, 96, 3],
        &[1, 1, 2, 2, 3],
    ] {
        let error = encoder
            .forward(&Tensor::zeros(shape, (Kind::Uint8, Device::Cpu)))
            .unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Model, "{shape:?}");
    }
}

#[test]
fn opus_encoder_refuses_weights_of_another_size() {
    let config = OpusEncoderConfig {
        layers: 3,
        ..small_encoder()
    };
    let error = OpusEncoder::build(
        weights("opus_encoder.json", "small", Precision::F32),
        &config,
    )
    .unwrap_err();
    assert!(
        error
            .message()
            .contains("missing 12: transformer.layers.2."),
        "{error}"
    );
}

#[test]
fn resnet_equals_the_reference_on_trained_weights() {
    let goldens = goldens("resnet.safetensors");
    let pictures = Tensor::cat(
        &[
            film(40, 224, 224).narrow(0, 39, 1),
            noise("picture", &[1, 224, 224, 3]),
        ],
        0,
    );
    let folder = trained("resnet-18");
    let network = ResNet::load(&folder, Device::Cpu, Precision::F32).unwrap();
    let features = network.forward(&pictures).unwrap();
    let errors = [
        relative_error(&features.embedding, &goldens["resnet18.embedding"]),
        relative_error(
            features.probabilities.as_ref().unwrap(),
            &goldens["resnet18.probabilities"],
        ),
    ];
    assert!(errors.iter().all(|&error| error < 1e-4), "{errors:?}");
    assert_eq!((network.dim(), network.labels().len()), (512, 1000));
    let network = ResNet::load(&folder, Device::Cpu, Precision::BF16).unwrap();
    let similarity = cosine(
        &network.forward(&pictures).unwrap().embedding,
        &goldens["resnet18.embedding"],
    );
    assert!(similarity > 0.999, "bf16: {similarity}");
}

#[test]
fn resnet_of_bottlenecks_equals_the_reference() {
    let goldens = goldens("resnet.safetensors");
    let (depths, hidden_sizes) = (vec![1, 2, 1, 1], vec![256, 512, 1024, 2048]);
    let config = ResNetConfig {
        depths,
        hidden_sizes,
        layer_type: LayerType::Bottleneck,
        embedding_size: 64,
        num_labels: 10,
    };
    let network = ResNet::build(
        weights("resnet.json", "bottleneck", Precision::F32),
        &config,
    )
    .unwrap();
    let features = network.forward(&noise("tiny", &[2, 64, 96, 3])).unwrap();
    let errors = [
        relative_error(&features.embedding, &goldens["bottleneck.embedding"]),
        relative_error(
            features.probabilities.as_ref().unwrap(),
            &goldens["bottleneck.probabilities"],
        ),
    ];
    assert!(errors.iter().all(|&error| error < 1e-4), "{errors:?}");
}

#[test]
fn resnet_scales_frames_of_another_size() {
    let network = ResNet::load(&trained("resnet-18"), Device::Cpu, Precision::F32).unwrap();
    let frames = film(1, 224, 224);
    let (plain, resized) = (
        network.forward(&frames).unwrap(),
        network.forward_resized(&frames).unwrap(),
    );
    assert!(relative_error(&resized.embedding, &plain.embedding) < 1e-6);
    let wide = network.forward_resized(&film(1, 120, 300)).unwrap();
    assert_eq!(wide.embedding.size(), [1, 512]);
}

/// Asks `network` about a film as a stream: frame by frame, `batch` windows at once.
fn stream(network: &TransNetV2, film: &Tensor, batch: usize) -> (Vec<f32>, Vec<f32>) {
    let mut windows = Windows::new();
    let mut ready: Vec<_> = (0..film.size()[0])
        .filter_map(|frame| windows.push(frame))
        .collect();
    ready.extend(windows.finish());
    let (mut single, mut all) = (Vec::new(), Vec::new());
    for part in ready.chunks(batch) {
        let picked: Vec<Tensor> = part
            .iter()
            .map(|window| film.index_select(0, &Tensor::from_slice(&window.frames)))
            .collect();
        for (window, found) in part
            .iter()
            .zip(network.predict(&Tensor::stack(&picked, 0)).unwrap())
        {
            single.extend_from_slice(&found.single[window.answers()]);
            all.extend_from_slice(&found.all[window.answers()]);
        }
    }
    (single, all)
}

fn largest_difference(found: &[f32], expected: &Tensor) -> f32 {
    let expected: Vec<f32> = Vec::try_from(expected).unwrap();
    assert_eq!(found.len(), expected.len());
    found
        .iter()
        .zip(&expected)
        .map(|(a, b)| (a - b).abs())
        .fold(0., f32::max)
}

#[test]
fn transnetv2_equals_the_reference_on_trained_weights() {
    let goldens = goldens("transnetv2.safetensors");
    let network = TransNetV2::load(&trained("transnetv2"), Device::Cpu, Precision::F32).unwrap();
    let film = film(160, 27, 48);
    let logits = network
        .forward(&film.narrow(0, 0, 100).unsqueeze(0))
        .unwrap();
    let errors = [
        relative_error(&logits.single, &goldens["window.single"]),
        relative_error(&logits.all, &goldens["window.all"]),
    ];
    assert!(errors.iter().all(|&error| error < 1e-4), "{errors:?}");
    let expected = predictions_to_scenes(
        &Vec::<f32>::try_from(&goldens["drawn.single"]).unwrap(),
        0.5,
    );
    assert_eq!(
        expected.len(),
        5,
        "the drawn film has a cut every 37 frames"
    );
    for batch in [1, 3] {
        let (single, all) = stream(&network, &film, batch);
        let differences = [
            largest_difference(&single, &goldens["drawn.single"]),
            largest_difference(&all, &goldens["drawn.all"]),
        ];
        assert!(
            differences.iter().all(|&difference| difference < 1e-4),
            "{differences:?}"
        );
        assert_eq!(predictions_to_scenes(&single, 0.5), expected);
    }
}

#[test]
fn transnetv2_in_bf16_cuts_where_the_reference_does() {
    let goldens = goldens("transnetv2.safetensors");
    let network = TransNetV2::load(&trained("transnetv2"), Device::Cpu, Precision::BF16).unwrap();
    let (single, _) = stream(&network, &film(160, 27, 48), 2);
    let expected: Vec<f32> = Vec::try_from(&goldens["drawn.single"]).unwrap();
    assert_eq!(
        predictions_to_scenes(&single, 0.5),
        predictions_to_scenes(&expected, 0.5)
    );
    let difference = largest_difference(&single, &goldens["drawn.single"]);
    assert!(difference < 0.05, "{difference}");
}

#[test]
fn transnetv2_refuses_what_is_no_window() {
    let network = TransNetV2::load(&trained("transnetv2"), Device::Cpu, Precision::F32).unwrap();
    for (shape, kind) in [
        (&[100, 27, 48, 3][..], Kind::Uint8),
        (&[1, 100, 48, 27, 3], Kind::Uint8),
        (&[1, 4, 27, 48, 3], Kind::Float),
    ] {
        assert_eq!(
            network
                .forward(&Tensor::zeros(shape, (kind, Device::Cpu)))
                .unwrap_err()
                .kind(),
            crate::error::Kind::Model
        );
    }
}
