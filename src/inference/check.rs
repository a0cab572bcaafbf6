//! Whether a model folder holds what its network is read from: config.json and the weights, key by key.

use crate::error::{Error, Result};
use crate::models::ModelFolder;
use crate::models::opus_encoder::OpusEncoder;
use crate::models::resnet::ResNet;
use crate::models::text::Generator;
use crate::models::transnetv2::TransNetV2;
use crate::tensor::{Device, Precision};

type Open = fn(&ModelFolder, Device, Precision) -> Result<()>;

/// Every network that is read here, by the class that its config.json names.
const NETWORKS: &[(&str, Open)] = &[
    ("LlamaForCausalLM", |folder, device, precision| Generator::load(folder, device, precision).map(drop)),
    ("OpusEncoder", |folder, device, precision| OpusEncoder::open(folder, device, precision).map(drop)),
    ("ResNetForImageClassification", |folder, device, precision| ResNet::open(folder, device, precision).map(drop)),
    ("TransNetV2", |folder, device, precision| TransNetV2::open(folder, device, precision).map(drop)),
];

/// The classes of the networks that are read here.
pub fn networks() -> impl Iterator<Item = &'static str> {
    NETWORKS.iter().map(|(name, _)| *name)
}

/// Reads the network of a folder on the CPU and drops it again.
///
/// # Errors
/// Config, where files are missing or no network is called so; model, with every key of the weights that is missing, has another shape or is
/// left over; external, where a file cannot be read.
pub fn check_weights(folder: &ModelFolder) -> Result<()> {
    let architecture = folder.architecture()?;
    let network = NETWORKS.iter().find(|(name, _)| *name == architecture);
    let (_, open) = network.ok_or_else(|| {
        let known: Vec<_> = networks().collect();
        Error::config(format!("{}: no network here is called {architecture}", folder.path().display()))
            .hint(format!("those that are read: {}", known.join(", ")))
    })?;
    // The shapes are the same in every precision; this one needs half the memory.
    open(folder, Device::Cpu, Precision::BF16)
}
