//! Attention of many heads, of a sequence with itself or with another: Vaswani et al., "Attention
//! Is All You Need" (arXiv:1706.03762).

mod config;
mod kernels;
mod layer;

pub use config::{AttentionConfig, AttentionKind, Biases};
pub use kernels::KeyValue;
pub use layer::Attention;
