//! SigLIP against transformers on weights by formula, and a small whole folder:
//! `tests/golden/siglip.py`.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::models::golden::{film, goldens, path, relative_error, weights};

fn config() -> Config {
    let tower = json!({"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 48});
    let with = |more: serde_json::Value| {
        let (mut tower, more) = (
            tower.as_object().unwrap().clone(),
            more.as_object().unwrap().clone(),
        );
        tower.extend(more);
        tower
    };
    let text = with(
        json!({"hidden_size": 40, "vocab_size": 90, "max_position_embeddings": 11, "projection_size": 32}),
    );
    Config::of(
        json!({"text_config": text, "vision_config": with(json!({"image_size": 34, "patch_size": 8}))}),
    )
}

fn whole(precision: Precision) -> Siglip {
    let config = SiglipConfig::read(&config()).unwrap();
    Siglip::build(
        weights("siglip.json", "whole", precision),
        &config,
        ImageProcessor::siglip(34),
    )
    .unwrap()
}

fn golden(network: &str) -> BTreeMap<String, Tensor> {
    let named = |(key, tensor): (String, Tensor)| {
        Some((
            key.strip_prefix(network)?.strip_prefix('.')?.to_owned(),
            tensor,
        ))
    };
    goldens("siglip.safetensors")
        .into_iter()
        .filter_map(named)
        .collect()
}

fn frames() -> Tensor {
    film(40, 34, 34).narrow(0, 36, 3)
}

/// What it gives, for `models::network_conformance`.
pub(in crate::models) fn outputs(precision: Precision) -> Vec<Tensor> {
    let network = whole(precision);
    vec![
        network.encode(&frames()).unwrap().embedding,
        network.text_vectors(&golden("whole")["tokens"]).unwrap(),
    ]
}

fn scores(pictures: &Tensor, texts: &Tensor, scoring: Scoring) -> Tensor {
    let cosines = Vec::<Vec<f32>>::try_from(pictures.matmul(&texts.tr())).unwrap();
    let rows: Vec<f32> = cosines
        .iter()
        .flat_map(|cosines| scoring.scores(cosines))
        .collect();
    Tensor::from_slice(&rows).view([cosines.len() as i64, -1])
}

#[test]
fn the_image_tower_equals_the_reference_in_every_state() {
    let (network, golden) = (whole(Precision::F32), golden("whole"));
    let mut x = network.vision.patches.forward(&frames()).unwrap();
    for (index, layer) in network.vision.layers.iter().enumerate() {
        let error = relative_error(&x, &golden["hidden"].get(index as i64));
        assert!(error < 1e-5, "hidden state {index}: {error}");
        x = layer.forward(&x, false).unwrap();
    }
    let error = relative_error(
        &network.vision.final_norm.forward(&x).unwrap(),
        &golden["last"],
    );
    assert!(error < 1e-5, "last: {error}");
    let error = relative_error(&network.pooled(&frames()).unwrap(), &golden["pooled"]);
    assert!(error < 1e-5, "pooled: {error}");
}

#[test]
fn pictures_and_texts_meet_as_in_the_reference() {
    let (network, golden) = (whole(Precision::F32), golden("whole"));
    let (pictures, texts) = (
        network.encode(&frames()).unwrap().embedding,
        network.text_vectors(&golden["tokens"]).unwrap(),
    );
    let found = scores(&pictures, &texts, network.scoring);
    for (name, found) in [
        ("image_embeds", &pictures),
        ("text_embeds", &texts),
        ("probabilities", &found),
    ] {
        let error = relative_error(found, &golden[name]);
        assert!(error < 1e-5, "{name}: {error}");
    }
}

/// The tokenizer with its filling up, frames of another size: all as transformers' processor has
/// it.
#[test]
fn a_folder_scores_labels_as_transformers_does() {
    let network = Siglip::load(
        &ModelFolder::open(path("tests/golden/siglip-tiny")).unwrap(),
        Device::Cpu,
        Precision::F32,
    )
    .unwrap();
    let golden = golden("tiny");
    let pictures = network
        .encode(&Tensor::cat(
            &[0, 38, 79].map(|at| film(80, 37, 61).narrow(0, at, 1)),
            0,
        ))
        .unwrap()
        .embedding;
    let panic = "Don't Panic, 42 times! ".repeat(5);
    let labels = ["a cat", "a bicycle in the rain", &panic, "a street"]
        .map(|label| format!("{label}: Photo"));
    let texts = network.texts(&labels).unwrap();
    let found = scores(&pictures, &texts.vectors, texts.scoring);
    for (name, found) in [
        ("image_embeds", &pictures),
        ("text_embeds", &texts.vectors),
        ("probabilities", &found),
    ] {
        let error = relative_error(found, &golden[name]);
        assert!(error < 1e-4, "{name}: {error}");
    }
}

#[test]
fn what_is_no_text_is_refused() {
    let network = whole(Precision::F32);
    let zeros = |shape: &[i64], kind| Tensor::zeros(shape, (kind, Device::Cpu));
    for tokens in [
        zeros(&[1, 10], Kind::Int64),
        zeros(&[1, 11], Kind::Int64) + 90,
        zeros(&[1, 11], Kind::Int64) - 1,
        zeros(&[1, 11], Kind::Int),
    ] {
        assert_eq!(
            network.text_vectors(&tokens).unwrap_err().kind(),
            crate::error::Kind::Model,
            "{tokens:?}"
        );
    }
    let error = network.texts(&["a cat".to_owned()]).err().unwrap();
    assert!(error.message().contains("no tokenizer.json"), "{error}");
}

#[test]
fn config_is_read_and_refused() {
    assert_eq!(
        SiglipConfig::read(&Config::of(json!({}))).unwrap(),
        SiglipConfig::default()
    );
    for config in [
        json!({"vision_config": {"vision_use_head": false}}),
        json!({"text_config": {"projection_size": 512}}),
        json!({"vision_config": {"patch_size": 0}}),
        json!({"text_config": {"num_hidden_layers": 0}}),
    ] {
        assert!(
            SiglipConfig::read(&Config::of(config.clone())).is_err(),
            "{config}"
        );
    }
}
