//! The blocks that Stable Diffusion's networks are made of: residual convolutions between group
//! norms, and attention over pixels. Rombach et al., "High-Resolution Image
//! Synthesis with Latent Diffusion Models" (arXiv:2112.10752); the reference is diffusers'
//! `resnet.py` and `attention_processor.py`.

use tch::Tensor;

use crate::error::{Error, Result};
use crate::models::attention::{Attention, AttentionConfig, Biases};
use crate::models::layers::{Conv2d, ConvConfig, GroupNorm, Linear};
use crate::models::offload::tensors;
use crate::models::weights::Scope;

/// A 3x3 convolution that keeps the picture's size.
///
/// # Errors
/// Model, where the weights do not fit.
pub fn conv3x3(scope: &Scope<'_>, input: i64, output: i64) -> Result<Conv2d> {
    Ok(Conv2d::load(
        scope,
        ConvConfig {
            input,
            output,
            kernel: 3,
            stride: 1,
        },
    )?
    .packed())
}

/// `SiLU(norm(x))`: what stands before every convolution.
///
/// # Errors
/// Model, where the channels do not fit; overload, where memory is short.
pub fn norm_silu(norm: &GroupNorm, x: &Tensor) -> Result<Tensor> {
    Ok(norm.forward(x)?.f_silu_()?)
}

tensors!(ResnetBlock2D {
    norm1,
    conv1,
    time,
    norm2,
    conv2,
    shortcut
});
tensors!(PixelAttention { norm, attention });

/// A 1x1 convolution: a linear layer of every pixel, which channels-last pictures are rows of
/// already.
#[derive(Debug)]
pub struct Pointwise(Linear);

tensors!(Pointwise { 0 });

impl Pointwise {
    /// From a weight stored as a convolution's, `[output, input, 1, 1]`.
    ///
    /// # Errors
    /// Model, where the weights do not fit.
    pub fn load(scope: &Scope<'_>, input: i64, output: i64) -> Result<Self> {
        let weight = scope
            .take("weight", &[output, input, 1, 1])?
            .f_view([output, input])?;
        Ok(Self(
            Linear::new(weight, Some(scope.take("bias", &[output])?)).packed()?,
        ))
    }

    /// From a weight stored as a linear layer's, `[output, input]`.
    ///
    /// # Errors
    /// As there.
    pub fn load_linear(scope: &Scope<'_>, input: i64, output: i64) -> Result<Self> {
        Ok(Self(Linear::load(scope, input, output)?.packed()?))
    }

    /// `[n, input, h, w]`, best channels-last, to `[n, output, h, w]`.
    ///
    /// # Errors
    /// Model, where shapes do not fit; overload, where memory is short.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, _, height, width) = x.size4()?;
        let rows = self.rows(&to_rows(x)?)?;
        Ok(rows
            .f_view([batch, height, width, -1])?
            .f_permute([0, 3, 1, 2])?)
    }

    /// Pixels `[n, h * w, input]` to `[n, h * w, output]`.
    ///
    /// # Errors
    /// As there.
    pub fn rows(&self, x: &Tensor) -> Result<Tensor> {
        self.0.forward(x)
    }
}

/// A picture `[n, c, h, w]` as its pixels `[n, h * w, c]`. Channels-last pictures lie so already:
/// nothing moves.
///
/// # Errors
/// Model, where it has another shape.
pub fn to_rows(x: &Tensor) -> Result<Tensor> {
    let (batch, channels, height, width) = x.size4()?;
    Ok(x.f_permute([0, 2, 3, 1])?
        .f_reshape([batch, height * width, channels])?)
}

/// The sizes of a [`ResnetBlock2D`].
#[derive(Debug, Clone, Copy)]
pub struct ResnetShape {
    /// Channels in.
    pub input: i64,
    /// Channels out.
    pub output: i64,
    /// Width of the time embedding, in a network that takes the timestep.
    pub time: Option<i64>,
    /// Groups of its norms.
    pub groups: i64,
    /// Added to the variance.
    pub epsilon: f64,
}

/// Twice group norm, SiLU and a 3x3 convolution, added to its input (through a 1x1 convolution
/// where the channels change). The time, where there is one, is added to each channel between the
/// two.
#[derive(Debug)]
pub struct ResnetBlock2D {
    norm1: GroupNorm,
    conv1: Conv2d,
    time: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Option<Pointwise>,
}

impl ResnetBlock2D {
    /// From `norm1`, `conv1`, `time_emb_proj`, `norm2`, `conv2` and `conv_shortcut` under `scope`.
    ///
    /// # Errors
    /// Model, where the weights do not fit.
    pub fn load(scope: &Scope<'_>, shape: ResnetShape) -> Result<Self> {
        let ResnetShape {
            input,
            output,
            time,
            groups,
            epsilon,
        } = shape;
        let time = match time {
            Some(width) => Some(Linear::load(&(scope / "time_emb_proj"), width, output)?),
            None => None,
        };
        let shortcut = if input == output {
            None
        } else {
            Some(Pointwise::load(&(scope / "conv_shortcut"), input, output)?)
        };
        Ok(Self {
            norm1: GroupNorm::load(&(scope / "norm1"), input, groups, epsilon)?,
            conv1: conv3x3(&(scope / "conv1"), input, output)?,
            time,
            norm2: GroupNorm::load(&(scope / "norm2"), output, groups, epsilon)?,
            conv2: conv3x3(&(scope / "conv2"), output, output)?,
            shortcut,
        })
    }

    /// `[n, input, h, w]` to `[n, output, h, w]`. `time` is the SiLU of the time embedding, `[n,
    /// time]` or `[1, time]`: the same for every block, so the network computes it once.
    ///
    /// # Errors
    /// Model, where shapes do not fit; overload, where memory is short; bug, where the time is given
    /// to a block without it or the other way round.
    pub fn forward(&self, x: &Tensor, time: Option<&Tensor>) -> Result<Tensor> {
        let inside = norm_silu(&self.norm1, x)?;
        let inside = match (&self.time, time) {
            (Some(projection), Some(time)) => {
                let shift = projection.forward(time)?;
                match shift.size2()? {
                    // One time for all is part of the convolution's bias, and costs no pass over
                    // the picture.
                    (1, channels) => self.conv1.forward_biased(
                        &inside,
                        Some(&shift.f_view([channels])?.f_add(self.conv1.bias())?),
                    )?,
                    _ => self
                        .conv1
                        .forward(&inside)?
                        .f_add_(&shift.f_unsqueeze(-1)?.f_unsqueeze(-1)?)?,
                }
            }
            (None, None) => self.conv1.forward(&inside)?,
            _ => {
                return Err(Error::bug(
                    "a residual block and its network disagree about the time embedding",
                ));
            }
        };
        let mut out = self.conv2.forward(&norm_silu(&self.norm2, &inside)?)?;
        Ok(match &self.shortcut {
            Some(shortcut) => out.f_add_(&shortcut.forward(x)?)?,
            None => out.f_add_(x)?,
        })
    }
}

/// One head of attention of a picture's pixels with each other, added to its input.
#[derive(Debug)]
pub struct PixelAttention {
    norm: GroupNorm,
    attention: Attention,
}

impl PixelAttention {
    /// From `group_norm`, `to_q`, `to_k`, `to_v` and `to_out.0` under `scope`, or, in older
    /// checkpoints, `query`, `key`, `value` and `proj_attn`.
    ///
    /// # Errors
    /// Model, where the weights do not fit.
    pub fn load(scope: &Scope<'_>, channels: i64, groups: i64, epsilon: f64) -> Result<Self> {
        let older = scope.has("query.weight");
        let names = if older {
            ["query", "key", "value", "proj_attn"]
        } else {
            ["to_q", "to_k", "to_v", "to_out.0"]
        };
        Ok(Self {
            norm: GroupNorm::load(&(scope / "group_norm"), channels, groups, epsilon)?,
            attention: Attention::load_self(
                scope,
                names,
                AttentionConfig::self_attention(channels, 1),
                Biases::ALL,
            )?,
        })
    }

    /// `[n, channels, h, w]` to the same.
    ///
    /// # Errors
    /// Model, where shapes do not fit; overload, where memory is short.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, channels, height, width) = x.size4()?;
        let pixels = to_rows(&self.norm.forward(x)?)?;
        let mixed = self
            .attention
            .forward(&pixels, None, false)?
            .f_view([batch, height, width, channels])?;
        Ok(mixed.f_permute([0, 3, 1, 2])?.f_add_(x)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::golden::weight;
    use crate::models::weights::Weights;
    use crate::tensor::Precision;
    use tch::{Device, Kind};

    fn weights(tensors: &[(&str, &[i64])]) -> Weights {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let tensors: Vec<(&str, Tensor)> = tensors
            .iter()
            .map(|(key, shape)| (*key, weight(key, shape)))
            .collect();
        Tensor::write_safetensors(&tensors, &path).unwrap();
        Weights::open(&[path], Device::Cpu, Precision::F32).unwrap()
    }

    #[test]
    fn a_block_without_its_time_is_a_bug() {
        let keys: [(&str, &[i64]); 10] = [
            ("norm1.weight", &[4]),
            ("norm1.bias", &[4]),
            ("conv1.weight", &[4, 4, 3, 3]),
            ("conv1.bias", &[4]),
            ("time_emb_proj.weight", &[4, 3]),
            ("time_emb_proj.bias", &[4]),
            ("norm2.weight", &[4]),
            ("norm2.bias", &[4]),
            ("conv2.weight", &[4, 4, 3, 3]),
            ("conv2.bias", &[4]),
        ];
        let weights = weights(&keys);
        let shape = ResnetShape {
            input: 4,
            output: 4,
            time: Some(3),
            groups: 2,
            epsilon: 1e-6,
        };
        let block = ResnetBlock2D::load(&weights.root(), shape).unwrap();
        let x = Tensor::randn([1, 4, 3, 3], (Kind::Float, Device::Cpu));
        assert_eq!(
            block.forward(&x, None).unwrap_err().kind(),
            crate::error::Kind::Bug
        );
        assert_eq!(
            block
                .forward(&x, Some(&Tensor::zeros([1, 3], (Kind::Float, Device::Cpu))))
                .unwrap()
                .size(),
            x.size()
        );
    }
}
