//! The layers that networks here are made of, as inference wants them: batch norm folded into the
//! convolution before it, weights laid out channels-last or as oneDNN wants them, no dropout.

mod activation;
mod batch_norm;
mod convolution;
mod embedding;
mod linear;
mod mlp;
mod normalization;

pub use activation::Activation;
pub use batch_norm::Affine;
pub use convolution::{Conv1d, Conv2d, ConvConfig};
pub use embedding::Embedding;
pub use linear::Linear;
pub use mlp::Mlp;
pub use normalization::{GroupNorm, LayerNorm};
