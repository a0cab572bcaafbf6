//! What every encoder of pictures gives, whatever its network; and of those that know texts too,
//! how well a text fits a picture.

use tch::{Device, Tensor};

use crate::error::{Error, Result};

/// What an encoder says of a batch of frames.
#[derive(Debug)]
pub struct Features {
    /// `[n, dim]`, f32: a vector for each frame.
    pub embedding: Tensor,
    /// `[n, classes]`, f32, each row summing to 1; none where the network has no classes.
    pub probabilities: Option<Tensor>,
}

/// What it says of texts.
#[derive(Debug)]
pub struct TextFeatures {
    /// `[n, dim]`, f32, each of length 1, in the space of its pictures.
    pub vectors: Tensor,
    /// How a text's score follows from the cosine of its vector with a picture's.
    pub scoring: Scoring,
}

/// From cosines to scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scoring {
    /// TextFeatures compete: the softmax over all of them of `scale` times the cosine.
    Softmax {
        /// The factor.
        scale: f64,
    },
    /// Each text for itself: the sigmoid of `scale` times the cosine, plus `bias`.
    Sigmoid {
        /// The factor.
        scale: f64,
        /// The summand.
        bias: f64,
    },
}

impl Scoring {
    /// The scores of texts whose vectors have these cosines with a picture's.
    pub fn scores(self, cosines: &[f32]) -> Vec<f32> {
        let cosines = cosines.iter().map(|&cosine| f64::from(cosine));
        match self {
            Self::Softmax { scale } => {
                let logits: Vec<f64> = cosines.map(|cosine| scale * cosine).collect();
                let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let powers: Vec<f64> = logits
                    .into_iter()
                    .map(|logit| (logit - top).exp())
                    .collect();
                let sum: f64 = powers.iter().sum();
                powers
                    .into_iter()
                    .map(|power| (power / sum) as f32)
                    .collect()
            }
            Self::Sigmoid { scale, bias } => cosines
                .map(|cosine| (1. / (1. + (-(scale * cosine + bias)).exp())) as f32)
                .collect(),
        }
    }
}

/// A network that makes vectors of pictures.
pub trait PictureEncoder {
    /// Where it runs.
    fn device(&self) -> Device;

    /// Rows and columns of the frames that it takes without scaling them.
    fn size(&self) -> [i64; 2];

    /// Frames on its device, bytes `[n, h, w, 3]` of any size.
    ///
    /// # Errors
    /// Model, where the input has another shape; overload, where memory is short.
    fn encode(&self, frames: &Tensor) -> Result<Features>;

    /// TextFeatures in the space of its pictures.
    ///
    /// # Errors
    /// Config, where it knows no texts or its folder lacks the tokenizer; model, where the
    /// tokenizer refuses one; overload, where memory is short.
    fn texts(&self, _texts: &[String]) -> Result<TextFeatures> {
        Err(Error::config("the network knows pictures only, no texts")
            .hint("labels need a model that was trained on texts too"))
    }
}

/// Rows of length 1, f32.
///
/// # Errors
/// Overload, where memory is short.
pub(super) fn l2_normalized(vectors: &Tensor) -> Result<Tensor> {
    let vectors = vectors.f_to_kind(tch::Kind::Float)?;
    let lengths = vectors.f_norm_scalaropt_dim(2, [-1].as_slice(), true)?;
    Ok(vectors.f_div(&lengths.f_clamp_min(f64::from(f32::MIN_POSITIVE))?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn competing_texts_share_one_and_single_ones_do_not() {
        let cosines = [0.3f32, 0.1, -0.2];
        let scores = Scoring::Softmax { scale: 10. }.scores(&cosines);
        assert!((scores.iter().sum::<f32>() - 1.).abs() < 1e-6);
        assert!((scores[0] / scores[1] - 2f32.exp()).abs() < 1e-4);
        let scores = Scoring::Sigmoid {
            scale: 10.,
            bias: -1.,
        }
        .scores(&cosines);
        assert!(
            (scores[0] - 1. / (1. + (-2f32).exp())).abs() < 1e-6 && (scores[1] - 0.5).abs() < 1e-6
        );
        assert!(
            Scoring::Softmax { scale: 1e4 }
                .scores(&cosines)
                .iter()
                .all(|score| score.is_finite())
        );
    }
}
