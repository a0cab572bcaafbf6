//! Neural networks in tch, from folders in Hugging Face layout; synchronous, they know nothing of
//! tokio, YAML or metrics.

pub mod attention;
pub(crate) mod blip;
pub(crate) mod caption_decoder;
pub(crate) mod classes;
pub mod clip;
pub(crate) mod config;
pub(crate) mod decoder;
pub mod diffusion;
pub(crate) mod dinov2;
pub(crate) mod files;
pub(crate) mod folder;
#[cfg(test)]
mod golden;
pub(crate) mod gpt2;
pub(crate) mod hub;
pub(crate) mod image_processor;
pub mod layers;
pub(crate) mod llama;
#[cfg(test)]
mod network_conformance;
pub(crate) mod network_spec;
pub mod networks;
pub(crate) mod offload;
pub(crate) mod opus_captions;
pub mod opus_encoder;
pub(crate) mod patch_embedding;
pub mod picture_encoder;
pub mod resnet;
pub(crate) mod scenes;
pub(crate) mod siglip;
pub(crate) mod silero_vad;
pub(crate) mod summary;
pub mod text;
pub(crate) mod torchscript;
pub(crate) mod transformer;
pub mod transnetv2;
pub(crate) mod vision_tower;
pub(crate) mod weights;
pub mod whisper;

pub use config::Config;
pub use folder::ModelFolder;
pub use summary::ModelSummary;
pub use weights::{Scope, Weights};
