//! What a network's output means, and what is done to the picture that it predicts before it is
//! used.

use tch::{Kind, Tensor};

use crate::error::Result;
use crate::models::config::Config;

/// What the output is of a sample that is `alpha * picture + sigma * noise`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prediction {
    /// The noise.
    Epsilon,
    /// `alpha * noise - sigma * picture` (Salimans and Ho, arXiv:2202.00512).
    Velocity,
    /// The picture.
    Sample,
}

/// A sum of two tensors: the sample times the first, the output times the second.
pub(super) type Factors = (f64, f64);

impl Prediction {
    /// From `prediction_type`, one of `allowed`.
    pub(super) fn read(config: &Config, allowed: &[(&str, Self)]) -> Result<Self> {
        choice(config, "prediction_type", "epsilon", allowed)
    }

    /// The predicted picture.
    pub(super) fn picture(self, alpha: f64, sigma: f64) -> Factors {
        match self {
            Self::Epsilon => (1. / alpha, -sigma / alpha),
            Self::Velocity => (alpha, -sigma),
            Self::Sample => (0., 1.),
        }
    }

    /// The predicted noise.
    pub(super) fn noise(self, alpha: f64, sigma: f64) -> Factors {
        match self {
            Self::Epsilon => (0., 1.),
            Self::Velocity => (sigma, alpha),
            Self::Sample => (1. / sigma, -alpha / sigma),
        }
    }
}

/// All three, by their names in a configuration.
pub(super) const PREDICTIONS: [(&str, Prediction); 3] = [
    ("epsilon", Prediction::Epsilon),
    ("v_prediction", Prediction::Velocity),
    ("sample", Prediction::Sample),
];

/// What keeps a predicted picture in range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Limit {
    /// Nothing.
    None,
    /// Values beyond -range and range are cut off.
    Clip { range: f64 },
    /// Imagen's dynamic thresholding (arXiv:2205.11487): `ratio` of a picture's values are in
    /// -s..s; s, from 1 to `max`, is where it is cut off, and what it is divided by.
    Threshold { ratio: f64, max: f64 },
}

impl Limit {
    /// From `thresholding` and, where the class clips, `clip_sample` (whose default is `clips`).
    pub(super) fn read(config: &Config, clips: Option<bool>) -> Result<Self> {
        if config.boolean_or("thresholding", false)? {
            let (ratio, max) = (
                config.number_or("dynamic_thresholding_ratio", 0.995)?,
                config.number_or("sample_max_value", 1.)?,
            );
            if !(0. ..=1.).contains(&ratio) || max < 1. {
                return Err(config.error(
                    "`dynamic_thresholding_ratio` must be in 0..1 and `sample_max_value` 1 or more",
                ));
            }
            return Ok(Self::Threshold { ratio, max });
        }
        match clips {
            Some(default) if config.boolean_or("clip_sample", default)? => {
                let range = config.number_or("clip_sample_range", 1.)?;
                Ok(Self::Clip { range })
            }
            _ => Ok(Self::None),
        }
    }

    /// The picture within its limits.
    pub(super) fn apply(self, picture: Tensor) -> Result<Tensor> {
        match self {
            Self::None => Ok(picture),
            Self::Clip { range } => Ok(picture.f_clamp(-range, range)?),
            Self::Threshold { ratio, max } => {
                let bound = picture
                    .f_abs()?
                    .f_flatten(1, -1)?
                    .f_quantile_scalar(ratio, 1, false, "linear")?
                    .f_clamp(1., max)?;
                let bound = bound.f_view([-1, 1, 1, 1])?;
                Ok(picture
                    .f_clamp_tensor(Some(&bound.f_neg()?), Some(&bound))?
                    .f_div_(&bound)?)
            }
        }
    }
}

/// `sum of factor * tensor`, in f32; what is multiplied by 0 is not looked at.
pub(super) fn sum(terms: &[(f64, &Tensor)]) -> Result<Tensor> {
    let mut total: Option<Tensor> = None;
    for (factor, tensor) in terms.iter().filter(|(factor, _)| *factor != 0.) {
        let term = tensor.f_to_kind(Kind::Float)?.f_mul_scalar(*factor)?;
        total = Some(match total {
            Some(mut total) => total.f_add_(&term)?,
            None => term,
        });
    }
    match total {
        Some(total) => Ok(total),
        None => Ok(terms[0].1.f_zeros_like()?.f_to_kind(Kind::Float)?),
    }
}

/// The value that `field` of the configuration names.
pub(super) fn choice<T: Copy>(
    config: &Config,
    field: &str,
    default: &str,
    allowed: &[(&str, T)],
) -> Result<T> {
    let name = config.string_or(field, default)?;
    allowed
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, value)| *value)
        .ok_or_else(|| {
            let known: Vec<&str> = allowed.iter().map(|(known, _)| *known).collect();
            config.error(format_args!(
                "`{field}` of this scheduler must be one of {}, it is {name}",
                known.join(", ")
            ))
        })
}

/// Refuses options that diffusers knows and that are not implemented here, where they are on.
pub(super) fn refuse(config: &Config, fields: &[&str]) -> Result<()> {
    match fields
        .iter()
        .find(|field| config.field(field).is_some_and(|value| *value != false))
    {
        Some(field) => Err(config.error(format_args!("`{field}` is not supported"))),
        None => Ok(()),
    }
}
