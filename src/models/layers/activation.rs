//! The functions between two layers.

use tch::Tensor;

use crate::error::Result;
use crate::models::config::Config;
use crate::tensor::PostOp;

/// What stands between two layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x * Phi(x).
    Gelu,
    /// GELU by its tanh approximation.
    GeluTanh,
    /// x * sigmoid(1.702 x), as OpenAI's CLIP has it.
    QuickGelu,
    /// x * sigmoid(x).
    Silu,
    /// max(x, 0).
    Relu,
}

impl Activation {
    /// The activation that `field` of a config.json names, in transformers' words; `default` where
    /// it is missing.
    ///
    /// # Errors
    /// Model, where it is none of these.
    pub fn read(config: &Config, field: &str, default: &str) -> Result<Self> {
        match config.string_or(field, default)? {
            "gelu" => Ok(Self::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Self::GeluTanh),
            "quick_gelu" => Ok(Self::QuickGelu),
            "silu" | "swish" => Ok(Self::Silu),
            "relu" => Ok(Self::Relu),
            other => Err(config.error(format_args!(
                "`{field}` must be gelu, gelu_new, gelu_pytorch_tanh, quick_gelu, silu or relu, \
                 it is {other}"
            ))),
        }
    }

    /// As what may follow a product in the same pass.
    pub(super) fn fused(self) -> Option<PostOp> {
        match self {
            Self::Gelu => Some(PostOp::Gelu),
            Self::GeluTanh => Some(PostOp::GeluTanh),
            Self::Silu => Some(PostOp::Silu),
            Self::Relu => Some(PostOp::Relu),
            Self::QuickGelu => None,
        }
    }

    /// Of every value.
    pub fn forward(self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Gelu => x.f_gelu("none")?,
            Self::GeluTanh => x.f_gelu("tanh")?,
            Self::QuickGelu => x.f_mul(&x.f_mul_scalar(1.702)?.f_sigmoid_()?)?,
            Self::Silu => x.f_silu()?,
            Self::Relu => x.f_relu()?,
        })
    }
}
