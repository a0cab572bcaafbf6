//! The network against transformers' on a small whole folder: what it sees, its logits, and the
//! captions that it writes.

use super::*;
use crate::models::decoder::Decoder;
use crate::models::golden::{film, goldens, path, relative_error};
use crate::models::text::golden::{self, Texts};
use crate::models::text::{BeamSearchConfig, GenerationConfig, Penalties};

fn tiny(precision: Precision) -> Blip {
    Blip::load(
        &ModelFolder::open(path("tests/golden/blip-tiny")).unwrap(),
        Device::Cpu,
        precision,
    )
    .unwrap()
}

/// Three pictures of another size than the network's.
fn frames() -> Tensor {
    film(80, 53, 71).index_select(0, &Tensor::from_slice(&[0i64, 38, 79]))
}

/// What it gives, for `models::network_conformance`.
pub(in crate::models) fn outputs(precision: Precision) -> Vec<Tensor> {
    let network = tiny(precision);
    let seen = network.see(&frames().narrow(0, 0, 1)).unwrap();
    let (_, logits) = network
        .captions
        .over(&seen)
        .unwrap()
        .start(&[&[1, 5, 9]], 0)
        .unwrap();
    vec![logits, seen]
}

#[test]
fn what_it_sees_is_what_transformers_sees() {
    let (goldens, network) = (goldens("blip.safetensors"), tiny(Precision::F32));
    let fitted = network.preprocess.fit(&frames()).unwrap();
    let mut x = network.vision.patches.forward(&fitted).unwrap();
    for (at, layer) in network.vision.layers.iter().enumerate() {
        let error = relative_error(&x, &goldens["hidden"].get(at as i64));
        assert!(error < 1e-4, "before layer {at}: {error}");
        x = layer.forward(&x, false).unwrap();
    }
    let seen = network.see(&frames()).unwrap();
    let error = relative_error(&seen, &goldens["seen"]);
    assert!(error < 1e-4, "{error}");
    let alone = network.see(&frames().narrow(0, 1, 1)).unwrap();
    assert!(relative_error(&alone.get(0), &goldens["seen"].get(1)) < 1e-4);
}

#[test]
fn logits_are_those_of_transformers() {
    let (goldens, network) = (goldens("blip.safetensors"), tiny(Precision::F32));
    let over = network
        .captions
        .over(&network.see(&frames()).unwrap())
        .unwrap();
    let rows: Vec<Vec<i64>> = (0..3)
        .map(|row| Vec::try_from(goldens["text"].get(row)).unwrap())
        .collect();
    for starts in [[1, 1, 1], [2, 7, 4]] {
        let prompts: Vec<&[i64]> = rows
            .iter()
            .zip(starts)
            .map(|(row, start)| &row[..start])
            .collect();
        let (mut cache, mut logits) = over.start(&prompts, 2).unwrap();
        for step in 0..8 {
            for (row, start) in starts.into_iter().enumerate() {
                let expected = goldens["logits"]
                    .get(row as i64)
                    .get((start + step - 1) as i64);
                let error = relative_error(&logits.get(row as i64), &expected);
                assert!(error < 1e-4, "row {row} from {start}, step {step}: {error}");
            }
            let next: Vec<i64> = rows
                .iter()
                .zip(starts)
                .map(|(row, start)| row[start + step])
                .collect();
            logits = over.step(&mut cache, &next).unwrap();
        }
    }
}

#[test]
fn searched_and_greedy_tokens_are_those_of_transformers() {
    let (texts, network) = (
        Texts::of(&golden::read("blip-texts.json")),
        tiny(Precision::F32),
    );
    let (writer, seen) = (texts.writer(), network.see(&frames()).unwrap());
    texts.hold(&|prompts, jobs| {
        let own: Vec<i64> = prompts.iter().map(|&prompt| prompt as i64).collect();
        let over = network
            .captions
            .over(&seen.index_select(0, &Tensor::from_slice(&own)))
            .unwrap();
        writer.write(&over, jobs, &|_| false).unwrap()
    });
}

#[test]
fn captions_from_pictures_to_words_are_those_of_transformers() {
    let (golden, network) = (golden::read("blip-texts.json"), tiny(Precision::F32));
    let begin: Vec<String> = serde_json::from_value(golden["begin"].clone()).unwrap();
    for case in golden["captions"].as_array().unwrap() {
        let beams = case["options"]["num_beams"].as_u64().unwrap_or(1) as u32;
        let writing = GenerationConfig {
            max_tokens: 16,
            search: BeamSearchConfig {
                beams,
                ..BeamSearchConfig::default()
            },
            ..GenerationConfig::default()
        };
        let requests: Vec<CaptionRequest> = begin
            .iter()
            .map(|begin| CaptionRequest {
                begin: begin.clone(),
                writing: writing.clone(),
            })
            .collect();
        let expected: Vec<String> = serde_json::from_value(case["texts"].clone()).unwrap();
        let together = network
            .write(
                &network.see(&frames()).unwrap(),
                &requests.iter().collect::<Vec<_>>(),
                &|_| false,
            )
            .unwrap();
        assert_eq!(
            together
                .iter()
                .map(|texts| texts[0].text.clone())
                .collect::<Vec<_>>(),
            expected
        );
        for (at, request) in requests.iter().enumerate() {
            let seen = network.see(&frames().narrow(0, at as i64, 1)).unwrap();
            assert_eq!(
                network.write(&seen, &[request], &|_| false).unwrap()[0][0].text,
                expected[at]
            );
        }
    }
}

#[test]
fn a_stop_ends_a_caption_after_what_it_begins_with() {
    let network = tiny(Precision::F32);
    let seen = network.see(&frames().narrow(0, 1, 1)).unwrap();
    let write = |begin: &str, stop: &str| {
        let writing = GenerationConfig {
            max_tokens: 10,
            stop: vec![stop.to_owned()],
            penalties: Penalties {
                min_tokens: 10,
                ..Penalties::default()
            },
            ..GenerationConfig::default()
        };
        let request = CaptionRequest {
            begin: begin.to_owned(),
            writing,
        };
        network.write(&seen, &[&request], &|_| false).unwrap()[0][0].clone()
    };
    let whole = write("a dog", "never written");
    assert!(
        whole.text.starts_with("a dog ") && whole.tokens.len() == 10,
        "{whole:?}"
    );
    let word = whole.text.split(' ').nth(5).unwrap();
    let stopped = write("a dog", word);
    let at = "a dog".len() + whole.text["a dog".len()..].find(word).unwrap();
    assert_eq!(stopped.text, whole.text[..at]);
}

#[test]
fn what_cannot_be_written_is_refused() {
    let network = tiny(Precision::F32);
    let long = CaptionRequest {
        begin: "dog ".repeat(60),
        ..CaptionRequest::default()
    };
    assert!(
        network
            .check(&long)
            .unwrap_err()
            .message()
            .contains("fills the model's 48")
    );
    let seen = network.see(&frames()).unwrap();
    assert!(
        network
            .write(&seen, &[&CaptionRequest::default()], &|_| false)
            .is_err(),
        "three pictures and one request"
    );
}
