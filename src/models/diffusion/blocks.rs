//! The blocks that Stable Diffusion's networks are made of: residual convolutions between group
//! norms, attention over pixels, halving and doubling. Rombach et al., "High-Resolution Image
//! Synthesis with Latent Diffusion Models" (arXiv:2112.10752); the reference is diffusers'
//! `resnet.py`, `downsampling.py`, `upsampling.py`.

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
tensors!(Downsample2D { conv });
tensors!(Upsample2D { conv });

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
    pub fn new(scope: &Scope<'_>, input: i64, output: i64) -> Result<Self> {
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
    pub fn linear(scope: &Scope<'_>, input: i64, output: i64) -> Result<Self> {
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
    /// Width of the time embedding, in a network that is told the time.
    pub time: Option<i64>,
    /// Groups of its norms.
    pub groups: i64,
    /// Added to the variance.
    pub epsilon: f64,
}

/// Twice group norm, SiLU and a 3x3 convolution, added to its input (through a 1x1 convolution
/// where the channels change). The time, where it is told, is added to each channel between the
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
    pub fn new(scope: &Scope<'_>, shape: ResnetShape) -> Result<Self> {
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
            Some(Pointwise::new(&(scope / "conv_shortcut"), input, output)?)
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
    /// Model, where shapes do not fit; overload, where memory is short; bug, where the time is told
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
    pub fn new(scope: &Scope<'_>, channels: i64, groups: i64, epsilon: f64) -> Result<Self> {
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

/// Where a [`Downsample2D`] puts zeros around the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Border {
    /// One row and column on every side, as in the UNet.
    Around,
    /// One row below and one column to the right, as in the autoencoder.
    Behind,
}

/// A convolution that halves the picture.
#[derive(Debug)]
pub struct Downsample2D {
    conv: Conv2d,
    border: Border,
}

impl Downsample2D {
    /// From `conv` under `scope`; as many channels come out as go in.
    ///
    /// # Errors
    /// Model, where the weights do not fit.
    pub fn new(scope: &Scope<'_>, channels: i64, border: Border) -> Result<Self> {
        let scope = scope / "conv";
        let weight = scope.take("weight", &[channels, channels, 3, 3])?;
        let padding = if border == Border::Around { 1 } else { 0 };
        let conv = Conv2d::build(
            &weight,
            &scope.take("bias", &[channels])?,
            [2, 2],
            [padding, padding],
        )?
        .packed();
        Ok(Self { conv, border })
    }

    /// `[n, channels, h, w]` to `[n, channels, h / 2, w / 2]`, odd sizes rounded up by
    /// [`Border::Around`] and down by [`Border::Behind`].
    ///
    /// # Errors
    /// Model, where shapes do not fit; overload, where memory is short.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self.border {
            Border::Around => self.conv.forward(x),
            Border::Behind => self.conv.forward(&x.f_constant_pad_nd([0, 1, 0, 1])?),
        }
    }
}

/// Every pixel doubled both ways, then a 3x3 convolution, as one convolution of the small picture:
/// each of the four pixels that one becomes sees but 2x2 different ones, so its kernel is the 3x3
/// one with the rows and columns added up that fall on the same pixel.
#[derive(Debug)]
pub struct Upsample2D {
    conv: Conv2d,
    channels: i64,
}

impl Upsample2D {
    /// From the weight and, where `biased`, the bias under `scope` (`upsamplers.0.conv`); as many
    /// channels come out as go in.
    ///
    /// # Errors
    /// Model, where the weights do not fit.
    pub fn new(scope: &Scope<'_>, channels: i64, biased: bool) -> Result<Self> {
        let weight = scope.take_f32("weight", &[channels, channels, 3, 3])?;
        let mut kernels = Vec::new();
        for rows in fold(&weight, 2)? {
            kernels.extend(fold(&rows, 3)?);
        }
        let bias = if biased {
            scope.take_f32("bias", &[channels])?
        } else {
            weight.f_new_zeros([channels], (weight.kind(), weight.device()))?
        };
        let (weight, bias) = (Tensor::f_cat(&kernels, 0)?, bias.f_repeat([4])?);
        Ok(Self {
            conv: Conv2d::place(scope, &weight, &bias, [1, 1], [1, 1], [1, 1])?.packed(),
            channels,
        })
    }

    /// `[n, channels, h, w]` to `[n, channels, 2 h, 2 w]`.
    ///
    /// # Errors
    /// Model, where shapes do not fit; overload, where memory is short.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        // The pixel (2i + a, 2j + b) is in the plane of (a, b) at (i + a, j + b).
        let planes = self
            .conv
            .forward(x)?
            .f_permute([0, 2, 3, 1])?
            .f_contiguous()?;
        let (batch, height, width, _) = planes.size4()?;
        let (height, width, channels) = (height - 1, width - 1, self.channels);
        let (picture, row, pixel) = (
            (height + 1) * (width + 1) * 4 * channels,
            (width + 1) * 4 * channels,
            4 * channels,
        );
        let strides = [picture, row, row + 2 * channels, pixel, pixel + channels, 1];
        let pixels = planes.f_as_strided([batch, height, 2, width, 2, channels], strides, None)?;
        Ok(pixels
            .f_reshape([batch, 2 * height, 2 * width, channels])?
            .f_permute([0, 3, 1, 2])?)
    }

    /// As [`forward`](Self::forward), to `height` x `width`, where each may be one less than the
    /// double: what a picture was halved from may have been odd.
    ///
    /// # Errors
    /// As there.
    pub fn forward_to(&self, x: &Tensor, height: i64, width: i64) -> Result<Tensor> {
        let (_, channels, h, w) = x.size4()?;
        if (height, width) == (2 * h, 2 * w) {
            return self.forward(x);
        }
        // Beyond an odd edge are zeros, where the doubled kernels see the last pixel twice: the 3x3
        // kernel is had back from them.
        let kernels = self
            .conv
            .weight()?
            .f_reshape([2, 2, channels, channels, 2, 2])?;
        let columns = unfold(&kernels.f_select(1, 0)?, &kernels.f_select(1, 1)?, 4)?;
        let weight = unfold(&columns.f_select(0, 0)?, &columns.f_select(0, 1)?, 2)?;
        let conv = Conv2d::build(
            &weight,
            &self.conv.bias().f_narrow(0, 0, channels)?,
            [1, 1],
            [1, 1],
        )?;
        conv.forward(&x.f_upsample_nearest2d([height, width], None, None)?)
    }
}

/// The kernels, two taps long along `dim`, that the first and the second of a pair of doubled
/// pixels have of a kernel three taps long.
fn fold(kernel: &Tensor, dim: i64) -> Result<[Tensor; 2]> {
    let [first, middle, last] = [
        kernel.f_narrow(dim, 0, 1)?,
        kernel.f_narrow(dim, 1, 1)?,
        kernel.f_narrow(dim, 2, 1)?,
    ];
    Ok([
        Tensor::f_cat(&[&first, &middle.f_add(&last)?], dim)?,
        Tensor::f_cat(&[&first.f_add(&middle)?, &last], dim)?,
    ])
}

/// The kernel that [`fold`] made these two of.
fn unfold(first: &Tensor, second: &Tensor, dim: i64) -> Result<Tensor> {
    let (start, end) = (first.f_narrow(dim, 0, 1)?, second.f_narrow(dim, 1, 1)?);
    let middle = second.f_narrow(dim, 0, 1)?.f_sub(&start)?;
    Ok(Tensor::f_cat(&[start, middle, end], dim)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::golden::{relative_error, weight};
    use crate::models::weights::Weights;
    use crate::tensor::{Precision, channels_last};
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
    fn one_convolution_doubles_and_convolves() {
        let weights = weights(&[("up.weight", &[6, 6, 3, 3]), ("up.bias", &[6])]);
        let up = Upsample2D::new(&(weights.root() / "up"), 6, true).unwrap();
        let (kernel, bias) = (weight("up.weight", &[6, 6, 3, 3]), weight("up.bias", &[6]));
        let x = channels_last(&Tensor::randn([2, 6, 5, 7], (Kind::Float, Device::Cpu))).unwrap();
        for (height, width) in [(10, 14), (9, 14), (10, 13), (9, 13)] {
            let expected = x.upsample_nearest2d([height, width], None, None).conv2d(
                &kernel,
                Some(&bias),
                [1, 1],
                [1, 1],
                [1, 1],
                1,
            );
            let found = up.forward_to(&x, height, width).unwrap();
            let error = relative_error(&found, &expected);
            assert!(error < 1e-6, "{height}x{width}: {error}");
        }
        assert_eq!(
            up.forward(&x).unwrap().stride()[1],
            1,
            "channels-last, as it came"
        );
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
        let block = ResnetBlock2D::new(&weights.root(), shape).unwrap();
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
