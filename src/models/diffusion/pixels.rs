//! Between bytes and the numbers of -1..1 that autoencoders know pictures as; the reference is
//! diffusers' `VaeImageProcessor`.

use tch::{Kind, Tensor};

use crate::error::Result;
use crate::tensor::{Precision, normalise};

/// Bytes `[n, h, w, 3]` as pictures `[n, 3, h, w]` in -1..1 of `precision`, channels-last.
///
/// # Errors
/// Model, where they have another shape.
pub fn from_bytes(frames: &Tensor, precision: Precision) -> Result<Tensor> {
    normalise(frames, [0.5; 3], [0.5; 3], precision)
}

/// Pictures `[n, 3, h, w]` as bytes `[n, h, w, 3]`; what is beyond -1..1 is cut off, what is
/// between two bytes goes to the nearer, or the even.
///
/// # Errors
/// Model, where they have another shape; overload, where memory is short.
pub fn to_bytes(pictures: &Tensor) -> Result<Tensor> {
    // Rounded where the reference rounds.
    let unit = pictures
        .f_permute([0, 2, 3, 1])?
        .f_to_kind(Kind::Float)?
        .f_mul_scalar(0.5)?
        .f_add_scalar_(0.5)?
        .f_clamp_(0., 1.)?;
    Ok(unit
        .f_mul_scalar(255.)?
        .f_round_()?
        .f_to_kind(Kind::Uint8)?
        .f_contiguous()?)
}
