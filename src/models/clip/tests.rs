//! CLIP against transformers on weights by formula: `tests/golden/clip.py`.

use std::collections::BTreeMap;

use serde_json::json;
use tch::{Device, Kind, Tensor};

use super::*;
use crate::models::attention::AttentionKind;
use crate::models::config::Config;
use crate::models::golden::{cosine, goldens, relative_error, weights};
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
    ClipText::new(weights("clip.json", network, precision), &text_config(network), network == "text_projecting").unwrap()
}

fn golden_text(network: &str) -> BTreeMap<String, Tensor> {
    let named = |(key, tensor): (String, Tensor)| Some((key.strip_prefix(network)?.strip_prefix('.')?.to_owned(), tensor));
    goldens("clip.safetensors").into_iter().filter_map(named).collect()
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
        for (name, found) in [("last", Some(states.last)), ("pooled", Some(states.pooled)), ("projected", states.projected)] {
            assert_eq!(found.is_some(), golden.contains_key(name), "{network}: {name}");
            let error = found.map_or(0., |found| relative_error(&found, &golden[name]));
            assert!(error < 1e-5, "{network}: {name}: {error}");
        }
    }
}

#[test]
fn hidden_states_come_in_the_order_asked() {
    let (tower, golden) = (text("text_plain", Precision::F32), golden_text("text_plain"));
    let states = tower.forward(&golden["tokens"], &[2, 0]).unwrap().hidden;
    for (state, index) in states.iter().zip([2, 0]) {
        assert!(relative_error(state, &golden["hidden"].get(index)) < 1e-5);
    }
    let skipping = tower.final_norm(&tower.forward(&golden["tokens"], &[3]).unwrap().hidden[0]).unwrap();
    assert!(relative_error(&skipping, &golden["last"]) < 1e-5);
}

#[test]
fn the_text_tower_in_halves_stays_near() {
    let golden = golden_text("text_projecting");
    for precision in [Precision::BF16, Precision::F16] {
        let states = text("text_projecting", precision).forward(&golden["tokens"], &[]).unwrap();
        let similarity = cosine(&states.projected.unwrap(), &golden["projected"]);
        assert!(similarity > 0.999, "{precision}: {similarity}");
    }
}

#[test]
fn sliced_attention_reads_the_same_text() {
    let golden = golden_text("text_plain");
    let weights = weights("clip.json", "text_plain", Precision::F32).with_attention(AttentionKind::Sliced);
    let tower = ClipText::new(weights, &text_config("text_plain"), false).unwrap();
    let error = relative_error(&tower.forward(&golden["tokens"], &[]).unwrap().last, &golden["last"]);
    assert!(error < 1e-5, "{error}");
}

#[test]
fn what_is_no_text_is_refused() {
    let tower = text("text_plain", Precision::F32);
    let zeros = |shape: &[i64], kind| Tensor::zeros(shape, (kind, Device::Cpu));
    let long = zeros(&[1, 14], Kind::Int64);
    let unknown = zeros(&[2, 5], Kind::Int64) + 90;
    for tokens in [long, unknown, zeros(&[13], Kind::Int64), zeros(&[1, 5], Kind::Float), zeros(&[1, 0], Kind::Int64)] {
        assert_eq!(tower.forward(&tokens, &[]).unwrap_err().kind(), crate::error::Kind::Model, "{tokens:?}");
    }
    assert!(tower.forward(&zeros(&[1, 5], Kind::Int64), &[4]).is_err());
}

#[test]
fn text_configs_are_read_alone_and_within_a_whole_models() {
    assert_eq!(ClipTextConfig::read(&Config::of(json!({}))).unwrap(), ClipTextConfig::default());
    let whole = json!({"projection_dim": 8, "text_config": {"hidden_size": 16, "num_attention_heads": 2, "projection_dim": 512}});
    let read = ClipTextConfig::read(&Config::of(whole)).unwrap();
    assert_eq!((read.projection, read.tower.width, read.tower.layers, read.end), (8, 16, 12, Some(49407)));
    assert_eq!(ClipTextConfig::read(&Config::of(json!({"eos_token_id": 2}))).unwrap().end, None);
    for config in [json!({"hidden_size": 10}), json!({"vocab_size": 0}), json!({"hidden_act": "mish"}), json!({"text_config": 3})] {
        assert!(ClipTextConfig::read(&Config::of(config.clone())).is_err(), "{config}");
    }
}
