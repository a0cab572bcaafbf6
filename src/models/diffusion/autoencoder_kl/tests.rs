//! The autoencoder against diffusers' on small networks: activations, latents and pictures, whole,
//! in slices and in tiles.

use super::*;
use crate::models::Config;
use crate::models::diffusion::pixels::{from_bytes, to_bytes};
use crate::models::diffusion::resampling::{Downsample2D, Upsample2D};
use crate::models::diffusion::{Autoencoder, VaeOptions};
use crate::models::golden::{cosine, goldens, noise, path, relative_error, weight, weights};
use serde_json::{Value, json};

const ALL: VaeOptions = VaeOptions {
    slicing: true,
    tiling: true,
};

fn config(name: &str) -> Config {
    let text = std::fs::read_to_string(path("tests/golden/autoencoders-configs.json")).unwrap();
    let mut configs: Value = serde_json::from_str(&text).unwrap();
    Config::of(configs[name].take())
}

fn network(name: &str, memory: VaeOptions, precision: Precision) -> AutoencoderKl {
    let config = AutoencoderKlConfig::read(&config(name)).unwrap();
    AutoencoderKl::load(
        weights("autoencoders.json", name, precision),
        &config,
        memory,
    )
    .unwrap()
}

fn pictures(seed: &str, shape: [i64; 4]) -> Tensor {
    from_bytes(&noise(seed, &shape), Precision::F32).unwrap()
}

fn latents(seed: &str, shape: [i64; 4]) -> Tensor {
    noise(seed, &shape).to_kind(Kind::Float) / 64. - 2.
}

fn channels(name: &str) -> (i64, i64) {
    let config = AutoencoderKlConfig::read(&config(name)).unwrap();
    (config.latent_channels, config.factor())
}

/// What it gives, for `models::network_conformance`.
pub(in crate::models) fn outputs(precision: Precision) -> Vec<Tensor> {
    let network = network("small", VaeOptions::default(), precision);
    vec![
        network.encode(&pictures("kl", [2, 8, 12, 3])).unwrap().mean,
        network.decode(&latents("latents", [2, 4, 4, 6])).unwrap(),
    ]
}

#[test]
fn activations_latents_and_pictures_are_those_of_diffusers() {
    let goldens = goldens("autoencoders.safetensors");
    for name in ["small", "deep"] {
        let network = network(name, VaeOptions::default(), Precision::F32);
        let check = |part: &str, found: &Tensor| {
            let error = relative_error(found, &goldens[&format!("{name}.{part}")]);
            assert!(error < 1e-5, "{name}.{part}: {error}");
        };
        let pictures = pictures("kl", [2, 8, 12, 3]);
        let mut x = network.encoder.conv_in.forward(&pictures).unwrap();
        check("encoder.conv_in", &x.get(0));
        for (number, level) in network.encoder.levels.iter().enumerate() {
            x = level.forward(&x, Downsample2D::forward).unwrap();
            check(&format!("encoder.down_blocks.{number}"), &x.get(0));
        }
        check(
            "encoder.mid_block",
            &network.encoder.middle.forward(&x).unwrap().get(0),
        );
        let moments = network.encode(&pictures).unwrap();
        check("mean", &moments.mean);
        check("logvar", &moments.logvar);
        let (channels, factor) = channels(name);
        let latents = latents("latents", [2, channels, 8 / factor, 12 / factor]);
        let mut x = latents.shallow_clone();
        if let Some(conv) = &network.post_quant_conv {
            x = conv.forward(&x).unwrap();
        }
        x = network.decoder.conv_in.forward(&x).unwrap();
        check("decoder.conv_in", &x.get(0));
        x = network.decoder.middle.forward(&x).unwrap();
        check("decoder.mid_block", &x.get(0));
        for (number, level) in network.decoder.levels.iter().enumerate() {
            x = level.forward(&x, Upsample2D::forward).unwrap();
            check(&format!("decoder.up_blocks.{number}"), &x.get(0));
        }
        check("decoded", &network.decode(&latents).unwrap());
    }
}

#[test]
fn slices_and_tiles_are_those_of_diffusers() {
    let goldens = goldens("autoencoders.safetensors");
    for name in ["small", "deep"] {
        let (channels, factor) = channels(name);
        let (pictures, latents) = (
            pictures("tiled", [2, 40, 28, 3]),
            latents("tiled", [2, channels, 40 / factor, 28 / factor]),
        );
        for memory in [
            ALL,
            VaeOptions {
                slicing: false,
                tiling: true,
            },
        ] {
            let network = network(name, memory, Precision::F32);
            let errors = [
                relative_error(
                    &network.encode(&pictures).unwrap().mean,
                    &goldens[&format!("{name}.tiled.mean")],
                ),
                relative_error(
                    &thinned(&network.decode(&latents).unwrap()),
                    &goldens[&format!("{name}.tiled.decoded")],
                ),
            ];
            assert!(
                errors.iter().all(|&error| error < 1e-5),
                "{name}, {memory:?}: {errors:?}"
            );
        }
        let [whole, sliced] = [
            VaeOptions::default(),
            VaeOptions {
                slicing: true,
                tiling: false,
            },
        ]
        .map(|memory| network(name, memory, Precision::F32));
        assert!(
            relative_error(
                &sliced.decode(&latents).unwrap(),
                &whole.decode(&latents).unwrap()
            ) < 1e-6
        );
        assert!(
            relative_error(
                &sliced.encode(&pictures).unwrap().mean,
                &whole.encode(&pictures).unwrap().mean
            ) < 1e-6
        );
    }
}

/// Every third pixel, as the script keeps them.
fn thinned(x: &Tensor) -> Tensor {
    x.slice(2, None, None, 3).slice(3, None, None, 3)
}

#[test]
fn halves_are_near() {
    let goldens = goldens("autoencoders.safetensors");
    let network = network("small", VaeOptions::default(), Precision::BF16);
    let mean = network.encode(&pictures("kl", [2, 8, 12, 3])).unwrap().mean;
    let decoded = network.decode(&latents("latents", [2, 4, 4, 6])).unwrap();
    assert_eq!((mean.kind(), decoded.kind()), (Kind::Float, Kind::BFloat16));
    let similar = [
        cosine(&mean.contiguous(), &goldens["small.mean"]),
        cosine(&decoded.contiguous(), &goldens["small.decoded"]),
    ];
    assert!(similar.iter().all(|&cosine| cosine > 0.99), "{similar:?}");
}

#[test]
fn older_names_of_attention_are_read() {
    let text = std::fs::read_to_string(path("tests/golden/autoencoders.json")).unwrap();
    let keys: Value = serde_json::from_str(&text).unwrap();
    let older = |key: &str| {
        let names = [
            ("to_q", "query"),
            ("to_k", "key"),
            ("to_v", "value"),
            ("to_out.0", "proj_attn"),
        ];
        names
            .into_iter()
            .fold(key.to_owned(), |key, (new, old)| key.replace(new, old))
    };
    let tensors: Vec<(String, Tensor)> = keys["small"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, shape)| {
            let shape: Vec<i64> = serde_json::from_value(shape.clone()).unwrap();
            (older(key), weight(key, &shape))
        })
        .collect();
    assert!(
        tensors
            .iter()
            .any(|(key, _)| key == "decoder.mid_block.attentions.0.proj_attn.bias")
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("diffusion_pytorch_model.safetensors");
    Tensor::write_safetensors(&tensors, &file).unwrap();
    let weights = Weights::open(&[file], Device::Cpu, Precision::F32).unwrap();
    let config = AutoencoderKlConfig::read(&config("small")).unwrap();
    let network = AutoencoderKl::load(weights, &config, VaeOptions::default()).unwrap();
    let decoded = network.decode(&latents("latents", [2, 4, 4, 6])).unwrap();
    assert!(
        relative_error(
            &decoded,
            &goldens("autoencoders.safetensors")["small.decoded"]
        ) < 1e-5
    );
}

#[test]
fn latents_are_drawn_scaled_and_had_back() {
    let weights = weights("autoencoders.json", "deep", Precision::F32);
    let network = Autoencoder::build(weights, &config("deep"), VaeOptions::default()).unwrap();
    assert_eq!((network.factor(), network.latent_channels()), (4, 3));
    let goldens = goldens("autoencoders.safetensors");
    let (mean, deviation) = (&goldens["deep.mean"], (&goldens["deep.logvar"] * 0.5).exp());
    let noise = latents("noise", [2, 3, 2, 3]);
    let found = network
        .to_latents(&pictures("kl", [2, 8, 12, 3]), &mut || {
            Ok(noise.shallow_clone())
        })
        .unwrap();
    let expected = (mean + deviation * &noise - 0.25) * 0.5;
    assert!(relative_error(&found, &expected) < 1e-5);
    let latents = latents("latents", [2, 3, 2, 3]);
    let decoded = network.to_pictures(&((&latents - 0.25) * 0.5)).unwrap();
    assert!(relative_error(&decoded, &goldens["deep.decoded"]) < 1e-5);
    let odd = network.to_latents(&pictures("kl", [1, 8, 10, 3]), &mut || {
        Ok(noise.shallow_clone())
    });
    assert!(odd.unwrap_err().message().contains("multiples of 4"));
}

#[test]
fn bytes_are_rounded_as_diffusers_rounds() {
    let values =
        Tensor::linspace(-1.1, 1.1, 3 * 20 * 30, (Kind::Float, Device::Cpu)).view([1, 3, 20, 30]);
    let bytes = to_bytes(&values).unwrap();
    assert!(bytes.equal(&goldens("autoencoders.safetensors")["bytes"]));
    let every = Tensor::arange(256, (Kind::Uint8, Device::Cpu))
        .view([1, 256, 1, 1])
        .expand([1, 256, 2, 3], false)
        .contiguous();
    assert!(
        to_bytes(&from_bytes(&every, Precision::F32).unwrap())
            .unwrap()
            .equal(&every),
        "every byte comes back"
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    for (field, value) in [
        (
            "down_block_types",
            json!(["DownEncoderBlock2D", "AttnDownEncoderBlock2D"]),
        ),
        ("up_block_types", json!(["UpDecoderBlock2D"])),
        ("act_fn", json!("relu")),
        ("latents_mean", json!([0.1])),
        ("block_out_channels", json!([8, 18])),
        ("sample_size", json!(2)),
        ("scaling_factor", json!(0)),
    ] {
        let mut fields = json!({
            "block_out_channels": [8, 16], "norm_num_groups": 4, "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
            "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"]
        });
        assert!(AutoencoderKlConfig::read(&Config::of(fields.clone())).is_ok());
        fields[field] = value;
        let error = AutoencoderKlConfig::read(&Config::of(fields)).unwrap_err();
        assert!(error.message().contains(field), "{error}");
    }
    let network = network("small", ALL, Precision::F32);
    for shape in [&[1, 4, 8, 8][..], &[3, 8, 8], &[1, 3, 1, 8], &[0, 3, 8, 8]] {
        assert_eq!(
            network
                .encode(&Tensor::zeros(shape, (Kind::Float, Device::Cpu)))
                .unwrap_err()
                .kind(),
            crate::error::Kind::Model
        );
    }
    let other = Autoencoder::build(
        weights("autoencoders.json", "small", Precision::F32),
        &Config::of(json!({"_class_name": "VQModel"})),
        ALL,
    );
    assert!(other.unwrap_err().message().contains("AutoencoderTiny"));
    let wider = AutoencoderKlConfig {
        layers_per_block: 2,
        ..AutoencoderKlConfig::read(&config("small")).unwrap()
    };
    let error = AutoencoderKl::load(
        weights("autoencoders.json", "small", Precision::F32),
        &wider,
        ALL,
    )
    .unwrap_err();
    assert!(
        error
            .message()
            .contains("encoder.down_blocks.0.resnets.1.conv1.weight"),
        "{error}"
    );
}

#[test]
fn some_are_kept_out_of_f16() {
    let precision =
        |config: Value, wanted| Autoencoder::precision_for(&Config::of(config), wanted).unwrap();
    assert_eq!(
        precision(json!({"_class_name": "AutoencoderKL"}), Precision::F16),
        Precision::F32
    );
    assert_eq!(
        precision(json!({"_class_name": "AutoencoderKL"}), Precision::BF16),
        Precision::BF16
    );
    assert_eq!(
        precision(
            json!({"_class_name": "AutoencoderKL", "force_upcast": false}),
            Precision::F16
        ),
        Precision::F16
    );
    assert_eq!(
        precision(json!({"_class_name": "AutoencoderTiny"}), Precision::F16),
        Precision::F16
    );
}
