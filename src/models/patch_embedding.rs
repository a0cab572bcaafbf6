//! The start of a vision transformer: a picture's patches as a sequence of vectors, straight from
//! bytes. Scaling, normalisation, bias and positions are folded into the weights, and the
//! convolution over patches that do not overlap is one product.

use tch::{Device, Kind, Tensor};

use super::image_processor::{ImageProcessor, check};
use super::layers::Linear;
use super::weights::Weights;
use crate::error::{Error, Result};

/// Patches to vectors.
#[derive(Debug)]
pub struct PatchEmbedding {
    /// Of a patch's pixels row by row, side * side * 3 bytes; without a bias, which is in the
    /// table.
    product: Linear,
    /// `[rows * columns, width]`: positions, and what is constant in the product.
    table: Tensor,
    /// `[1, count, width]`: what stands before the patches.
    before: Option<Tensor>,
    side: i64,
    size: [i64; 2],
    /// Bytes go in less this, times that. Both are exact in halves, which the 255th of a byte is
    /// not; f32 takes bytes as they are.
    entry: Option<(f64, f64)>,
}

/// What a tower puts to its patches; in f32 on the CPU.
#[derive(Debug)]
pub struct PatchWeights {
    /// The convolution over patches, `[width, 3, side, side]`.
    pub weight: Tensor,
    /// Its bias, `[width]`.
    pub bias: Option<Tensor>,
    /// `[rows * columns, width]`: the position of each patch.
    pub positions: Tensor,
    /// `[count, width]`: what stands before the patches, with its positions.
    pub before: Option<Tensor>,
}

impl PatchEmbedding {
    /// Of `parts`, for pictures as `preprocess` makes them, put where `weights` are put.
    ///
    /// # Errors
    /// Model, where the sizes of pictures and positions do not fit each other.
    pub fn build(
        weights: &Weights,
        parts: &PatchWeights,
        preprocess: &ImageProcessor,
    ) -> Result<Self> {
        let (width, _, side, _) = parts.weight.size4()?;
        let size = preprocess.size().ok_or_else(|| {
            Error::model("pictures of one size must come out of preprocessor_config.json")
        })?;
        let patches = (size[0] / side) * (size[1] / side);
        if parts.positions.size() != [patches, width] || patches == 0 {
            return Err(Error::model(format!(
                "pictures of {}x{} pixels have {patches} patches of {side}x{side}, the network \
                 has {} positions",
                size[0],
                size[1],
                parts.positions.size()[0]
            ))
            .hint("config.json and preprocessor_config.json must be of the same model"));
        }
        let entry = (weights.precision().kind() != Kind::Float).then_some((128., 1. / 256.));
        let (less, times) = entry.unwrap_or((0., 1.));
        let column = |values: [f64; 3]| Tensor::f_from_slice(&values)?.f_view([3, 1, 1]);
        // (byte - mean) / std, of what goes in: in / (times * std) + (less - mean) / std.
        let scale = column(preprocess.std.map(|std| 1. / (times * std)))?;
        let scaled = parts.weight.f_to_kind(Kind::Double)?.f_mul(&scale)?;
        let weight = scaled
            .f_permute([0, 2, 3, 1])?
            .f_reshape([width, side * side * 3])?;
        let weight = weights.place(&weight.f_to_kind(Kind::Float)?)?;
        // Of the weights as they were rounded, so that what the mean adds to a product is taken off
        // again to the last digit.
        let rounded = weight
            .f_to_device(Device::Cpu)?
            .f_to_kind(Kind::Double)?
            .f_view([width, side * side, 3])?;
        let shift = Tensor::f_from_slice(&preprocess.mean.map(|mean| (less - mean) * times))?;
        let mut constant = rounded
            .f_sum_dim_intlist([1].as_slice(), false, None)?
            .f_matmul(&shift)?;
        if let Some(bias) = &parts.bias {
            constant = constant.f_add(bias)?;
        }
        let table = weights.place(&parts.positions.f_add(&constant)?.f_to_kind(Kind::Float)?)?;
        let before = parts
            .before
            .as_ref()
            .map(|before| weights.place(&before.f_unsqueeze(0)?))
            .transpose()?;
        Ok(Self {
            product: Linear::new(weight, None).packed()?,
            table,
            before,
            side,
            size,
            entry,
        })
    }

    /// Rows and columns of the pictures that it takes.
    pub fn size(&self) -> [i64; 2] {
        self.size
    }

    /// Bytes `[n, h, w, 3]` of [`size`](Self::size) to `[n, t, width]`: what stands before, then
    /// the patches, row by row.
    ///
    /// # Errors
    /// Model, where the input has another shape; overload, where memory is short.
    pub fn forward(&self, frames: &Tensor) -> Result<Tensor> {
        let found = check(frames)?;
        if found != self.size {
            let ([h, w], [rows, columns]) = (found, self.size);
            return Err(Error::model(format!(
                "frames of {h}x{w} pixels (rows x columns), the network reads {rows}x{columns}"
            )));
        }
        let (n, side, width) = (frames.size()[0], self.side, self.table.size()[1]);
        let [rows, columns] = self.size.map(|pixels| pixels / side);
        let whole = frames
            .f_narrow(1, 0, rows * side)?
            .f_narrow(2, 0, columns * side)?;
        let patches = whole
            .f_reshape([n, rows, side, columns, side * 3])?
            .f_permute([0, 1, 3, 2, 4])?;
        let mut numbers = patches
            .f_reshape([n * rows * columns, side * side * 3])?
            .f_to_kind(self.table.kind())?;
        if let Some((less, times)) = self.entry {
            numbers = numbers.f_sub_scalar_(less)?.f_mul_scalar_(times)?;
        }
        let sequence = self
            .product
            .forward(&numbers)?
            .f_view([n, rows * columns, width])?
            .f_add_(&self.table)?;
        match &self.before {
            Some(before) => Ok(Tensor::f_cat(
                &[&before.f_expand([n, -1, width], false)?, &sequence],
                1,
            )?),
            None => Ok(sequence),
        }
    }
}

/// Positions `[rows * rows, width]` of a square of patches at another grid, by cubics: how a vision
/// transformer reads pictures of another size than it was trained on.
///
/// # Errors
/// Model, where the positions are of no square.
pub fn interpolate_positions(
    positions: &Tensor,
    [rows, columns]: [i64; 2],
    antialias: bool,
) -> Result<Tensor> {
    let (count, width) = positions.size2()?;
    let square = (count as f64).sqrt().round() as i64;
    if square * square != count {
        return Err(Error::model(format!("{count} positions are of no square")));
    }
    if [rows, columns] == [square, square] {
        return Ok(positions.shallow_clone());
    }
    let planes = positions
        .f_reshape([1, square, square, width])?
        .f_permute([0, 3, 1, 2])?
        .f_contiguous()?;
    let grid = match antialias {
        true => planes.f_internal_upsample_bicubic2d_aa([rows, columns], false, None, None)?,
        false => planes.f_upsample_bicubic2d([rows, columns], false, None, None)?,
    };
    Ok(grid
        .f_permute([0, 2, 3, 1])?
        .f_reshape([rows * columns, width])?)
}
