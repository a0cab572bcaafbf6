//! CLIP against transformers on weights by formula: `tests/golden/clip.py`.

use std::collections::BTreeMap;

use serde_json::json;
use tch::{Device, Kind, Tensor};

use super::*;
use crate::models::attention::AttentionKind;
use crate::models::config::Config;
use crate::models::golden::{cosine, film, goldens, path, relative_error, weights};
use crate::models::layers::Activation;
use crate::models::picture_encoder::Scoring;
use crate::tensor::Precision;

fn text_config(network: &str) -> ClipTextConfig {
    let mut config = json!({
        "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 3, "intermediate_size": 48, "vocab_size": 90,
        "max_position_embeddings": 13, "eos_token_id": 2,
    });
    if network == "text_projecting" {
        config["eos_token_id"] = json!(85);
        config["hidden_act"] = json!("gelu");
        config["projection_dim"] = json!(20);
    }
    ClipTextConfig::read(&Config::of(config)).unwrap()
}

fn text(network: &str, precision: Precision) -> ClipText {
    ClipText::build(
        weights("clip.json", network, precision),
        &text_config(network),
        network == "text_projecting",
    )
    .unwrap()
}

fn golden_text(network: &str) -> BTreeMap<String, Tensor> {
    let named = |(key, tensor): (String, Tensor)| {
        Some((
            key.strip_prefix(network)?.strip_prefix('.')?.to_owned(),
            tensor,
        ))
    };
    goldens("clip.safetensors")
        .into_iter()
        .filter_map(named)
        .collect()
}

#[test]
fn the_text_tower_equals_the_reference_in_every_state() {
    for network in ["text_plain", "text_projecting"] {
        let (tower, golden) = (text(network, Precision::F32), golden_text(network));
        let states = tower.forward(&golden["tokens"], &[0, 1, 2, 3]).unwrap();
        for (index, state) in states.hidden.iter().enumerate() {
            let error = relative_error(state, &golden["hidden"].get(index as i64));
            assert!(error < 1e-5, "{network}: hidden state {index}: {error}");
        }
        for (name, found) in [
            ("last", Some(states.last)),
            ("pooled", Some(states.pooled)),
            ("projected", states.projected),
        ] {
            assert_eq!(
                found.is_some(),
                golden.contains_key(name),
                "{network}: {name}"
            );
            let error = found.map_or(0., |found| relative_error(&found, &golden[name]));
            assert!(error < 1e-5, "{network}: {name}: {error}");
        }
    }
}

#[test]
fn hidden_states_come_in_the_order_asked() {
    let (tower, golden) = (
        text("text_plain", Precision::F32),
        golden_text("text_plain"),
    );
    let states = tower.forward(&golden["tokens"], &[2, 0]).unwrap().hidden;
    for (state, index) in states.iter().zip([2, 0]) {
        assert!(relative_error(state, &golden["hidden"].get(index)) < 1e-5);
    }
    let skipping = tower
        .final_norm(&tower.forward(&golden["tokens"], &[3]).unwrap().hidden[0])
        .unwrap();
    assert!(relative_error(&skipping, &golden["last"]) < 1e-5);
}

#[test]
fn the_text_tower_in_halves_stays_near() {
    let golden = golden_text("text_projecting");
    for precision in [Precision::BF16, Precision::F16] {
        let states = text("text_projecting", precision)
            .forward(&golden["tokens"], &[])
            .unwrap();
        let similarity = cosine(&states.projected.unwrap(), &golden["projected"]);
        assert!(similarity > 0.999, "{precision}: {similarity}");
    }
}

#[test]
fn sliced_attention_reads_the_same_text() {
    let golden = golden_text("text_plain");
    let weights =
        weights("clip.json", "text_plain", Precision::F32).with_attention(AttentionKind::Sliced);
    let tower = ClipText::build(weights, &text_config("text_plain"), false).unwrap();
    let error = relative_error(
        &tower.forward(&golden["tokens"], &[]).unwrap().last,
        &golden["last"],
    );
    assert!(error < 1e-5, "{error}");
}

#[test]
fn what_is_no_text_is_refused() {
    let tower = text("text_plain", Precision::F32);
    let zeros = |shape: &[i64], kind| Tensor::zeros(shape, (kind, Device::Cpu));
    let long = zeros(&[1, 14], Kind::Int64);
    let unknown = zeros(&[2, 5], Kind::Int64) + 90;
    for tokens in [
        long,
        unknown,
        zeros(&[13], Kind::Int64),
        zeros(&[1, 5], Kind::Float),
        zeros(&[1, 0], Kind::Int64),
    ] {
        assert_eq!(
            tower.forward(&tokens, &[]).unwrap_err().kind(),
            crate::error::Kind::Model,
            "{tokens:?}"
        );
    }
    assert!(tower.forward(&zeros(&[1, 5], Kind::Int64), &[4]).is_err());
}

#[test]
fn text_configs_are_read_alone_and_within_a_whole_models() {
    assert_eq!(
        ClipTextConfig::read(&Config::of(json!({}))).unwrap(),
        ClipTextConfig::default()
    );
    let whole = json!({"projection_dim": 8, "text_config": {"hidden_size": 16, "num_attention_heads": 2, "projection_dim": 512}});
    let read = ClipTextConfig::read(&Config::of(whole)).unwrap();
    assert_eq!(
        (
            read.projection,
            read.tower.width,
            read.tower.layers,
            read.end
        ),
        (8, 16, 12, Some(49407))
    );
    assert_eq!(
        ClipTextConfig::read(&Config::of(json!({"eos_token_id": 2})))
            .unwrap()
            .end,
        None
    );
    for config in [
        json!({"hidden_size": 10}),
        json!({"vocab_size": 0}),
        json!({"hidden_act": "mish"}),
        json!({"text_config": 3}),
    ] {
        assert!(
            ClipTextConfig::read(&Config::of(config.clone())).is_err(),
            "{config}"
        );
    }
}

fn vision_config() -> ClipVisionConfig {
    let vision = json!({"hidden_size": 48, "num_attention_heads": 4, "num_hidden_layers": 3, "intermediate_size": 48, "image_size": 32, "patch_size": 8});
    ClipVisionConfig::read(&Config::of(
        json!({"projection_dim": 20, "vision_config": vision}),
    ))
    .unwrap()
}

fn whole(precision: Precision) -> Clip {
    let text = text_config("text_projecting");
    let text = ClipTextConfig {
        tower: crate::models::transformer::TransformerConfig {
            activation: Activation::QuickGelu,
            ..text.tower
        },
        ..text
    };
    Clip::build(
        weights("clip.json", "whole", precision),
        &vision_config(),
        Some(&text),
        ImageProcessor::clip(32),
    )
    .unwrap()
}

/// What it gives, for `models::network_conformance`.
pub(in crate::models) fn outputs(precision: Precision) -> Vec<Tensor> {
    let clip = whole(precision);
    let texts = clip
        .text_vectors(&golden_text("text_projecting")["tokens"])
        .unwrap();
    vec![
        clip.encode(&film(40, 32, 32).narrow(0, 36, 3))
            .unwrap()
            .embedding,
        texts,
    ]
}

fn tiny() -> Clip {
    Clip::load(
        &ModelFolder::open(path("tests/golden/clip-tiny")).unwrap(),
        Device::Cpu,
        Precision::F32,
    )
    .unwrap()
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
    let (clip, golden) = (whole(Precision::F32), golden_text("whole"));
    let frames = film(40, 32, 32).narrow(0, 36, 3);
    let mut x = clip
        .vision
        .tower
        .pre_norm
        .as_ref()
        .unwrap()
        .forward(&clip.vision.tower.patches.forward(&frames).unwrap())
        .unwrap();
    for index in 0..3 {
        let error = relative_error(&x, &golden["hidden"].get(index));
        assert!(error < 1e-5, "hidden state {index}: {error}");
        // The last layer is not among them: of it only the first place is computed.
        x = clip
            .vision
            .tower
            .layers
            .get(index as usize)
            .map_or(x.shallow_clone(), |layer| layer.forward(&x, false).unwrap());
    }
    let error = relative_error(
        &clip.encode(&frames).unwrap().embedding,
        &golden["image_embeds"],
    );
    assert!(error < 1e-5, "embeddings: {error}");
}

#[test]
fn pictures_and_texts_meet_as_in_the_reference() {
    let (clip, golden) = (whole(Precision::F32), golden_text("whole"));
    let pictures = clip
        .encode(&film(40, 32, 32).narrow(0, 36, 3))
        .unwrap()
        .embedding;
    let texts = clip
        .text_vectors(&golden_text("text_projecting")["tokens"])
        .unwrap();
    assert!(relative_error(&texts, &golden["text_embeds"]) < 1e-5);
    let scoring = Scoring::Softmax {
        scale: clip.text.as_ref().unwrap().scale,
    };
    let error = relative_error(
        &scores(&pictures, &texts, scoring),
        &golden["probabilities"],
    );
    assert!(error < 1e-5, "{error}");
}

/// The tokenizer, the template, frames of another size: all as transformers' processor has it.
#[test]
fn a_folder_scores_labels_as_transformers_does() {
    let (clip, golden) = (tiny(), golden_text("tiny"));
    let frames = Tensor::cat(&[0, 38, 79].map(|at| film(80, 37, 61).narrow(0, at, 1)), 0);
    let pictures = clip.encode(&frames).unwrap().embedding;
    let error = relative_error(&pictures, &golden["image_embeds"]);
    assert!(error < 1e-4, "pictures: {error}");
    let panic = "Don't Panic, 42 times! ".repeat(5);
    let labels = ["a cat", "a bicycle in the rain", &panic, "naïve café"]
        .map(|label| format!("a photo of {label}"));
    let texts = clip.texts(&labels).unwrap();
    let error = relative_error(&texts.vectors, &golden["text_embeds"]);
    assert!(error < 1e-4, "texts: {error}");
    let found = scores(&pictures, &texts.vectors, texts.scoring);
    let error = relative_error(&found, &golden["probabilities"]);
    assert!(error < 1e-4, "{error}");
}

#[test]
fn many_labels_are_read_in_passes() {
    let clip = tiny();
    let labels: Vec<String> = (0..TEXTS_A_PASS + 3)
        .map(|number| {
            format!(
                "a photo of {}",
                ["cat", "a long street in the rain"][number % 2]
            )
        })
        .collect();
    let vectors = clip.texts(&labels).unwrap().vectors;
    assert_eq!(vectors.size(), [TEXTS_A_PASS as i64 + 3, 16]);
    for (row, alike) in [(2, 0), (TEXTS_A_PASS as i64 + 1, 1)] {
        assert!(
            vectors
                .get(row)
                .allclose(&vectors.get(alike), 1e-5, 1e-6, false),
            "{row}"
        );
    }
}

#[test]
fn pictures_alone_need_no_text_tower() {
    let folder = tempfile::tempdir().unwrap();
    let mut config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(path("tests/golden/clip-tiny/config.json")).unwrap())
            .unwrap();
    let vision = config["vision_config"].take();
    let vision =
        serde_json::Map::from_iter(vision.as_object().unwrap().clone().into_iter().chain([
            (
                "architectures".to_owned(),
                json!(["CLIPVisionModelWithProjection"]),
            ),
            ("projection_dim".to_owned(), json!(16)),
        ]));
    std::fs::write(
        folder.path().join("config.json"),
        serde_json::to_vec(&vision).unwrap(),
    )
    .unwrap();
    std::fs::copy(
        path("tests/golden/clip-tiny/preprocessor_config.json"),
        folder.path().join("preprocessor_config.json"),
    )
    .unwrap();
    let tensors =
        Tensor::read_safetensors(path("tests/golden/clip-tiny/model.safetensors")).unwrap();
    let tensors: Vec<_> = tensors
        .into_iter()
        .filter(|(key, _)| key.starts_with("vis"))
        .collect();
    Tensor::write_safetensors(&tensors, folder.path().join("model.safetensors")).unwrap();
    let alone = Clip::load(
        &ModelFolder::open(folder.path()).unwrap(),
        Device::Cpu,
        Precision::F32,
    )
    .unwrap();
    let frames = film(1, 37, 61);
    assert!(
        alone
            .encode(&frames)
            .unwrap()
            .embedding
            .equal(&tiny().encode(&frames).unwrap().embedding)
    );
    assert_eq!(
        alone.texts(&["a cat".to_owned()]).unwrap_err().kind(),
        crate::error::Kind::Config
    );
}

#[test]
fn pictures_that_do_not_fit_the_positions_are_refused() {
    let fitting = |preprocess| {
        Clip::build(
            weights("clip.json", "whole", Precision::F32),
            &vision_config(),
            None,
            preprocess,
        )
    };
    let error = fitting(ImageProcessor::clip(48)).unwrap_err();
    assert!(
        error
            .message()
            .contains("48x48 pixels have 36 patches of 8x8, the network has 16 positions"),
        "{error}"
    );
    let error = fitting(ImageProcessor::clip(32)).unwrap_err();
    assert!(
        error.message().contains("surplus") && error.message().contains("logit_scale"),
        "{error}"
    );
}
