//! What holds for every network: no autograd graph is built of it, even where its weights ask for
//! gradients, and it runs in every number format on the CPU. A new network enters itself into
//! `NETWORKS`.

use tch::{Device, Kind, Tensor};

use super::decoder::Decoder;
use super::diffusion::{autoencoder_kl, autoencoder_tiny, unet};
use super::golden::{self, cosine, film, noise};
use super::opus_encoder::{OpusEncoder, OpusEncoderConfig};
use super::resnet::{LayerType, ResNet, ResNetConfig};
use super::transnetv2::TransNetV2;
use super::weights::ASK_FOR_GRADIENTS;
use super::{
    ModelFolder, blip, clip, dinov2, gpt2, llama::Llama, opus_captions, siglip, torchscript,
    whisper,
};
use crate::tensor::{Precision, grad_enabled};

/// A small network, or a trained one, loaded in a number format and run once: its outputs.
type Run = fn(Precision) -> Vec<Tensor>;

/// All but Silero VAD, which gives numbers, not tensors, and always runs in f32.
const NETWORKS: &[(&str, Run)] = &[
    ("opus_encoder", opus_encoder),
    ("resnet", resnet),
    ("transnetv2", transnetv2),
    ("llama", llama),
    ("clip", clip::tests::outputs),
    ("siglip", siglip::tests::outputs),
    ("dinov2", dinov2::tests::outputs),
    ("blip", blip::tests::outputs),
    ("gpt2", gpt2::tests::outputs),
    ("opus_captions", opus_captions::tests::outputs),
    ("whisper", whisper::tests::outputs),
    ("unet", unet::tests::outputs),
    ("autoencoder_kl", autoencoder_kl::tests::outputs),
    ("autoencoder_tiny", autoencoder_tiny::tests::outputs),
];

fn opus_encoder(precision: Precision) -> Vec<Tensor> {
    let config = OpusEncoderConfig {
        channels: vec![8, 16, 24],
        kernels: vec![5, 3, 3],
        heads: 3,
        layers: 2,
        intermediate: 40,
        output: 20,
    };
    let encoder = OpusEncoder::build(
        golden::weights("opus_encoder.json", "small", precision),
        &config,
    )
    .unwrap();
    vec![
        encoder
            .forward(&noise("small", &[2, 5, 64, 96, 3]))
            .unwrap(),
    ]
}

fn resnet(precision: Precision) -> Vec<Tensor> {
    let (depths, hidden_sizes) = (vec![1, 2, 1, 1], vec![256, 512, 1024, 2048]);
    let config = ResNetConfig {
        depths,
        hidden_sizes,
        layer_type: LayerType::Bottleneck,
        embedding_size: 64,
        num_labels: 10,
    };
    let network = ResNet::build(
        golden::weights("resnet.json", "bottleneck", precision),
        &config,
    )
    .unwrap();
    let features = network.forward(&noise("tiny", &[2, 64, 96, 3])).unwrap();
    let resized = network
        .forward_resized(&noise("tiny", &[1, 40, 30, 3]))
        .unwrap();
    vec![
        features.embedding,
        features.probabilities.unwrap(),
        resized.embedding,
    ]
}

fn transnetv2(precision: Precision) -> Vec<Tensor> {
    let network = TransNetV2::load(&golden::trained("transnetv2"), Device::Cpu, precision).unwrap();
    let logits = network.forward(&film(40, 27, 48).unsqueeze(0)).unwrap();
    vec![logits.single, logits.all]
}

fn llama(precision: Precision) -> Vec<Tensor> {
    let of = |model_type: &str| {
        let folder = ModelFolder::open(golden::path("tests/golden").join(model_type)).unwrap();
        let network = Llama::load(&folder, Device::Cpu, precision).unwrap();
        let (mut cache, first) = network
            .start(&[[3, 4, 5, 6].as_slice(), &[3, 4]], 2)
            .unwrap();
        [first, network.step(&mut cache, &[7, 8]).unwrap()]
    };
    ["llama-tiny", "llama-biased-tiny", "qwen3-tiny"]
        .into_iter()
        .flat_map(of)
        .collect()
}

/// A module runs in the number format that it was saved in.
const MODULE: (&str, Run) = ("torchscript", |_| torchscript::tests::outputs());

#[test]
fn no_autograd_graph_is_built_of_any_network() {
    ASK_FOR_GRADIENTS.set(true);
    assert!(grad_enabled(), "this thread would build one");
    for (name, run) in NETWORKS.iter().chain([&MODULE]) {
        for output in run(Precision::F32) {
            assert!(!output.requires_grad(), "{name}");
        }
    }
    assert!(grad_enabled(), "what was turned off is on again");
}

#[test]
fn every_network_runs_in_halves_on_the_cpu() {
    for (name, run) in NETWORKS {
        let whole = run(Precision::F32);
        for precision in [Precision::BF16, Precision::F16] {
            for (half, whole) in run(precision).iter().zip(&whole) {
                let similarity = cosine(&half.to_kind(Kind::Float), whole);
                assert!(similarity > 0.99, "{name} in {precision}: {similarity}");
            }
        }
    }
}
