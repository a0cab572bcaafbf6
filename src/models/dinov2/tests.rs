//! DINOv2 against transformers on weights by formula: `tests/golden/dinov2.py`.

use serde_json::json;

use super::*;
use crate::models::golden::{cosine, film, goldens, noise, relative_error, weights};

/// Architecture, what its config has besides, and the size of pictures.
fn network(name: &str) -> (&'static str, serde_json::Value, [i64; 2]) {
    match name {
        "plain" => ("Dinov2Model", json!({}), [28, 28]),
        "regrid" => ("Dinov2Model", json!({"qkv_bias": false}), [37, 50]),
        "gated" => (
            "Dinov2ForImageClassification",
            json!({"use_swiglu_ffn": true, "num_labels": 5}),
            [21, 28],
        ),
        "registers" => (
            "Dinov2WithRegistersModel",
            json!({"num_register_tokens": 3}),
            [42, 35],
        ),
        _ => (
            "Dinov2WithRegistersForImageClassification",
            json!({"num_register_tokens": 2, "num_labels": 5}),
            [28, 28],
        ),
    }
}

const ALL: [&str; 5] = ["plain", "regrid", "gated", "registers", "classes"];

fn open(name: &str, precision: Precision) -> (Dinov2, Tensor) {
    let (architecture, more, size) = network(name);
    let mut config = json!({
        "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 3, "mlp_ratio": 2, "image_size": 28, "patch_size": 7,
    });
    config
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let config = Dinov2Config::read(&Config::of(config), architecture).unwrap();
    let preprocess = ImageProcessor {
        resize: None,
        crop: Some(size),
        ..ImageProcessor::dinov2()
    };
    let frames = Tensor::cat(
        &[
            film(40, size[0], size[1]).narrow(0, 39, 1),
            noise("dinov2", &[1, size[0], size[1], 3]),
        ],
        0,
    );
    (
        Dinov2::build(weights("dinov2.json", name, precision), &config, preprocess).unwrap(),
        frames,
    )
}

/// What it gives, for `models::network_conformance`.
pub(in crate::models) fn outputs(precision: Precision) -> Vec<Tensor> {
    let (network, frames) = open("gated", precision);
    let found = network.encode(&frames).unwrap();
    vec![found.embedding, found.probabilities.unwrap()]
}

#[test]
fn every_kind_equals_the_reference_in_every_state() {
    let goldens = goldens("dinov2.safetensors");
    for name in ALL {
        let (network, frames) = open(name, Precision::F32);
        let golden = |what: &str| &goldens[&format!("{name}.{what}")];
        let first = network.vision.layers[0]
            .forward(&network.vision.patches.forward(&frames).unwrap(), false)
            .unwrap();
        let found = network.encode(&frames).unwrap();
        let states = network.vision.states(&frames).unwrap();
        let mut all = vec![
            (
                "after the first layer",
                first,
                golden("first").shallow_clone(),
            ),
            ("last", states, golden("last").shallow_clone()),
            (
                "embedding",
                found.embedding,
                golden("embedding").shallow_clone(),
            ),
        ];
        assert_eq!(
            found.probabilities.is_some(),
            matches!(name, "gated" | "classes")
        );
        all.extend(found.probabilities.map(|found| {
            (
                "probabilities",
                found,
                golden("probabilities").shallow_clone(),
            )
        }));
        for (what, found, expected) in all {
            let error = relative_error(&found, &expected);
            assert!(error < 1e-5, "{name}: {what}: {error}");
        }
    }
}

#[test]
fn halves_stay_near() {
    let goldens = goldens("dinov2.safetensors");
    for name in ALL {
        for precision in [Precision::BF16, Precision::F16] {
            let (network, frames) = open(name, precision);
            let similarity = cosine(
                &network.encode(&frames).unwrap().embedding,
                &goldens[&format!("{name}.embedding")],
            );
            assert!(similarity > 0.999, "{name} in {precision}: {similarity}");
        }
    }
}

#[test]
fn config_is_read_and_refused() {
    let read = |config, architecture| Dinov2Config::read(&Config::of(config), architecture);
    let base = read(json!({}), "Dinov2Model").unwrap();
    assert_eq!(
        (
            base.tower.width,
            base.tower.intermediate,
            base.patch,
            base.registers,
            base.classes
        ),
        (768, 3072, 14, None, None)
    );
    let giant = read(
        json!({"hidden_size": 1536, "num_attention_heads": 24, "use_swiglu_ffn": true}),
        "Dinov2WithRegistersModel",
    )
    .unwrap();
    assert_eq!((giant.tower.intermediate, giant.registers), (4096, Some(4)));
    assert_eq!(
        read(json!({}), "ViTModel").unwrap_err().kind(),
        crate::error::Kind::Config
    );
    for config in [
        json!({"patch_size": 0}),
        json!({"hidden_size": 7}),
        json!({"num_hidden_layers": 0}),
        json!({"num_labels": 0}),
    ] {
        assert!(
            read(config.clone(), "Dinov2ForImageClassification").is_err(),
            "{config}"
        );
    }
}
