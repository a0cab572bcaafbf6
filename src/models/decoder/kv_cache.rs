//! The keys and values of a batch of texts. A column is a place in time, common to all rows:
//! `[shared prefix | padding | rest]`, the padding as wide in each row as it is shorter than the
//! longest. It grows in steps, and rows that have ended leave it.

use crate::error::{Error, Result};
use crate::models::attention::KeyValue;
use crate::tensor::{Device, Kind, Tensor};

/// Columns are added this many at a time.
const STEP: i64 = 128;
/// The score of a column that a row must not see. Finite, so that a padding position, which sees
/// nothing, still yields numbers.
const UNSEEN: f64 = -3e4;

/// The sizes of a cache.
#[derive(Debug, Clone, Copy)]
pub struct KvCacheConfig {
    /// Layers.
    pub layers: i64,
    /// Heads of keys in each.
    pub heads: i64,
    /// Numbers a head.
    pub dim: i64,
    /// The longest text that the network was made for.
    pub positions: i64,
}

/// Keys and values of a batch under way.
#[derive(Debug)]
pub struct KvCache {
    /// `[layers, rows, keys then values, columns, head_dim]`.
    kv: Tensor,
    /// Columns in use.
    len: i64,
    /// Columns before the padding, that all rows share.
    prefix: i64,
    /// Columns of padding, by row.
    pads: Vec<i64>,
    /// `[rows, 1, 1, columns]`, added to one new position's scores; none without padding.
    padding_mask: Option<Tensor>,
    /// Columns of the prompts: equal in rows of one prompt.
    prompt: i64,
    /// The prompt of each row, by number.
    prompts: Vec<usize>,
    limit: i64,
}

/// One layer's part of the cache, for one pass.
#[derive(Debug)]
pub struct LayerCache {
    /// Keys and values up to and with the new columns: `[rows, heads, columns, head_dim]`.
    pub seen: KeyValue,
    /// The new columns of both: `[rows, 2 * heads, new columns, head_dim]`.
    pub fresh: Tensor,
}

impl LayerCache {
    /// Fills in the new columns: `[rows, heads, new columns, head_dim]` of each.
    ///
    /// # Errors
    /// Model, where the shapes do not fit.
    pub fn fill(&mut self, new: &KeyValue) -> Result<()> {
        let heads = self.fresh.size()[1] / 2;
        self.fresh.f_narrow(1, 0, heads)?.f_copy_(&new.keys)?;
        self.fresh.f_narrow(1, heads, heads)?.f_copy_(&new.values)?;
        Ok(())
    }
}

impl KvCache {
    /// For one row, with room for `columns`.
    ///
    /// # Errors
    /// Overload, where memory is short.
    pub fn build(shape: KvCacheConfig, columns: i64, kind: Kind, device: Device) -> Result<Self> {
        // Twice the positions: a short row beside a long one has its own tokens after the other's.
        let limit = 2 * shape.positions;
        let size = [
            shape.layers,
            1,
            2 * shape.heads,
            columns.clamp(1, limit),
            shape.dim,
        ];
        let kv = Tensor::f_empty(size, (kind, device))?;
        Ok(Self {
            kv,
            len: 0,
            prefix: 0,
            pads: vec![0],
            padding_mask: None,
            prompt: 0,
            prompts: vec![0],
            limit,
        })
    }

    /// Rows.
    pub fn rows(&self) -> i64 {
        self.pads.len() as i64
    }

    /// Columns in use.
    pub fn len(&self) -> i64 {
        self.len
    }

    /// Whether nothing is read yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Columns there is room for now.
    pub fn room(&self) -> i64 {
        self.kv.size()[3]
    }

    /// Repeats the only row for every entry of `pads`, each with that many columns of padding to
    /// come.
    pub(super) fn expand_rows(&mut self, pads: Vec<i64>) -> Result<()> {
        debug_assert_eq!(self.rows(), 1);
        let mut size = self.kv.size();
        size[1] = pads.len() as i64;
        if size[1] > 1 {
            self.kv = self.wider(&size)?;
        }
        self.prefix = self.len;
        self.prompts = (0..pads.len()).collect();
        self.pads = pads;
        self.padding_mask()
    }

    /// Ends the reading of prompts: what is there now stays the same in all rows of a prompt.
    pub(super) fn end_prompts(&mut self) {
        self.prompt = self.len;
    }

    /// Keeps these rows, in this order. Where every row follows one of its own prompt only what was
    /// written since is moved.
    ///
    /// # Errors
    /// Overload, where memory is short.
    pub fn keep(&mut self, rows: &[usize]) -> Result<()> {
        let as_it_is =
            rows.len() == self.pads.len() && rows.iter().enumerate().all(|(at, &row)| at == row);
        if as_it_is {
            return Ok(());
        }
        let index: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
        let index = Tensor::f_from_slice(&index)?.f_to(self.kv.device())?;
        let prompts: Vec<usize> = rows.iter().map(|&row| self.prompts[row]).collect();
        if prompts == self.prompts {
            let mut written = self.kv.f_narrow(3, self.prompt, self.len - self.prompt)?;
            written.f_copy_(&written.f_index_select(1, &index)?)?;
            return Ok(());
        }
        self.kv = self.kv.f_index_select(1, &index)?;
        self.pads = rows.iter().map(|&row| self.pads[row]).collect();
        self.prompts = prompts;
        self.padding_mask()
    }

    /// Makes room for `columns` more.
    pub(super) fn reserve(&mut self, columns: i64) -> Result<()> {
        let mut size = self.kv.size();
        let need = self.len + columns;
        if need > self.limit {
            return Err(Error::model(format!(
                "a text of {need} tokens is longer than the model's {}",
                self.limit
            )));
        }
        if need <= size[3] {
            return Ok(());
        }
        size[3] = ((need + STEP - 1) / STEP * STEP).min(self.limit);
        self.kv = self.wider(&size)?;
        self.padding_mask()
    }

    /// The same numbers in a tensor of `size`, which has more rows or columns.
    fn wider(&self, size: &[i64]) -> Result<Tensor> {
        let wide = Tensor::f_empty(size, (self.kv.kind(), self.kv.device()))?;
        wide.f_narrow(3, 0, self.len)?
            .f_copy_(&self.kv.f_narrow(3, 0, self.len)?)?;
        Ok(wide)
    }

    /// Opens `columns` new columns: every layer's slot, to be filled by the pass.
    ///
    /// # Errors
    /// Model, where the texts grow too long; overload, where memory is short.
    pub fn open(&mut self, columns: i64) -> Result<Vec<LayerCache>> {
        self.reserve(columns)?;
        let start = self.len;
        self.len += columns;
        let heads = self.kv.size()[2] / 2;
        let fresh = self.kv.f_narrow(3, start, columns)?.f_unbind(0)?;
        let seen = self.kv.f_narrow(3, 0, self.len)?;
        let keys = seen.f_narrow(2, 0, heads)?.f_unbind(0)?;
        let values = seen.f_narrow(2, heads, heads)?.f_unbind(0)?;
        let slot = |((fresh, keys), values)| LayerCache {
            seen: KeyValue { keys, values },
            fresh,
        };
        Ok(fresh.into_iter().zip(keys).zip(values).map(slot).collect())
    }

    /// The positions of the newest `columns`, row after row; none where all rows stand alike, at
    /// the columns' own numbers.
    pub fn positions(&self, columns: i64) -> Option<Vec<i64>> {
        self.padding_mask.as_ref()?;
        let start = self.len - columns;
        // A padding column's own position does not matter, only that there is one.
        Some(
            self.pads
                .iter()
                .flat_map(|pad| (start..self.len).map(move |column| (column - pad).max(0)))
                .collect(),
        )
    }

    /// The vectors of the newest `columns`' positions, of a table `[positions, width]`: `[rows,
    /// columns, width]`, or a view `[1, columns, width]` where all rows stand alike.
    ///
    /// # Errors
    /// Model, where the table ends before; overload, where memory is short.
    pub fn embed_positions(&self, table: &Tensor, columns: i64) -> Result<Tensor> {
        let Some(positions) = self.positions(columns) else {
            let newest = table.f_narrow(0, self.len - columns, columns)?;
            return Ok(newest.f_unsqueeze(0)?);
        };
        let positions = Tensor::f_from_slice(&positions)?.f_to(self.kv.device())?;
        let vectors = table.f_index_select(0, &positions)?;
        Ok(vectors.f_view([self.rows(), columns, -1])?)
    }

    /// Whether the newest `columns` are all there are and no row is padded, so that to hide what
    /// comes later is all that their [`mask`](Self::mask) does.
    pub fn is_causal(&self, columns: i64) -> bool {
        self.len == columns && self.padding_mask.is_none()
    }

    /// What is added to the scores of the newest `columns`, each repeated for the `group` heads
    /// that share a key: `[rows, 1, columns * group, seen columns]`; none where every new position
    /// sees every column.
    ///
    /// # Errors
    /// Overload, where memory is short.
    pub fn mask(&self, columns: i64, group: i64) -> Result<Option<Tensor>> {
        if columns == 1 {
            return Ok(match &self.padding_mask {
                Some(padding_mask) => Some(padding_mask.f_narrow(3, 0, self.len)?),
                None => None,
            });
        }
        let device = self.kv.device();
        let numbers = Tensor::f_arange(self.len, (Kind::Int64, device))?;
        let own = numbers
            .f_narrow(0, self.len - columns, columns)?
            .f_view([1, 1, columns, 1, 1])?;
        let later = numbers.f_view([1, 1, 1, 1, -1])?.f_gt_tensor(&own)?;
        let mut mask = Tensor::f_zeros([1, 1, columns, 1, self.len], (self.kv.kind(), device))?
            .f_masked_fill(&later, UNSEEN)?;
        if let Some(padding_mask) = &self.padding_mask {
            // The lower of the two, so that a column both later and padded does not fall below the
            // finite floor.
            mask = mask.f_minimum(&padding_mask.f_narrow(3, 0, self.len)?.f_unsqueeze(2)?)?;
        }
        let rows = mask.size()[0];
        let wide = mask.f_expand([rows, 1, columns, group, self.len], false)?;
        Ok(Some(wide.f_reshape([
            rows,
            1,
            columns * group,
            self.len,
        ])?))
    }

    fn padding_mask(&mut self) -> Result<()> {
        self.padding_mask = None;
        if self.pads.iter().all(|&pad| pad == 0) {
            return Ok(());
        }
        let device = self.kv.device();
        let (rows, columns) = (self.rows(), self.room());
        let numbers = Tensor::f_arange(columns, (Kind::Int64, device))?.f_view([1, 1, 1, -1])?;
        let ends: Vec<i64> = self.pads.iter().map(|pad| self.prefix + pad).collect();
        let ends = Tensor::f_from_slice(&ends)?
            .f_to(device)?
            .f_view([rows, 1, 1, 1])?;
        let padding = numbers
            .f_ge(self.prefix)?
            .f_logical_and(&numbers.f_lt_tensor(&ends)?)?;
        self.padding_mask = Some(
            Tensor::f_zeros([rows, 1, 1, columns], (self.kv.kind(), device))?
                .f_masked_fill(&padding, UNSEEN)?,
        );
        Ok(())
    }
}
