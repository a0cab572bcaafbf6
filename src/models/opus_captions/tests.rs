//! The decoder against PyTorch's in small, with either kind of positions: whole, step by step, and
//! the texts that it writes.

use super::*;
use crate::models::decoder::Decoder;
use crate::models::golden::{goldens, noise, relative_error, scaled_weights};
use crate::models::text::golden::{self, Texts};
use serde_json::json;

fn tiny(name: &str, precision: Precision) -> CrossAttentionDecoder {
    let kind = if name == "sines" {
        "sinusoidal"
    } else {
        "learned"
    };
    let config = json!({"vocab_size": 96, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 3, "intermediate_size": 56,
        "max_position_embeddings": 64, "position_embedding_type": kind});
    let config = OpusCaptionConfig::read(&Config::of(config)).unwrap();
    read(
        scaled_weights("opus_captions.json", name, precision, 3.),
        &config,
    )
    .unwrap()
}

/// Three videos of five vectors.
fn videos(name: &str) -> Tensor {
    (noise(name, &[3, 5, 32]).to_kind(Kind::Float) - 128.) / 48.
}

/// What it gives, for `models::network_conformance`.
pub(in crate::models) fn outputs(precision: Precision) -> Vec<Tensor> {
    let network = tiny("learned", precision);
    let over = network
        .over(&videos("learned").narrow(0, 0, 1).to_kind(precision.kind()))
        .unwrap();
    let (mut cache, first) = over.start(&[&[1, 5, 9]], 1).unwrap();
    vec![first, over.step(&mut cache, &[3]).unwrap()]
}

#[test]
fn logits_at_once_and_step_by_step_are_those_of_pytorch() {
    let goldens = goldens("opus_captions.safetensors");
    for name in ["learned", "sines"] {
        let network = tiny(name, Precision::F32);
        let over = network.over(&videos(name).narrow(0, 0, 2)).unwrap();
        let expected = &goldens[&format!("{name}.logits")];
        let text = &goldens[&format!("{name}.text")];
        let rows: Vec<Vec<i64>> = [0, 1]
            .map(|row| Vec::try_from(text.get(row)).unwrap())
            .to_vec();
        // From a token alone, from many, and from different numbers of tokens.
        for starts in [[1, 1], [12, 12], [3, 9]] {
            let prompts: Vec<&[i64]> = rows
                .iter()
                .zip(starts)
                .map(|(row, start)| &row[..start])
                .collect();
            let (mut cache, first) = over.start(&prompts, 2).unwrap();
            let mut logits = vec![first];
            for step in 0..11 {
                let next: Vec<i64> = rows
                    .iter()
                    .zip(starts)
                    .map(|(row, start)| row[start + step])
                    .collect();
                logits.push(over.step(&mut cache, &next).unwrap());
            }
            let found = Tensor::stack(&logits, 1);
            for (row, start) in starts.into_iter().enumerate() {
                let expected = expected.get(row as i64).narrow(0, start as i64 - 1, 12);
                let error = relative_error(&found.get(row as i64), &expected);
                // Twelve steps of f32 sums: their order, which is each CPU's own, tells more here
                // than in one pass (1.2e-4 on a Zen 3).
                assert!(error < 2e-4, "{name}, row {row} from {start}: {error}");
            }
        }
    }
}

#[test]
fn searched_and_greedy_texts_are_those_of_pytorch() {
    let golden = golden::read("opus_captions-texts.json");
    for name in ["learned", "sines"] {
        let (texts, network, videos) = (
            Texts::of(&golden[name]),
            tiny(name, Precision::F32),
            videos(name),
        );
        let writer = texts.writer();
        texts.hold(&|prompts, jobs| {
            let own: Vec<i64> = prompts.iter().map(|&prompt| prompt as i64).collect();
            let over = network
                .over(&videos.index_select(0, &Tensor::from_slice(&own)))
                .unwrap();
            writer.write(&over, jobs, &|_| false).unwrap()
        });
    }
}

#[test]
fn sizes_that_do_not_fit_each_other_are_refused() {
    for (key, value) in [
        ("num_attention_heads", json!(7)),
        ("hidden_size", json!(0)),
        ("position_embedding_type", json!("rotary")),
    ] {
        let mut config = json!({"vocab_size": 96});
        config[key] = value;
        assert!(
            OpusCaptionConfig::read(&Config::of(config)).is_err(),
            "{key}"
        );
    }
    let seeds = OpusCaptionConfig::read(&Config::of(json!({"vocab_size": 96}))).unwrap();
    assert_eq!(
        (seeds.width, seeds.layers, seeds.position_embedding),
        (512, 6, PositionEmbedding::Learned)
    );
    let network = tiny("learned", Precision::F32);
    for shape in [&[2, 5][..], &[2, 5, 31], &[0, 5, 32]] {
        assert_eq!(
            network
                .over(&Tensor::zeros(shape, (Kind::Float, Device::Cpu)))
                .unwrap_err()
                .kind(),
            crate::error::Kind::Model
        );
    }
}
