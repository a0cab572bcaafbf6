//! The network against Diffusers' on three small members of the family, block by block.

use std::collections::BTreeMap;

use super::*;
use crate::models::attention::AttentionKind;
use crate::models::config::Config;
use crate::models::golden::{cosine, goldens, path, relative_error, weights};
use crate::models::offload::Tensors;
use serde_json::Value;

fn network(name: &str, precision: Precision, attention: AttentionKind) -> UNet {
    let text = std::fs::read_to_string(path("tests/golden/unet_configs.json")).unwrap();
    let mut configs: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
    let config = UNetConfig::read(&Config::of(configs.remove(name).unwrap())).unwrap();
    UNet::build(
        weights("unet.json", name, precision).with_attention(attention),
        config,
    )
    .unwrap()
}

fn condition(name: &str, network: &UNet, golden: &BTreeMap<String, Tensor>) -> Condition {
    let xl = name == "sdxl";
    assert_eq!(network.has_added_conditioning(), xl);
    let added = xl.then(|| {
        network
            .added(&golden["sdxl.pooled"], [48., 80., 0., 4., 50., 82.])
            .unwrap()
    });
    let keys = network.keys(&golden[&format!("{name}.prompt")]).unwrap();
    Condition {
        keys,
        added,
        guidance: network.guidance(7.5).unwrap(),
    }
}

/// What the network says, and the worst error of what its blocks made.
fn run(name: &str, network: &UNet) -> (Tensor, f64) {
    let golden = goldens("unet.safetensors");
    let condition = condition(name, network, &golden);
    let (mut worst, mut block) = (0f64, 0);
    let latents = &golden[&format!("{name}.latents")];
    let out = network.run(latents, 481., &condition, &mut |_, made| {
        worst = worst.max(relative_error(made, &golden[&format!("{name}.{block}")]));
        block += 1;
    });
    assert_eq!(block, 7, "three blocks down, one in the middle, three up");
    (out.unwrap(), worst)
}

/// What it gives, for `models::network_conformance`.
pub(in crate::models) fn outputs(precision: Precision) -> Vec<Tensor> {
    vec![run("sdxl", &network("sdxl", precision, AttentionKind::Sdpa)).0]
}

#[test]
fn unets_equal_the_reference_block_by_block() {
    let golden = goldens("unet.safetensors");
    for name in ["sd15", "sd21", "sdxl"] {
        for attention in [AttentionKind::Sdpa, AttentionKind::Sliced] {
            let (out, worst) = run(name, &network(name, Precision::F32, attention));
            let error = relative_error(&out, &golden[&format!("{name}.out")]);
            assert!(
                error < 1e-4 && worst < 1e-4,
                "{name} {attention:?}: {error}, blocks {worst}"
            );
        }
    }
}

#[test]
fn halves_stay_near() {
    let golden = goldens("unet.safetensors");
    for (name, attention) in [
        ("sd15", AttentionKind::Sdpa),
        ("sd21", AttentionKind::Sliced),
        ("sdxl", AttentionKind::Sdpa),
    ] {
        let (out, _) = run(name, &network(name, Precision::BF16, attention));
        let similarity = cosine(&out, &golden[&format!("{name}.out")]);
        assert!(
            similarity > 0.99 && out.kind() == tch::Kind::BFloat16,
            "{name}: {similarity}"
        );
    }
}

#[test]
fn an_item_is_as_alone_whatever_is_beside_it() {
    // Alone, SDXL's timestep is the same for all and lies in the convolutions' biases; side by side
    // each item has its own.
    for name in ["sd15", "sdxl"] {
        let (golden, network) = (
            goldens("unet.safetensors"),
            network(name, Precision::F32, AttentionKind::Sdpa),
        );
        let (both, _) = run(name, &network);
        for row in 0..2 {
            let one = |key: &str| golden[&format!("{name}.{key}")].narrow(0, row, 1);
            let added = (name == "sdxl").then(|| {
                network
                    .added(&one("pooled"), [48., 80., 0., 4., 50., 82.])
                    .unwrap()
            });
            let condition = Condition {
                keys: network.keys(&one("prompt")).unwrap(),
                added,
                guidance: network.guidance(7.5).unwrap(),
            };
            let out = network.forward(&one("latents"), 481., &condition).unwrap();
            let error = relative_error(&out, &both.narrow(0, row, 1));
            assert!(error < 1e-4, "{name} row {row}: {error}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let network = network("sdxl", Precision::F32, AttentionKind::Sdpa);
    let golden = goldens("unet.safetensors");
    let whole = condition("sdxl", &network, &golden);
    let latents = &golden["sdxl.latents"];
    assert!(
        network
            .forward(&latents.narrow(1, 0, 3), 1., &whole)
            .is_err()
    );
    assert!(
        network
            .added(&golden["sdxl.pooled"].narrow(1, 0, 9), [0.; 6])
            .unwrap_err()
            .message()
            .contains("57")
    );
    let keyless = Condition {
        keys: Vec::new(),
        ..whole
    };
    assert_eq!(
        network.forward(latents, 1., &keyless).unwrap_err().kind(),
        crate::error::Kind::Bug
    );
}

#[test]
fn every_weight_can_be_moved() {
    for name in ["sd15", "sd21", "sdxl"] {
        let text = std::fs::read_to_string(path("tests/golden/unet.json")).unwrap();
        let keys: BTreeMap<String, BTreeMap<String, Vec<i64>>> =
            serde_json::from_str(&text).unwrap();
        let doubled = |key: &str, shape: &[i64]| match key.contains("upsamplers") {
            // A kernel of 3x3 becomes four of 2x2.
            true => {
                if shape.len() == 4 {
                    shape[0] * shape[1] * 16
                } else {
                    shape[0] * 4
                }
            }
            false => shape.iter().product(),
        };
        let stored: i64 = keys[name]
            .iter()
            .map(|(key, shape)| doubled(key, shape))
            .sum();
        let mut reached = 0;
        network(name, Precision::F32, AttentionKind::Sdpa)
            .each(&mut |tensor| {
                reached += tensor.size().iter().product::<i64>();
                Ok(())
            })
            .unwrap();
        assert_eq!(reached, stored, "{name}");
    }
}
