//! The fully connected layer: a product, as oneDNN computes it fastest where it may.

use tch::Tensor;

use super::activation::Activation;
use crate::error::Result;
use crate::models::offload::tensors;
use crate::models::weights::Scope;
use crate::tensor::{PostOp, pack, product};

tensors!(Linear { weight, bias });

/// A fully connected layer.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// In the model's precision, with a bias.
    pub fn load(scope: &Scope<'_>, input: i64, output: i64) -> Result<Self> {
        Self::load_biased(scope, input, output, true)
    }

    /// In the model's precision, with or without a bias.
    pub fn load_biased(scope: &Scope<'_>, input: i64, output: i64, biased: bool) -> Result<Self> {
        let weight = scope.take("weight", &[output, input])?;
        Ok(Self {
            weight,
            bias: if biased {
                Some(scope.take("bias", &[output])?)
            } else {
                None
            },
        })
    }

    /// In f32 whatever the model's precision, for heads that decide.
    pub fn load_f32(scope: &Scope<'_>, input: i64, output: i64) -> Result<Self> {
        let device = scope.weights().device();
        let weight = scope
            .take_f32("weight", &[output, input])?
            .f_to_device(device)?;
        let bias = scope.take_f32("bias", &[output])?.f_to_device(device)?;
        Ok(Self {
            weight,
            bias: Some(bias),
        })
    }

    /// With its weight and its bias each multiplied by a factor, `[]` or `[output]`: what is
    /// constant after it, or before it, costs nothing when it runs.
    pub fn load_scaled(
        scope: &Scope<'_>,
        input: i64,
        output: i64,
        weight: &Tensor,
        bias: &Tensor,
    ) -> Result<Self> {
        let scaled = scope
            .take_f32("weight", &[output, input])?
            .f_mul(&weight.f_reshape([-1, 1])?)?;
        let bias = scope.take_f32("bias", &[output])?.f_mul(bias)?;
        Ok(Self {
            weight: scope.weights().place(&scaled)?,
            bias: Some(scope.weights().place(&bias)?),
        })
    }

    /// From tensors that do not lie under `weight` and `bias`.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight, bias }
    }

    /// The same with its weight laid out for oneDNN, where it lies on a CPU: for few rows half the
    /// time or less. Its weight cannot be looked at then. A table of words that is a head, too, is
    /// copied for it.
    pub fn packed(self) -> Result<Self> {
        Ok(match pack(&self.weight)? {
            Some(weight) => Self { weight, ..self },
            None => self,
        })
    }

    /// `[output, input]`.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// One number for each of its outputs.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// `[..., input]` to `[..., output]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match product(x, &self.weight, self.bias.as_ref(), PostOp::Nothing) {
            Some(product) => Ok(product),
            // A packed weight is refused where x does not fit: libtorch's own says why.
            None if self.weight.is_mkldnn() => {
                Ok(x.f_linear(&self.weight.f_to_dense(None, false)?, self.bias.as_ref())?)
            }
            None => Ok(x.f_linear(&self.weight, self.bias.as_ref())?),
        }
    }

    /// The same, and the activation of it, in one pass where the device can.
    pub fn forward_activated(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        let fused = activation
            .fused()
            .and_then(|then| product(x, &self.weight, self.bias.as_ref(), then));
        match fused {
            Some(product) => Ok(product),
            None => activation.forward(&self.forward(x)?),
        }
    }
}
