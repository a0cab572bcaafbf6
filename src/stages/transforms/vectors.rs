//! What the stages that make vectors share: how vectors and labels stand in records, and answers
//! kept by content.

use std::sync::Arc;

use bytes::Bytes;

use crate::cache::{Key, KeyBuilder};
use crate::config::shape::{Default, Field, Type};
use crate::config::{Params, Value};
use crate::inference::Encoded;
use crate::packet::{Embedding, Frame, ModelTag, Scores, VectorType};
use crate::stage::Deps;
use crate::{Error, Result};

pub(super) const TOP: Field = Field {
    name: "top",
    ty: Type::Int(0, 1000),
    default: Default::Is("5"),
    doc: "Labels in each record, best first, where there are labels.",
};
pub(super) const DTYPE: Field = Field {
    name: "dtype",
    ty: Type::Choice(&["f32", "f16"]),
    default: Default::Is("f32"),
    doc: "Number format of the vectors in records.",
};
pub(super) const NORMALIZE: Field = Field {
    name: "normalize",
    ty: Type::Bool,
    default: Default::Is("false"),
    doc: "Whether vectors are scaled to length 1. Those of models that know texts always have it.",
};
pub(super) const CACHE: Field = Field {
    name: "cache",
    ty: Type::Bool,
    default: Default::Is("true"),
    doc: "Whether answers are looked up and kept by content.",
};

/// How vectors stand in records.
pub(super) struct Form {
    top: usize,
    dtype: VectorType,
    normalize: bool,
}

/// A vector that is to become a record.
pub(super) struct Made {
    pub vector: Vec<f32>,
    /// Whether it has length 1 already.
    pub unit: bool,
    /// Frames that it is of; 0 for a text.
    pub frames: u32,
    pub scores: Option<Scores>,
}

impl Form {
    /// As the parameters above say.
    pub fn of(params: &Params) -> Self {
        Self {
            top: params.int("top").unsigned_abs() as usize,
            dtype: dtype(params),
            normalize: params.bool("normalize"),
        }
    }

    /// As they say where there are no labels and vectors have length 1 already.
    pub fn without_labels(params: &Params) -> Self {
        Self {
            top: 0,
            dtype: dtype(params),
            normalize: false,
        }
    }

    /// The record's payload, in the space of the model.
    pub fn embedding(&self, made: Made, tag: &ModelTag) -> Embedding {
        let Made {
            mut vector,
            unit,
            frames,
            scores,
        } = made;
        if self.normalize && !unit {
            let length = vector
                .iter()
                .map(|v| v * v)
                .sum::<f32>()
                .sqrt()
                .max(f32::MIN_POSITIVE);
            vector.iter_mut().for_each(|v| *v /= length);
        }
        Embedding {
            space: format!("{}@{}", tag.id, &tag.revision[..tag.revision.len().min(12)]).into(),
            dtype: self.dtype,
            dim: vector.len() as u32,
            normalized: self.normalize || unit,
            vector: self.dtype.bytes(&vector),
            frames,
            labels: scores
                .as_ref()
                .map(|scores| scores.top(self.top))
                .unwrap_or_default(),
            scores: scores.map(Arc::new),
        }
    }
}

fn dtype(params: &Params) -> VectorType {
    if &**params.text("dtype") == "f16" {
        VectorType::F16
    } else {
        VectorType::F32
    }
}

/// A key of what an answer about these frames depends on: the weights, how they are computed with,
/// and the pixels.
pub(super) fn key(
    op: &'static str,
    tag: &ModelTag,
    device: &str,
    frames: &[Arc<Frame>],
) -> KeyBuilder {
    let mut key = Key::builder(op)
        .part(&tag.revision)
        .part(&tag.precision)
        .part(device);
    for frame in frames {
        let shape = [frame.width, frame.height, frame.stride]
            .map(u32::to_le_bytes)
            .concat();
        key = key.part(shape).part(&frame.pixels);
    }
    key
}

/// The answer under `key`, or a fresh one.
pub(super) async fn kept<A>(deps: &Deps, key: &Key, answer: A) -> Result<Encoded>
where
    A: Future<Output = Result<Encoded>> + Send,
{
    let compute = || async { answer.await.map(|encoded| encoded.to_bytes()) };
    let (value, _): (Bytes, _) = deps
        .cache
        .get_or_compute(key, deps.cache_ttl, compute)
        .await?;
    Encoded::from_bytes(&value)
        .ok_or_else(|| Error::bug("the cache gave an encoding that does not parse"))
}

/// The texts of a list of them.
pub(super) fn texts(list: &[Value]) -> Arc<[Arc<str>]> {
    list.iter()
        .filter_map(|text| text.as_text().cloned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag() -> ModelTag {
        ModelTag {
            id: "tags".to_owned(),
            revision: "0123456789abcdef".to_owned(),
            precision: "f32".to_owned(),
        }
    }

    fn made(unit: bool) -> Made {
        let scores = Scores {
            names: ["a", "b", "c"].map(Arc::from).into(),
            values: vec![0.2, 0.5, 0.3],
        };
        Made {
            vector: vec![3., 4.],
            unit,
            frames: 1,
            scores: Some(scores),
        }
    }

    #[test]
    fn vectors_are_scaled_where_asked_and_told_of() {
        let form = |normalize| Form {
            top: 2,
            dtype: VectorType::F32,
            normalize,
        };
        let plain = form(false).embedding(made(false), &tag());
        assert_eq!(
            (plain.normalized, plain.vector.clone(), &*plain.space),
            (false, VectorType::F32.bytes(&[3., 4.]), "tags@0123456789ab")
        );
        let scaled = form(true).embedding(made(false), &tag());
        assert_eq!(
            (scaled.normalized, scaled.vector),
            (true, VectorType::F32.bytes(&[0.6, 0.8]))
        );
        let unit = form(false).embedding(made(true), &tag());
        assert_eq!((unit.normalized, unit.vector), (true, plain.vector));
        let names: Vec<&str> = plain.labels.iter().map(|label| &*label.name).collect();
        assert_eq!(
            (names, plain.scores.map(|scores| scores.len())),
            (vec!["b", "c"], Some(3))
        );
    }

    #[test]
    fn halves_take_half_the_bytes() {
        let form = Form {
            top: 0,
            dtype: VectorType::F16,
            normalize: false,
        };
        let embedding = form.embedding(made(false), &tag());
        assert_eq!(
            (
                embedding.vector.len(),
                embedding.dim,
                embedding.labels.len()
            ),
            (4, 2, 0)
        );
    }
}
