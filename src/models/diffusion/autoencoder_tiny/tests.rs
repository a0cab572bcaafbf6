//! The tiny autoencoder against diffusers' on a small network: latents and pictures, whole and in
//! tiles.

use super::*;
use crate::models::diffusion::pixels::from_bytes;
use crate::models::golden::{cosine, goldens, noise, path, relative_error, weights};
use serde_json::{Value, json};
use tch::Kind;

fn network(memory: VaeOptions, precision: Precision) -> AutoencoderTiny {
    let text = std::fs::read_to_string(path("tests/golden/autoencoders-configs.json")).unwrap();
    let mut configs: Value = serde_json::from_str(&text).unwrap();
    let config = AutoencoderTinyConfig::read(&Config::of(configs["tiny"].take())).unwrap();
    AutoencoderTiny::build(
        weights("autoencoders.json", "tiny", precision),
        &config,
        memory,
    )
    .unwrap()
}

fn pictures(seed: &str, shape: [i64; 4]) -> Tensor {
    from_bytes(&noise(seed, &shape), Precision::F32).unwrap()
}

fn latents(seed: &str, shape: [i64; 4]) -> Tensor {
    noise(seed, &shape).to_kind(Kind::Float) / 64. - 2.
}

/// What it gives, for `models::network_conformance`.
pub(in crate::models) fn outputs(precision: Precision) -> Vec<Tensor> {
    let network = network(VaeOptions::default(), precision);
    let latents = latents("latents", [2, 4, 2, 3]) * 3.;
    vec![
        network.encode(&pictures("tiny", [2, 16, 24, 3])).unwrap(),
        network.decode(&latents).unwrap(),
    ]
}

#[test]
fn latents_and_pictures_are_those_of_diffusers() {
    let goldens = goldens("autoencoders.safetensors");
    let network = network(VaeOptions::default(), Precision::F32);
    let latents = latents("latents", [2, 4, 2, 3]) * 3.;
    let scaled = network.scale_latents(&latents).unwrap();
    let errors = [
        relative_error(
            &network.encode(&pictures("tiny", [2, 16, 24, 3])).unwrap(),
            &goldens["tiny.encoded"],
        ),
        relative_error(&network.decode(&latents).unwrap(), &goldens["tiny.decoded"]),
        relative_error(&scaled, &goldens["tiny.scaled"]),
        relative_error(
            &network.unscale_latents(&scaled).unwrap(),
            &latents.clamp(-3., 3.),
        ),
    ];
    assert!(errors.iter().all(|&error| error < 1e-5), "{errors:?}");
}

#[test]
fn tiles_are_those_of_diffusers() {
    let goldens = goldens("autoencoders.safetensors");
    let (pictures, latents) = (
        pictures("tiled", [1, 160, 136, 3]),
        latents("tiled", [1, 4, 20, 17]),
    );
    let network = AutoencoderTiny {
        tile: 128,
        ..network(
            VaeOptions {
                slicing: true,
                tiling: true,
            },
            Precision::F32,
        )
    };
    let decoded = network
        .decode(&latents)
        .unwrap()
        .slice(2, None, None, 9)
        .slice(3, None, None, 9);
    let errors = [
        relative_error(
            &network.encode(&pictures).unwrap(),
            &goldens["tiny.tiled.encoded"],
        ),
        relative_error(&decoded, &goldens["tiny.tiled.decoded"]),
    ];
    assert!(errors.iter().all(|&error| error < 1e-5), "{errors:?}");
    let error = network.encode(&pictures.narrow(2, 0, 130)).unwrap_err();
    assert!(error.message().contains("multiples of 8"), "{error}");
}

#[test]
fn a_picture_in_a_batch_is_as_alone() {
    let latents = latents("latents", [2, 4, 2, 3]);
    let [whole, sliced] = [false, true].map(|slicing| {
        network(
            VaeOptions {
                slicing,
                tiling: false,
            },
            Precision::F32,
        )
        .decode(&latents)
        .unwrap()
    });
    assert!(relative_error(&sliced, &whole) < 1e-6);
}

#[test]
fn halves_are_near() {
    let network = network(VaeOptions::default(), Precision::BF16);
    let decoded = network
        .decode(&(latents("latents", [2, 4, 2, 3]) * 3.))
        .unwrap();
    assert_eq!(decoded.kind(), Kind::BFloat16);
    let similar = cosine(
        &decoded.contiguous(),
        &goldens("autoencoders.safetensors")["tiny.decoded"],
    );
    assert!(similar > 0.99, "{similar}");
}

#[test]
fn what_does_not_fit_is_refused() {
    assert_eq!(
        AutoencoderTinyConfig::read(&Config::of(json!({}))).unwrap(),
        AutoencoderTinyConfig::default()
    );
    for (field, value) in [
        ("act_fn", json!("silu")),
        ("upsample_fn", json!("bilinear")),
        ("upsampling_scaling_factor", json!(4)),
        ("encoder_block_out_channels", json!([64, 64, 64, 32])),
        ("num_decoder_blocks", json!([3, 3, 1])),
        ("latent_magnitude", json!(0)),
    ] {
        assert!(
            AutoencoderTinyConfig::read(&Config::of(json!({field: value}))).is_err(),
            "{field}"
        );
    }
    let network = network(VaeOptions::default(), Precision::F32);
    for shape in [&[1, 3, 8, 8][..], &[4, 8, 8], &[0, 4, 8, 8]] {
        assert_eq!(
            network
                .decode(&Tensor::zeros(shape, (Kind::Float, Device::Cpu)))
                .unwrap_err()
                .kind(),
            crate::error::Kind::Model
        );
    }
}
