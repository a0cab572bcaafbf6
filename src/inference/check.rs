//! Whether a model folder holds what its network is read from: config.json and the weights, key by
//! key.

use super::networks::{FrameEncoder, PICTURES};
use crate::error::{Error, Result};
use crate::models::ModelFolder;
use crate::models::blip::Blip;
use crate::models::diffusion::pipeline::{self, Pipeline};
use crate::models::opus_captions;
use crate::models::opus_encoder::OpusEncoder;
use crate::models::silero_vad::SileroVad;
use crate::models::text::CausalLm;
use crate::models::torchscript::TorchScript;
use crate::models::transnetv2::TransNetV2;
use crate::models::whisper::Whisper;
use crate::tensor::{Device, Precision};

type Open = fn(&ModelFolder, Device, Precision) -> Result<()>;

/// Every network that is read here, by the class that its config.json names, beside encoders of
/// pictures, language models and diffusion pipelines.
const NETWORKS: &[(&str, Open)] = &[
    (
        "BlipForConditionalGeneration",
        |folder, device, precision| Blip::load(folder, device, precision).map(drop),
    ),
    ("OpusCaptionDecoder", |folder, device, precision| {
        opus_captions::load(folder, device, precision).map(drop)
    }),
    ("OpusEncoder", |folder, device, precision| {
        OpusEncoder::load(folder, device, precision).map(drop)
    }),
    ("SileroVad", |folder, device, _| {
        SileroVad::load(folder, device).map(drop)
    }),
    ("TorchScript", |folder, device, precision| {
        TorchScript::open(folder, device, precision).map(drop)
    }),
    ("TransNetV2", |folder, device, precision| {
        TransNetV2::open(folder, device, precision).map(drop)
    }),
    (
        "WhisperForConditionalGeneration",
        |folder, device, precision| Whisper::load(folder, device, precision).map(drop),
    ),
];

/// How a network of this class is read.
fn opener(class: &str) -> Option<Open> {
    if PICTURES.contains(&class) {
        return Some(|folder, device, precision| {
            FrameEncoder::open(folder, device, precision).map(drop)
        });
    }
    if CausalLm::ARCHITECTURES.contains(&class) {
        return Some(|folder, device, precision| {
            CausalLm::load(folder, device, precision).map(drop)
        });
    }
    if pipeline::CLASSES.contains(&class) {
        return Some(|folder, device, precision| {
            Pipeline::open(folder, device, precision, pipeline::Options::default()).map(drop)
        });
    }
    NETWORKS
        .iter()
        .find(|(name, _)| *name == class)
        .map(|(_, open)| *open)
}

/// The classes of the networks that are read here.
pub fn networks() -> impl Iterator<Item = &'static str> {
    NETWORKS
        .iter()
        .map(|(name, _)| *name)
        .chain(PICTURES.iter().copied())
        .chain(CausalLm::ARCHITECTURES)
        .chain(pipeline::CLASSES)
}

/// Reads the network of a folder on the CPU and drops it again.
///
/// # Errors
/// Config, where files are missing or no network is called so; model, with every key of the weights
/// that is missing, has another shape or is left over; external, where a file cannot be read.
pub fn check_weights(folder: &ModelFolder) -> Result<()> {
    let architecture = folder.architecture()?;
    let open = opener(architecture).ok_or_else(|| {
        let known: Vec<_> = networks().collect();
        Error::config(format!(
            "{}: no network here is called {architecture}",
            folder.path().display()
        ))
        .hint(format!("those that are read: {}", known.join(", ")))
    })?;
    // The shapes are the same in every precision; this one needs half the memory.
    open(folder, Device::Cpu, Precision::BF16)
}
