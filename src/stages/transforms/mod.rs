//! What makes something of packets.

pub mod caption;
pub mod diffuse;
pub mod embed;
pub mod encode;
pub mod keyframe;
mod prompt;
pub mod sample;
pub mod shots;
pub mod torchscript;
pub mod transcribe;
mod vectors;
