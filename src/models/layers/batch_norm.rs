//! Batch norm at inference: one factor and one summand a channel, to be folded into the convolution
//! before it.

use tch::Tensor;

use crate::error::Result;
use crate::models::weights::Scope;

/// Batch norm at inference: `x * scale + shift` per channel.
#[derive(Debug)]
pub struct Affine {
    /// Factor per channel.
    pub scale: Tensor,
    /// Summand per channel.
    pub shift: Tensor,
}

impl Affine {
    /// From running mean and variance, in f32 on the CPU; the arithmetic is done in f64.
    pub fn load_batch_norm(norm: &Scope<'_>, channels: i64, epsilon: f64) -> Result<Self> {
        let take = |name| -> Result<Tensor> {
            Ok(norm
                .take_f32(name, &[channels])?
                .f_to_kind(tch::Kind::Double)?)
        };
        let (weight, bias, mean, variance) = (
            take("weight")?,
            take("bias")?,
            take("running_mean")?,
            take("running_var")?,
        );
        let scale = weight.f_div(&variance.f_add_scalar(epsilon)?.f_sqrt()?)?;
        let shift = bias.f_sub(&mean.f_mul(&scale)?)?;
        Ok(Self {
            scale: scale.f_to_kind(tch::Kind::Float)?,
            shift: shift.f_to_kind(tch::Kind::Float)?,
        })
    }

    /// The weight of a convolution that this follows, with the factor folded in.
    pub fn scale_outputs(&self, weight: &Tensor) -> Result<Tensor> {
        Ok(weight.f_mul(&self.scale.f_view([-1, 1, 1, 1])?)?)
    }
}
