//! What the keys of a `models:` entry do to time and memory, on the CPU with two threads: number
//! formats, sizes of batches, attention as one kernel or by slices, an autoencoder's slices and
//! tiles, and inference mode. Memory is that of tensors, as a worker's metrics have it. There is no
//! peer.

mod report;

use std::time::Instant;

use opusflow::models::attention::{Attention, AttentionConfig, AttentionKind};
use opusflow::models::diffusion::{Autoencoder, VaeOptions};
use opusflow::models::layers::Linear;
use opusflow::models::networks;
use opusflow::models::opus_encoder::OpusEncoder;
use opusflow::models::resnet::ResNet;
use opusflow::models::text::{CausalLm, GenerationConfig, TextRequest};
use opusflow::models::transnetv2::TransNetV2;
use opusflow::models::{Config, ModelFolder, Weights};
use opusflow::tensor::{
    AllocationTracker, Device, Inference, Kind, Precision, Tensor, guard, threads,
};

/// Calls that are timed, after one that is not; the median counts.
const CALLS: usize = 3;

/// Tokens of a text.
const TOKENS: u32 = 16;

/// The first level of Stable Diffusion 1.5 at 512x512: 64 x 64 positions, 8 heads of 40.
const POSITIONS: i64 = 4096;
const HEADS: AttentionConfig = AttentionConfig {
    width: 320,
    context: 320,
    count: 8,
    dim: 40,
};

struct Bench {
    account: AllocationTracker,
    round: usize,
}

impl Bench {
    /// Seconds a call, MiB between calls, and MiB that a call needs beside them: the median after a
    /// call that does not count.
    fn time(&self, variant: &str, mut call: impl FnMut()) -> f64 {
        call();
        self.calls(variant, CALLS, call)
    }

    /// The same of a single call, where it takes many seconds.
    fn once(&self, variant: &str, call: impl FnMut()) {
        self.calls(variant, 1, call);
    }

    fn calls(&self, variant: &str, count: usize, mut call: impl FnMut()) -> f64 {
        self.account.restart_peak();
        let held = self.account.held();
        let mut seconds: Vec<f64> = (0..count)
            .map(|_| {
                let began = Instant::now();
                call();
                began.elapsed().as_secs_f64()
            })
            .collect();
        seconds.sort_by(f64::total_cmp);
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        self.figure(variant, seconds[count / 2], "s");
        self.figure(&format!("{variant}_held"), mib(held), "MiB");
        self.figure(
            &format!("{variant}_taken"),
            mib(self.account.peak() - held),
            "MiB",
        );
        seconds[count / 2]
    }

    fn figure(&self, variant: &str, value: f64, unit: &str) {
        report::figure("memory", variant, self.round, value, unit);
    }

    fn precisions(&self) {
        for precision in [Precision::F32, Precision::BF16, Precision::F16] {
            let resnet =
                ResNet::load(&folder("resnet-18"), Device::Cpu, precision).expect("it loads");
            let frames = bytes(&[8, 224, 224, 3]);
            self.time(&format!("resnet_8_frames_{precision}"), || {
                drop(resnet.forward(&frames).expect("it runs"))
            });
            drop(resnet);
            let shots =
                TransNetV2::load(&folder("transnetv2"), Device::Cpu, precision).expect("it loads");
            let window = bytes(&[1, 100, 27, 48, 3]);
            self.time(&format!("transnetv2_window_{precision}"), || {
                drop(shots.predict(&window).expect("it runs"))
            });
            drop(shots);
            let encoder = OpusEncoder::load(&folder("opus-encoder"), Device::Cpu, precision)
                .expect("it loads");
            let clip = bytes(&[1, 30, 224, 224, 3]);
            self.time(&format!("opus_encoder_clip_{precision}"), || {
                drop(encoder.forward(&clip).expect("it runs"))
            });
            drop(encoder);
            let words =
                networks::load_causal_lm(&folder("SmolLM2-135M-Instruct"), Device::Cpu, precision)
                    .expect("it loads");
            self.time(&format!("smollm2_text_{precision}"), || write(&words, 1));
        }
    }

    fn batches(&self) {
        let resnet =
            ResNet::load(&folder("resnet-18"), Device::Cpu, Precision::F32).expect("it loads");
        for size in [1, 2, 4, 8, 16] {
            let frames = bytes(&[size, 224, 224, 3]);
            let seconds = self.time(&format!("resnet_batch_{size}"), || {
                drop(resnet.forward(&frames).expect("it runs"))
            });
            self.figure(
                &format!("resnet_batch_{size}_rate"),
                size as f64 / seconds,
                "items/s",
            );
        }
        drop(resnet);
        let words = networks::load_causal_lm(
            &folder("SmolLM2-135M-Instruct"),
            Device::Cpu,
            Precision::F32,
        )
        .expect("it loads");
        for size in [1, 2, 4, 8] {
            let seconds = self.time(&format!("smollm2_batch_{size}"), || write(&words, size));
            self.figure(
                &format!("smollm2_batch_{size}_rate"),
                size as f64 * f64::from(TOKENS) / seconds,
                "tokens/s",
            );
        }
        let mode = Inference::begin();
        self.time("smollm2_inference_mode", || write(&words, 1));
        drop(mode);
    }

    fn attentions(&self) {
        let x = Tensor::randn([1, POSITIONS, HEADS.width], (Kind::Float, Device::Cpu));
        let weight =
            |rows: i64| Tensor::randn([rows, HEADS.width], (Kind::Float, Device::Cpu)) * 0.05;
        for (name, kind) in [
            ("sdpa", AttentionKind::Sdpa),
            ("sliced", AttentionKind::Sliced),
        ] {
            let (fused, out) = (
                Linear::new(weight(3 * HEADS.width), None),
                Linear::new(weight(HEADS.width), None),
            );
            let attention = Attention::fused(fused, out, HEADS, kind);
            self.time(&format!("attention_{name}"), || {
                drop(attention.forward(&x, None, false).expect("it runs"))
            });
        }
    }

    /// Stable Diffusion 1.5's decoder in bf16, whole, a picture at a time, and in tiles of 512 x
    /// 512.
    fn autoencoders(&self) {
        let folder = report::shared()
            .expect("`benches/run memory` runs this: diffusion.py makes the network")
            .join("vae");
        let config = Config::read(&folder.join("config.json")).expect("it is written");
        let (slicing, tiling) = (
            VaeOptions {
                slicing: true,
                tiling: false,
            },
            VaeOptions {
                slicing: false,
                tiling: true,
            },
        );
        for (variant, memory, shape) in [
            ("vae_two_of_512", VaeOptions::default(), [2, 4, 64, 64]),
            ("vae_two_of_512_slicing", slicing, [2, 4, 64, 64]),
            ("vae_one_of_1024", VaeOptions::default(), [1, 4, 128, 128]),
            ("vae_one_of_1024_tiling", tiling, [1, 4, 128, 128]),
        ] {
            let weights = Weights::open(
                &[folder.join("diffusion_pytorch_model.safetensors")],
                Device::Cpu,
                Precision::BF16,
            );
            let vae = Autoencoder::build(weights.expect("it is written"), &config, memory)
                .expect("the network loads");
            let latents = Tensor::randn(shape, (Kind::Float, Device::Cpu));
            self.once(variant, || {
                drop(vae.to_pictures(&latents).expect("it runs"))
            });
        }
    }
}

fn folder(name: &str) -> ModelFolder {
    ModelFolder::open(format!("models/{name}")).expect("ops/setup makes the model")
}

fn bytes(shape: &[i64]) -> Tensor {
    Tensor::randint(255, shape, (Kind::Uint8, Device::Cpu))
}

fn write(words: &CausalLm, texts: usize) {
    let request = TextRequest {
        prompt: "A 3.5 second clip shows: seashore, lakeside, boathouse, dock. Write its caption."
            .to_owned(),
        writing: GenerationConfig {
            max_tokens: TOKENS,
            ..GenerationConfig::default()
        },
        ..TextRequest::default()
    };
    let written = words
        .generate(&vec![request; texts], &|_| false)
        .expect("it writes");
    assert_eq!(written.len(), texts);
}

fn main() {
    // On a thread of its own, as a worker has it: memory comes from another arena there.
    std::thread::spawn(measure)
        .join()
        .expect("it does not panic");
}

fn measure() {
    threads(2);
    let _frozen = guard();
    for round in report::rounds() {
        let bench = Bench {
            account: AllocationTracker::new(),
            round,
        };
        let _entered = bench.account.enter();
        bench.attentions();
        if round == 1 {
            bench.autoencoders();
        }
        bench.precisions();
        bench.batches();
    }
}
