//! The network against transformers' on small random models, whole and step by step, alone and in
//! ragged batches.

use super::*;
use crate::models::decoder::Cache as _;
use crate::models::golden::path;
use crate::models::text::golden::{self, Texts};

/// The folders of the family's members: some have biases, normed heads or an output of its own.
const MEMBERS: [&str; 5] = [
    "llama-tiny",
    "llama-biased-tiny",
    "mistral-tiny",
    "qwen2-tiny",
    "qwen3-tiny",
];

fn goldens(model_type: &str) -> std::collections::BTreeMap<String, Tensor> {
    Tensor::read_safetensors(path("tests/golden").join(format!("{model_type}-golden.safetensors")))
        .unwrap()
        .into_iter()
        .collect()
}

fn load(model_type: &str, precision: Precision) -> Llama {
    let folder = ModelFolder::open(path("tests/golden").join(model_type)).unwrap();
    Llama::load(&folder, Device::Cpu, precision).unwrap()
}

fn tiny() -> Llama {
    load("llama-tiny", Precision::F32)
}

fn tokens(tensor: &Tensor) -> Vec<i64> {
    Vec::try_from(tensor).unwrap()
}

/// The largest difference, relative to the largest expected number.
fn apart(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.size(), expected.size());
    (found - expected).abs().max().double_value(&[]) / expected.abs().max().double_value(&[])
}

#[test]
fn prefill_and_steps_yield_the_logits_of_transformers() {
    for model_type in MEMBERS {
        let (golden, network) = (goldens(model_type), load(model_type, Precision::F32));
        let prompt = tokens(&golden["prompt"]);
        let (mut cache, first) = network.start(&[&prompt], 1).unwrap();
        assert!(
            apart(&first.get(0), &golden["logits"].get(0)) < 1e-4,
            "{model_type}"
        );
        for (n, token) in tokens(&golden["steps"]).into_iter().enumerate() {
            let logits = network.step(&mut cache, &[token]).unwrap();
            assert!(
                apart(&logits.get(0), &golden["logits"].get(n as i64 + 1)) < 1e-4,
                "{model_type}, step {n}"
            );
        }
        assert_eq!(cache.columns.len(), 162);
    }
}

#[test]
fn every_row_of_a_ragged_batch_is_as_alone() {
    for model_type in MEMBERS {
        let (golden, network) = (goldens(model_type), load(model_type, Precision::F32));
        let prompt = tokens(&golden["prompt"]);
        let other: Vec<i64> = prompt.iter().rev().copied().collect();
        // The first two and the last share their beginning, the third nothing: so with and without
        // it, prefixes are shared or not.
        for rows in [
            vec![&prompt[..], &prompt[..5], &other[..20], &prompt[..]],
            vec![&prompt[..], &prompt[..40], &prompt[..]],
        ] {
            let (mut cache, first) = network.start(&rows, 20).unwrap();
            assert!(apart(&first.get(0), &golden["logits"].get(0)) < 1e-4);
            if rows[1].len() == 5 {
                assert!(apart(&first.get(1), &golden["short"]) < 1e-4);
            }
            let last = rows.len() - 1;
            for (n, token) in tokens(&golden["steps"]).into_iter().enumerate() {
                if n == 4 {
                    cache.keep(&[0, last]).unwrap();
                }
                let fed = if n < 4 {
                    vec![token; rows.len()]
                } else {
                    vec![token; 2]
                };
                let logits = network.step(&mut cache, &fed).unwrap();
                for row in [0, fed.len() as i64 - 1] {
                    assert!(
                        apart(&logits.get(row), &golden["logits"].get(n as i64 + 1)) < 1e-4,
                        "{model_type}, row {row}, step {n}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_long_prompt_is_read_in_passes() {
    let (golden, network) = (goldens("llama-tiny"), tiny());
    let prompt = tokens(&golden["prompt"]);
    let rows = vec![&prompt[..]; 40];
    let short = [&rows[..], &[&prompt[..7]]].concat();
    let (_, logits) = network.start(&short, 0).unwrap();
    for row in [0, 39] {
        assert!(apart(&logits.get(row), &golden["logits"].get(0)) < 1e-4);
    }
    let (_, alone) = network.start(&[&prompt[..7]], 0).unwrap();
    assert!(apart(&logits.get(40), &alone.get(0)) < 1e-4);
}

#[test]
fn halves_stay_near() {
    for model_type in MEMBERS {
        let golden = goldens(model_type);
        let (_, logits) = load(model_type, Precision::BF16)
            .start(&[&tokens(&golden["prompt"])], 0)
            .unwrap();
        let cosine = Tensor::cosine_similarity(&logits.get(0), &golden["logits"].get(0), 0, 1e-8)
            .double_value(&[]);
        assert!(cosine > 0.995, "{model_type}: {cosine}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let network = tiny();
    assert!(network.start(&[&[]], 0).is_err());
    let (mut cache, _) = network.start(&[&[3, 4, 5]], 0).unwrap();
    assert!(network.step(&mut cache, &[1, 2]).is_err());
    let long = vec![3; 1025];
    let error = network.start(&[&long], 0).unwrap_err();
    assert_eq!(error.kind(), crate::error::Kind::Model);
}

#[test]
fn searched_and_greedy_texts_are_those_of_transformers() {
    let (texts, network) = (Texts::of(&golden::read("llama-tiny-texts.json")), tiny());
    let writer = texts.writer();
    texts.hold(&|_, jobs| writer.write(&network, jobs, &|_| false).unwrap());
}
