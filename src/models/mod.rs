//! Neural networks in tch, from folders in Hugging Face layout; synchronous, they know nothing of
//! tokio, YAML or metrics.

pub mod attention;
pub mod blip;
pub mod caption_decoder;
pub mod classes;
pub mod clip;
pub mod config;
pub mod decoder;
pub mod diffusion;
pub mod dinov2;
pub mod files;
pub mod folder;
#[cfg(test)]
mod golden;
pub mod gpt2;
pub mod hub;
pub mod image_processor;
pub mod layers;
pub mod llama;
#[cfg(test)]
mod network_conformance;
pub mod network_spec;
pub mod networks;
pub mod offload;
pub mod opus_captions;
pub mod opus_encoder;
pub mod patch_embedding;
pub mod picture_encoder;
pub mod resnet;
pub mod scenes;
pub mod siglip;
pub mod silero_vad;
pub mod summary;
pub mod text;
pub mod torchscript;
pub mod transformer;
pub mod transnetv2;
pub mod vision_tower;
pub mod weights;
pub mod whisper;

pub use config::Config;
pub use folder::ModelFolder;
pub use summary::ModelSummary;
pub use weights::{Scope, Weights};
