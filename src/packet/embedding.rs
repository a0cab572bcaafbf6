//! Vectors, and the classes that a model finds in what they are of.

use std::sync::Arc;

use bytes::Bytes;
use half::f16;

/// A class or tag with its probability.
#[derive(Debug, Clone, PartialEq)]
pub struct Label {
    /// Its name.
    pub name: Arc<str>,
    /// 0 to 1.
    pub score: f32,
}

/// The number format of a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VectorType {
    /// IEEE 754 binary32, little-endian.
    F32,
    /// IEEE 754 binary16, little-endian.
    F16,
}

impl VectorType {
    /// The symbol in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            VectorType::F32 => "f32",
            VectorType::F16 => "f16",
        }
    }

    /// Numbers as they lie in records.
    pub fn bytes(self, numbers: &[f32]) -> Bytes {
        match self {
            VectorType::F32 => numbers
                .iter()
                .flat_map(|number| number.to_le_bytes())
                .collect(),
            VectorType::F16 => numbers
                .iter()
                .flat_map(|number| f16::from_f32(*number).to_le_bytes())
                .collect(),
        }
    }

    /// Bytes of one number.
    pub const fn width(self) -> usize {
        match self {
            VectorType::F32 => 4,
            VectorType::F16 => 2,
        }
    }
}

/// A vector for a frame or a window of frames.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding {
    /// The space it lives in: vectors compare only within one space (model name and revision).
    pub space: Arc<str>,
    /// Number format of `vector`.
    pub dtype: VectorType,
    /// Numbers in `vector`.
    pub dim: u32,
    /// Whether its Euclidean length is 1.
    pub normalized: bool,
    /// `dim` numbers of `dtype`.
    pub vector: Bytes,
    /// Frames it was made of.
    pub frames: u32,
    /// The most probable classes, best first; empty where the model has no classes.
    pub labels: Vec<Label>,
    /// The probability of every class, for stages that average them; not part of the record.
    pub scores: Option<Arc<Scores>>,
}

/// The probability of every class of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// Class names, shared by every vector of the model.
    pub names: Arc<[Arc<str>]>,
    /// One probability a class: they sum to 1, or each stands for itself, as the model has it.
    pub values: Vec<f32>,
}

impl Scores {
    /// The `k` most probable classes, best first.
    pub fn top(&self, k: usize) -> Vec<Label> {
        let mut order: Vec<usize> = (0..self.values.len().min(self.names.len())).collect();
        order.sort_by(|&a, &b| self.values[b].total_cmp(&self.values[a]));
        order
            .iter()
            .take(k)
            .map(|&at| Label {
                name: Arc::clone(&self.names[at]),
                score: self.values[at],
            })
            .collect()
    }

    /// The mean probability of each class of the first's model; none of none.
    pub fn mean<'a>(scores: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        let mut scores = scores.into_iter();
        let (mut mean, mut count) = (scores.next()?.clone(), 1.0f32);
        for other in scores
            .filter(|other| other.values.len() == mean.values.len())
            .collect::<Vec<_>>()
        {
            mean.values
                .iter_mut()
                .zip(&other.values)
                .for_each(|(sum, value)| *sum += value);
            count += 1.0;
        }
        mean.values.iter_mut().for_each(|sum| *sum /= count);
        Some(mean)
    }

    /// Number of classes.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are no classes.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}
