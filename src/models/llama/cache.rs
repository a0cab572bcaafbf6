//! The keys and values of a batch of sequences. A column is a place in time, common to all rows: `[shared prefix | padding | rest]`, the
//! padding as wide in each row as it is shorter than the longest. It grows in steps, and rows that have ended leave it.

use super::config::Config;
use crate::error::{Error, Result};
use crate::tensor::{Device, Kind, Tensor};

/// Columns are added this many at a time.
const STEP: i64 = 128;
/// The score of a column that a row must not see. Finite, so that a padding position, which sees nothing, still yields numbers.
const UNSEEN: f64 = -3e4;

/// Keys and values of a batch under way.
#[derive(Debug)]
pub struct Cache {
    /// `[layers, rows, keys then values, columns, head_dim]`.
    kv: Tensor,
    /// `[columns, head_dim / 2]`, complex: the rotation of every position.
    rotations: Tensor,
    frequencies: Tensor,
    /// Columns in use.
    len: i64,
    /// Columns before the padding, that all rows share.
    prefix: i64,
    /// Columns of padding, by row.
    pads: Vec<i64>,
    /// `[rows, 1, 1, columns]`, added to one new position's scores; none without padding.
    veil: Option<Tensor>,
    limit: i64,
}

/// One layer's part of the cache, for one pass.
#[derive(Debug)]
pub(super) struct Slot {
    /// Keys up to and with the new columns: `[rows, kv heads, columns, head_dim]`.
    pub keys: Tensor,
    /// Values, alike.
    pub values: Tensor,
    /// The new columns of both: `[rows, 2 * kv heads, new columns, head_dim]`.
    pub fresh: Tensor,
}

impl Cache {
    /// For one row, with room for `columns`.
    pub(super) fn new(config: &Config, columns: i64, kind: Kind, device: Device) -> Result<Self> {
        let frequencies = Tensor::f_from_slice(&config.frequencies()?)?.f_to(device)?;
        // Twice the positions: a short row beside a long one has its own tokens after the other's.
        let limit = 2 * config.max_position_embeddings;
        let columns = columns.clamp(1, limit);
        let shape = [config.num_hidden_layers, 1, 2 * config.num_key_value_heads, columns, config.head_dim];
        let kv = Tensor::f_empty(shape, (kind, device))?;
        let rotations = rotations(&frequencies, columns)?;
        Ok(Self { kv, rotations, frequencies, len: 0, prefix: 0, pads: vec![0], veil: None, limit })
    }

    /// Rows.
    pub fn rows(&self) -> i64 {
        self.pads.len() as i64
    }

    /// Columns in use.
    pub fn columns(&self) -> i64 {
        self.len
    }

    /// Repeats the only row for every entry of `pads`, each with that many columns of padding to come.
    pub(super) fn fan_out(&mut self, pads: Vec<i64>) -> Result<()> {
        debug_assert_eq!(self.rows(), 1);
        let mut size = self.kv.size();
        size[1] = pads.len() as i64;
        if size[1] > 1 {
            let wide = Tensor::f_empty(&size, (self.kv.kind(), self.kv.device()))?;
            wide.f_narrow(3, 0, self.len)?.f_copy_(&self.kv.f_narrow(3, 0, self.len)?)?;
            self.kv = wide;
        }
        self.prefix = self.len;
        self.pads = pads;
        self.veil()
    }

    /// Keeps these rows, in this order.
    pub fn keep(&mut self, rows: &[usize]) -> Result<()> {
        let index: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
        self.kv = self.kv.f_index_select(1, &Tensor::f_from_slice(&index)?.f_to(self.kv.device())?)?;
        self.pads = rows.iter().map(|&row| self.pads[row]).collect();
        self.veil()
    }

    /// Makes room for `columns` more.
    pub(super) fn reserve(&mut self, columns: i64) -> Result<()> {
        let mut size = self.kv.size();
        let need = self.len + columns;
        if need > self.limit {
            return Err(Error::model(format!("a text of {need} tokens is longer than the model's {}", self.limit)));
        }
        if need <= size[3] {
            return Ok(());
        }
        size[3] = ((need + STEP - 1) / STEP * STEP).min(self.limit);
        let wide = Tensor::f_empty(&size, (self.kv.kind(), self.kv.device()))?;
        wide.f_narrow(3, 0, self.len)?.f_copy_(&self.kv.f_narrow(3, 0, self.len)?)?;
        self.kv = wide;
        self.rotations = rotations(&self.frequencies, size[3])?;
        self.veil()
    }

    /// Opens `columns` new columns: every layer's slot, to be filled by the pass.
    pub(super) fn open(&mut self, columns: i64) -> Result<Vec<Slot>> {
        self.reserve(columns)?;
        let start = self.len;
        self.len += columns;
        let heads = self.kv.size()[2] / 2;
        let fresh = self.kv.f_narrow(3, start, columns)?.f_unbind(0)?;
        let seen = self.kv.f_narrow(3, 0, self.len)?;
        let keys = seen.f_narrow(2, 0, heads)?.f_unbind(0)?;
        let values = seen.f_narrow(2, heads, heads)?.f_unbind(0)?;
        Ok(fresh.into_iter().zip(keys).zip(values).map(|((fresh, keys), values)| Slot { keys, values, fresh }).collect())
    }

    /// The rotations of the newest `columns`: `[rows, columns, 1, head_dim / 2]`, or one row of them where all rows stand alike.
    pub(super) fn turns(&self, columns: i64) -> Result<Tensor> {
        let start = self.len - columns;
        if self.veil.is_none() {
            return Ok(self.rotations.f_narrow(0, start, columns)?.f_view([1, columns, 1, -1])?);
        }
        // A padding column's own position does not matter, only that the table has it.
        let places: Vec<i64> = self.pads.iter().flat_map(|pad| (start..self.len).map(move |column| (column - pad).max(0))).collect();
        let index = Tensor::f_from_slice(&places)?.f_to(self.kv.device())?;
        Ok(self.rotations.f_index_select(0, &index)?.f_view([self.rows(), columns, 1, -1])?)
    }

    /// What is added to the scores of the newest `columns`, each repeated for the `group` heads that share a key:
    /// `[rows, 1, columns * group, seen columns]`; none where every new position sees every column.
    pub(super) fn mask(&self, columns: i64, group: i64) -> Result<Option<Tensor>> {
        if columns == 1 {
            return Ok(match &self.veil {
                Some(veil) => Some(veil.f_narrow(3, 0, self.len)?),
                None => None,
            });
        }
        let device = self.kv.device();
        let places = Tensor::f_arange(self.len, (Kind::Int64, device))?;
        let own = places.f_narrow(0, self.len - columns, columns)?.f_view([1, 1, columns, 1, 1])?;
        let later = places.f_view([1, 1, 1, 1, -1])?.f_gt_tensor(&own)?;
        let mut mask = Tensor::f_zeros([1, 1, columns, 1, self.len], (self.kv.kind(), device))?.f_masked_fill(&later, UNSEEN)?;
        if let Some(veil) = &self.veil {
            // The lower of the two, so that a column both later and padded does not fall below the finite floor.
            mask = mask.f_minimum(&veil.f_narrow(3, 0, self.len)?.f_unsqueeze(2)?)?;
        }
        let rows = mask.size()[0];
        let wide = mask.f_expand([rows, 1, columns, group, self.len], false)?;
        Ok(Some(wide.f_reshape([rows, 1, columns * group, self.len])?))
    }

    fn veil(&mut self) -> Result<()> {
        self.veil = None;
        if self.pads.iter().all(|&pad| pad == 0) {
            return Ok(());
        }
        let device = self.kv.device();
        let (rows, columns) = (self.rows(), self.kv.size()[3]);
        let places = Tensor::f_arange(columns, (Kind::Int64, device))?.f_view([1, 1, 1, -1])?;
        let ends: Vec<i64> = self.pads.iter().map(|pad| self.prefix + pad).collect();
        let ends = Tensor::f_from_slice(&ends)?.f_to(device)?.f_view([rows, 1, 1, 1])?;
        let padding = places.f_ge(self.prefix)?.f_logical_and(&places.f_lt_tensor(&ends)?)?;
        self.veil = Some(Tensor::f_zeros([rows, 1, 1, columns], (self.kv.kind(), device))?.f_masked_fill(&padding, UNSEEN)?);
        Ok(())
    }
}

/// e^(i * position * frequency) for the first `columns` positions.
fn rotations(frequencies: &Tensor, columns: i64) -> Result<Tensor> {
    let places = Tensor::f_arange(columns, (Kind::Float, frequencies.device()))?;
    let angles = places.f_outer(frequencies)?;
    Ok(Tensor::f_polar(&angles.f_ones_like()?, &angles)?)
}
