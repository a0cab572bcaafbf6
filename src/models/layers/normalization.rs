//! Normalisation of activations: over the last dimension, or over groups of channels.

use tch::Tensor;

use crate::error::Result;
use crate::models::offload::tensors;
use crate::models::weights::Scope;
use crate::tensor::group_norm;

tensors!(LayerNorm { weight, bias });
tensors!(GroupNorm { weight, bias });

/// Normalisation over the last dimension.
#[derive(Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    epsilon: f64,
}

impl LayerNorm {
    /// In the model's precision; `epsilon` is added to the variance.
    pub fn load(scope: &Scope<'_>, size: i64, epsilon: f64) -> Result<Self> {
        Ok(Self {
            weight: scope.take("weight", &[size])?,
            bias: scope.take("bias", &[size])?,
            epsilon,
        })
    }

    /// Values of mean 0 and variance 1, scaled and shifted.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_layer_norm(
            self.weight.size(),
            Some(&self.weight),
            Some(&self.bias),
            self.epsilon,
            true,
        )?)
    }
}

/// Normalisation over groups of channels of a picture.
#[derive(Debug)]
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: i64,
    epsilon: f64,
}

impl GroupNorm {
    /// `channels` in `groups`, in the model's precision; `epsilon` is added to the variance.
    pub fn load(scope: &Scope<'_>, channels: i64, groups: i64, epsilon: f64) -> Result<Self> {
        Ok(Self {
            weight: scope.take("weight", &[channels])?,
            bias: scope.take("bias", &[channels])?,
            groups,
            epsilon,
        })
    }

    /// `[n, channels, ...]` to the same.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        group_norm(x, self.groups, &self.weight, &self.bias, self.epsilon)
    }
}
