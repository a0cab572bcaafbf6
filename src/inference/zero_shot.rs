//! Labels that a model never learnt: their texts' vectors, computed once, are compared with each
//! picture's.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::models::picture_encoder::Scoring;

/// Labels in the space of a model's pictures.
#[derive(Debug)]
pub struct ZeroShot {
    names: Arc<[Arc<str>]>,
    /// One after another, each of length 1.
    vectors: Vec<f32>,
    scoring: Scoring,
}

impl ZeroShot {
    pub(super) fn new(names: Arc<[Arc<str>]>, vectors: Vec<Vec<f32>>, scoring: Scoring) -> Self {
        Self {
            names,
            vectors: vectors.into_iter().flatten().collect(),
            scoring,
        }
    }

    /// The texts of labels: `template` with each in the place of its `{}`.
    ///
    /// # Errors
    /// Config, where there are no labels, or the template has no place for one.
    pub(super) fn texts(labels: &[Arc<str>], template: &str) -> Result<Vec<String>> {
        if labels.is_empty() {
            return Err(
                Error::config("no labels to choose from").hint("leave `labels` out, or name some")
            );
        }
        if !template.contains("{}") {
            return Err(Error::config(format!(
                "the template {template:?} has no place for a label"
            ))
            .hint("write `{}` where it goes"));
        }
        Ok(labels
            .iter()
            .map(|label| template.replace("{}", label))
            .collect())
    }

    /// The labels.
    pub fn names(&self) -> &Arc<[Arc<str>]> {
        &self.names
    }

    /// The score of each label for a picture whose vector has length 1.
    pub fn scores(&self, vector: &[f32]) -> Vec<f32> {
        if vector.is_empty() {
            return Vec::new();
        }
        let dot = |label: &[f32]| label.iter().zip(vector).map(|(a, b)| a * b).sum();
        let cosines: Vec<f32> = self.vectors.chunks(vector.len()).map(dot).collect();
        self.scoring.scores(&cosines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_label_wins() {
        let names: Arc<[Arc<str>]> = ["cat", "dog"].map(Arc::from).into();
        let labels = ZeroShot::new(
            names,
            vec![vec![1., 0.], vec![0., 1.]],
            Scoring::Softmax { scale: 10. },
        );
        let scores = labels.scores(&[0.6, 0.8]);
        assert!(
            (scores[1] - 1. / (1. + (-2f32).exp())).abs() < 1e-5
                && (scores[0] + scores[1] - 1.).abs() < 1e-6,
            "{scores:?}"
        );
        assert!(labels.scores(&[]).is_empty());
    }

    #[test]
    fn a_template_needs_a_place_for_the_label() {
        let labels = ["cat", "dog"].map(Arc::from);
        assert_eq!(
            ZeroShot::texts(&labels, "a photo of {}").unwrap(),
            ["a photo of cat", "a photo of dog"]
        );
        for (labels, template) in [(&labels[..], "a photo"), (&[], "{}")] {
            assert_eq!(
                ZeroShot::texts(labels, template).unwrap_err().kind(),
                crate::error::Kind::Config
            );
        }
    }
}
