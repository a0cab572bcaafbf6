//! What makes something of packets.

pub mod caption;
pub mod embed;
pub mod encode;
pub mod keyframe;
pub mod sample;
pub mod shots;
pub mod torchscript;
pub mod transcribe;
mod vectors;
