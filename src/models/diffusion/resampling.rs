//! Halving and doubling of pictures, as Stable Diffusion's networks do it. The reference is diffusers'
//! `downsampling.py` and `upsampling.py`.

use tch::Tensor;

use crate::error::Result;
use crate::models::layers::Conv2d;
use crate::models::offload::tensors;
use crate::models::weights::Scope;
use crate::tensor::Conv2dParams;

tensors!(Downsample2D { conv });
tensors!(Upsample2D { conv });

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
    pub fn load(scope: &Scope<'_>, channels: i64, border: Border) -> Result<Self> {
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
    pub fn load(scope: &Scope<'_>, channels: i64, biased: bool) -> Result<Self> {
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
            conv: Conv2d::place(scope, &weight, &bias, Conv2dParams::dense([1, 1], [1, 1]))?
                .packed(),
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
        let up = Upsample2D::load(&(weights.root() / "up"), 6, true).unwrap();
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
}
