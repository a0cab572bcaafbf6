//! The texts under way of a Llama-family decoder: their keys and values, and the rotation of every
//! position.

use super::config::LlamaConfig;
use crate::error::Result;
use crate::models::decoder::{self, KvCache, KvCacheConfig};
use crate::tensor::{Device, Kind, Tensor};

/// Texts under way.
#[derive(Debug)]
pub struct Cache {
    pub(super) columns: KvCache,
    /// `[columns, head_dim / 2]`, complex: the rotation of every position.
    rope: Tensor,
    frequencies: Tensor,
}

impl Cache {
    /// For one row, with room for `columns`.
    pub(super) fn build(
        config: &LlamaConfig,
        columns: i64,
        kind: Kind,
        device: Device,
    ) -> Result<Self> {
        let (heads, dim) = (config.num_key_value_heads, config.head_dim);
        let shape = KvCacheConfig {
            layers: config.num_hidden_layers,
            heads,
            dim,
            positions: config.max_position_embeddings,
        };
        let columns = KvCache::build(shape, columns, kind, device)?;
        let frequencies = Tensor::f_from_slice(&config.frequencies()?)?.f_to(device)?;
        let rope = rope(&frequencies, columns.room())?;
        Ok(Self {
            columns,
            rope,
            frequencies,
        })
    }

    /// The rotations of the newest `columns`: `[rows, columns, 1, head_dim / 2]`, or one row of
    /// them where all rows stand alike.
    pub(super) fn rope_slice(&mut self, columns: i64) -> Result<Tensor> {
        if self.rope.size()[0] < self.columns.len() {
            self.rope = rope(&self.frequencies, self.columns.room())?;
        }
        let Some(positions) = self.columns.positions(columns) else {
            return Ok(self
                .rope
                .f_narrow(0, self.columns.len() - columns, columns)?
                .f_view([1, columns, 1, -1])?);
        };
        let index = Tensor::f_from_slice(&positions)?.f_to(self.rope.device())?;
        Ok(self
            .rope
            .f_index_select(0, &index)?
            .f_view([self.columns.rows(), columns, 1, -1])?)
    }
}

impl decoder::Cache for Cache {
    fn columns(&mut self) -> &mut KvCache {
        &mut self.columns
    }

    fn keep(&mut self, rows: &[usize]) -> Result<()> {
        self.columns.keep(rows)
    }
}

/// e^(i * position * frequency) for the first `columns` positions.
fn rope(frequencies: &Tensor, columns: i64) -> Result<Tensor> {
    let positions = Tensor::f_arange(columns, (Kind::Float, frequencies.device()))?;
    let angles = positions.f_outer(frequencies)?;
    Ok(Tensor::f_polar(&angles.f_ones_like()?, &angles)?)
}
