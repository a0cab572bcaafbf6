//! The network against transformers' in small: whole and step by step, and the texts that it
//! writes.

use super::*;
use crate::models::golden::{goldens, relative_error, scaled_weights};
use crate::models::text::golden::{self, Texts};
use serde_json::json;

fn config() -> Gpt2Config {
    Gpt2Config::read(&Config::of(
        json!({"n_embd": 48, "n_layer": 3, "n_head": 6, "n_inner": 112, "vocab_size": 160, "n_positions": 96, "activation_function": "gelu_new"}),
    ))
    .unwrap()
}

fn tiny(precision: Precision) -> Gpt2 {
    Gpt2::build(scaled_weights("gpt2.json", "tiny", precision, 3.), config()).unwrap()
}

fn tokens(tensor: &Tensor) -> Vec<i64> {
    Vec::try_from(tensor).unwrap()
}

/// What it gives, for `models::network_conformance`.
pub(in crate::models) fn outputs(precision: Precision) -> Vec<Tensor> {
    let network = tiny(precision);
    let (mut cache, first) = network
        .start(&[[3, 4, 5, 6].as_slice(), &[3, 4]], 2)
        .unwrap();
    vec![first, network.step(&mut cache, &[7, 8]).unwrap()]
}

#[test]
fn hidden_states_and_logits_are_those_of_transformers() {
    let (goldens, network) = (goldens("gpt2.safetensors"), tiny(Precision::F32));
    let text = tokens(&goldens["text"]);
    let mut cache = network.empty(40).unwrap();
    let hidden = network.pass(&mut cache, &text, 40).unwrap();
    // The last of transformers' hidden states is normalised.
    let error = relative_error(
        &network
            .last
            .forward(&hidden)
            .unwrap()
            .get(0)
            .narrow(0, 8, 32),
        &goldens["hidden"].get(2),
    );
    assert!(error < 1e-4, "{error}");
    let shallow = Gpt2 {
        layers: tiny(Precision::F32).layers.into_iter().take(1).collect(),
        ..tiny(Precision::F32)
    };
    let first = shallow
        .pass(&mut network.empty(40).unwrap(), &text, 40)
        .unwrap();
    let error = relative_error(&first.get(0).narrow(0, 8, 32), &goldens["hidden"].get(1));
    assert!(error < 1e-4, "after one layer: {error}");
    let error = relative_error(
        &network.logits(&hidden.get(0).narrow(0, 8, 32)).unwrap(),
        &goldens["logits"],
    );
    assert!(error < 1e-4, "{error}");
}

#[test]
fn rows_of_a_ragged_batch_yield_the_logits_of_each_alone() {
    let (goldens, network) = (goldens("gpt2.safetensors"), tiny(Precision::F32));
    let text = tokens(&goldens["text"]);
    let other: Vec<i64> = text.iter().rev().copied().collect();
    let expected = &goldens["logits"];
    for rows in [
        vec![&text[..9]],
        vec![&text[..9], &other[..30], &other[..2]],
        vec![&text[..9], &text[..12]],
    ] {
        let (mut cache, first) = network.start(&rows, 10).unwrap();
        assert!(relative_error(&first.get(0), &expected.get(0)) < 1e-4);
        for step in 0..20 {
            let logits = network
                .step(&mut cache, &vec![text[9 + step]; rows.len()])
                .unwrap();
            let error = relative_error(&logits.get(0), &expected.get(step as i64 + 1));
            assert!(error < 1e-4, "step {step} of {} rows: {error}", rows.len());
        }
    }
}

#[test]
fn searched_and_greedy_texts_are_those_of_transformers() {
    let (texts, network) = (
        Texts::of(&golden::read("gpt2-texts.json")),
        tiny(Precision::F32),
    );
    let writer = texts.writer();
    texts.hold(&|_, jobs| writer.write(&network, jobs, &|_| false).unwrap());
}

#[test]
fn what_would_be_computed_otherwise_is_refused() {
    let base = json!({"n_embd": 48, "n_layer": 3, "n_head": 6, "vocab_size": 160});
    for (key, value) in [
        ("n_head", json!(5)),
        ("scale_attn_weights", json!(false)),
        ("scale_attn_by_inverse_layer_idx", json!(true)),
        ("add_cross_attention", json!(true)),
        ("activation_function", json!("tanh")),
    ] {
        let mut config = base.clone();
        config[key] = value;
        let error = Gpt2Config::read(&Config::of(config)).unwrap_err();
        assert!(error.message().contains(key), "{error}");
    }
    assert_eq!(Gpt2Config::read(&Config::of(base)).unwrap().inner, 192);
}
