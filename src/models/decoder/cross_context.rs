//! What the texts of a decoder are about, as its layers attend to it: keys and values, made once and
//! asked at every token. Texts about one context share it, so that its keys need not be there for
//! each.

use crate::error::Result;
use crate::models::attention::{Attention, KeyValue};
use crate::tensor::Tensor;

/// Contexts, as every layer attends to them.
#[derive(Debug)]
pub struct CrossContext {
    /// By layer, `[contexts, heads, length, dim]`.
    layers: Vec<KeyValue>,
}

impl CrossContext {
    /// The keys of `states`, `[contexts, length, width]`, for the cross-attention of every layer.
    ///
    /// # Errors
    /// Model, where the shape does not fit; overload, where memory is short.
    pub(crate) fn build<'a>(
        layers: impl Iterator<Item = &'a Attention>,
        states: &Tensor,
    ) -> Result<Self> {
        let keys = |attention: &Attention| {
            let KeyValue { keys, values } = attention.keys(states)?;
            Ok(KeyValue {
                keys: keys.f_contiguous()?,
                values: values.f_contiguous()?,
            })
        };
        Ok(Self {
            layers: layers.map(keys).collect::<Result<_>>()?,
        })
    }

    /// By layer, `[contexts, heads, length, dim]`.
    pub(crate) fn layers(&self) -> &[KeyValue] {
        &self.layers
    }

    /// Contexts.
    pub(crate) fn rows(&self) -> i64 {
        self.layers.first().map_or(1, |layer| layer.keys.size()[0])
    }

    /// The same contexts, over the same memory.
    pub(crate) fn share(&self) -> Self {
        let share = |layer: &KeyValue| KeyValue {
            keys: layer.keys.shallow_clone(),
            values: layer.values.shallow_clone(),
        };
        Self {
            layers: self.layers.iter().map(share).collect(),
        }
    }

    /// These contexts, in this order.
    ///
    /// # Errors
    /// Overload, where memory is short.
    pub(crate) fn select(&self, contexts: &[usize]) -> Result<Self> {
        let index: Vec<i64> = contexts.iter().map(|&context| context as i64).collect();
        let index = Tensor::f_from_slice(&index)?;
        let select = |layer: &KeyValue| -> Result<KeyValue> {
            let index = index.f_to(layer.keys.device())?;
            Ok(KeyValue {
                keys: layer.keys.f_index_select(0, &index)?,
                values: layer.values.f_index_select(0, &index)?,
            })
        };
        Ok(Self {
            layers: self.layers.iter().map(select).collect::<Result<_>>()?,
        })
    }

    /// Goes on with the contexts of these `rows` of `texts`, of which each context has equally
    /// many, one after the other; afterwards it is so again.
    ///
    /// # Errors
    /// Overload, where memory is short.
    pub(crate) fn keep(&mut self, rows: &[usize], texts: i64) -> Result<()> {
        let contexts = self.rows() as usize;
        let chosen = contexts_of(rows, texts as usize / contexts);
        if !chosen.iter().copied().eq(0..contexts) {
            *self = self.select(&chosen)?;
        }
        Ok(())
    }
}

/// The contexts of `rows`, of which each had `each`: once for all its rows where every context
/// keeps equally many, else once a row.
fn contexts_of(rows: &[usize], each: usize) -> Vec<usize> {
    let all: Vec<usize> = rows.iter().map(|row| row / each).collect();
    let runs: Vec<&[usize]> = all.chunk_by(|a, b| a == b).collect();
    let even = runs.iter().all(|run| run.len() == runs[0].len());
    if even {
        runs.iter().map(|run| run[0]).collect()
    } else {
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_share_their_context_while_each_has_equally_many() {
        assert_eq!(contexts_of(&[0, 0, 1, 1], 1), [0, 1]);
        assert_eq!(contexts_of(&[1, 0, 3, 2], 2), [0, 1]);
        assert_eq!(contexts_of(&[0, 2, 3], 2), [0, 1, 1]);
        assert_eq!(contexts_of(&[4, 5], 2), [2]);
        assert_eq!(contexts_of(&[0, 2, 1], 2), [0, 1, 0]);
    }
}
