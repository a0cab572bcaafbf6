//! Whisper's decoder: learned positions, pre-norm layers that attend to the tokens so far and to
//! the sound. Keys of the sound are computed once a window, keys of the tokens are kept, and the
//! queries of the heads that follow the sound are kept for the alignment of words.

use std::collections::BTreeMap;

use super::config::{SpecialTokens, WhisperConfig};
use super::encoder::{BIASES, EPSILON, PROJECTIONS};
use crate::error::{Error, Result};
use crate::models::Scope;
use crate::models::attention::{Attention, AttentionConfig, KeyValue};
use crate::models::layers::{LayerNorm, Linear, Mlp};
use crate::tensor::{Device, Kind, Tensor};

/// Tokens that room is made for at first; it doubles.
const ROOM: i64 = 64;

/// From tokens and sound to the next token's logits.
#[derive(Debug)]
pub struct Decoder {
    embedding: Tensor,
    positions: Tensor,
    layers: Vec<Layer>,
    norm: LayerNorm,
    head: Linear,
    heads: AttentionConfig,
    longest: i64,
}

#[derive(Debug)]
struct Layer {
    self_attn_norm: LayerNorm,
    self_attn: Attention,
    cross_attn_norm: LayerNorm,
    cross_attn: Attention,
    mlp_norm: LayerNorm,
    mlp: Mlp,
    /// Heads that follow the sound, and which of all those they are.
    aligned: Option<Aligned>,
}

#[derive(Debug)]
struct Aligned {
    heads: Tensor,
    first: i64,
    count: i64,
}

/// The sound of some windows, as every layer of the decoder hears it.
#[derive(Debug)]
pub struct AudioContext(pub(super) Vec<KeyValue>);

impl AudioContext {
    /// Some of its windows, in this order.
    ///
    /// # Errors
    /// Overload, where memory is short.
    pub fn keep(&self, rows: &[usize]) -> Result<Self> {
        let Some(first) = self.0.first() else {
            return Ok(Self(Vec::new()));
        };
        let rows = index(rows, first.keys.device())?;
        let keep = |keys: &KeyValue| -> Result<KeyValue> {
            Ok(KeyValue {
                keys: keys.keys.f_index_select(0, &rows)?,
                values: keys.values.f_index_select(0, &rows)?,
            })
        };
        self.0.iter().map(keep).collect::<Result<_>>().map(Self)
    }

    /// Windows.
    pub fn rows(&self) -> i64 {
        self.0.first().map_or(0, |keys| keys.keys.size()[0])
    }
}

/// A batch of texts under way.
#[derive(Debug)]
pub struct State {
    /// `[layers, key then value, rows, heads, room, dim]`.
    own: Tensor,
    /// `[aligned heads, rows, room, dim]`; none where words are not aligned.
    queries: Option<Tensor>,
    /// Tokens read.
    length: i64,
}

impl Decoder {
    pub(super) fn new(
        scope: &Scope<'_>,
        config: &WhisperConfig,
        tokens: &SpecialTokens,
    ) -> Result<Self> {
        let width = config.d_model;
        let heads = AttentionConfig::self_attention(width, config.decoder_attention_heads);
        let device = scope.weights().device();
        let mut by_layer: BTreeMap<usize, Vec<i64>> = BTreeMap::new();
        for &(layer, head) in &tokens.alignment_heads {
            by_layer.entry(layer).or_default().push(head as i64);
        }
        let mut first = 0;
        let mut layers = Vec::new();
        for n in 0..config.decoder_layers {
            let scope = scope / "layers" / n;
            let norm = |name: &str| LayerNorm::load(&(&scope / name), width, EPSILON);
            let aligned = match by_layer.get(&(n as usize)) {
                Some(list) => Some(Aligned {
                    heads: Tensor::f_from_slice(list)?.f_to(device)?,
                    first,
                    count: list.len() as i64,
                }),
                None => None,
            };
            first += aligned.as_ref().map_or(0, |aligned| aligned.count);
            layers.push(Layer {
                self_attn_norm: norm("self_attn_layer_norm")?,
                self_attn: Attention::load_self(
                    &(&scope / "self_attn"),
                    PROJECTIONS,
                    heads,
                    BIASES,
                )?
                .packed()?,
                cross_attn_norm: norm("encoder_attn_layer_norm")?,
                cross_attn: Attention::load_cross(
                    &(&scope / "encoder_attn"),
                    PROJECTIONS,
                    heads,
                    BIASES,
                )?
                .packed()?,
                mlp_norm: norm("final_layer_norm")?,
                mlp: Mlp::load(
                    [&(&scope / "fc1"), &(&scope / "fc2")],
                    width,
                    config.decoder_ffn_dim,
                    config.activation,
                )?,
                aligned,
            });
        }
        let embedding = (scope / "embed_tokens").take("weight", &[config.vocab_size, width])?;
        Ok(Self {
            head: Linear::new(embedding.shallow_clone(), None).packed()?,
            embedding,
            positions: (scope / "embed_positions")
                .take("weight", &[config.max_target_positions, width])?,
            layers,
            norm: LayerNorm::load(&(scope / "layer_norm"), width, EPSILON)?,
            heads,
            longest: config.max_target_positions,
        })
    }

    /// What the encoder heard, `[rows, positions, width]`, for every layer.
    ///
    /// # Errors
    /// Overload, where memory is short.
    pub fn listen(&self, heard: &Tensor) -> Result<AudioContext> {
        let keys = |layer: &Layer| -> Result<KeyValue> {
            let KeyValue { keys, values } = layer.cross_attn.keys(heard)?;
            Ok(KeyValue {
                keys: keys.f_contiguous()?,
                values: values.f_contiguous()?,
            })
        };
        self.layers
            .iter()
            .map(keys)
            .collect::<Result<_>>()
            .map(AudioContext)
    }

    /// Texts of nothing yet, one for each window of `sound`; `aligned` where the words' times will
    /// be asked for.
    ///
    /// # Errors
    /// Overload, where memory is short.
    pub fn start(&self, sound: &AudioContext, aligned: bool) -> Result<State> {
        let (rows, options) = (
            sound.rows(),
            (self.positions.kind(), self.positions.device()),
        );
        let room = ROOM.min(self.longest);
        let shape = [
            self.layers.len() as i64,
            2,
            rows,
            self.heads.count,
            room,
            self.heads.dim,
        ];
        let count: i64 = self.aligned().map(|(_, aligned)| aligned.count).sum();
        let queries = if aligned && count > 0 {
            Some(Tensor::f_empty(
                [count, rows, room, self.heads.dim],
                options,
            )?)
        } else {
            None
        };
        Ok(State {
            own: Tensor::f_empty(shape, options)?,
            queries,
            length: 0,
        })
    }

    fn aligned(&self) -> impl Iterator<Item = (usize, &Aligned)> {
        self.layers
            .iter()
            .enumerate()
            .filter_map(|(n, layer)| Some((n, layer.aligned.as_ref()?)))
    }

    /// Appends `columns` tokens to every text (`tokens` row after row); the hidden states after
    /// each, `[rows, columns, width]`. Only the first call may append several.
    ///
    /// # Errors
    /// Bug, where the texts grow too long or the call does not fit; overload, where memory is
    /// short.
    pub fn read(
        &self,
        state: &mut State,
        sound: &AudioContext,
        tokens: &[u32],
        columns: i64,
    ) -> Result<Tensor> {
        let (rows, start) = (sound.rows(), state.length);
        if tokens.len() as i64 != rows * columns
            || start + columns > self.longest
            || (columns > 1 && start > 0)
        {
            return Err(Error::bug(format!(
                "{} tokens for {rows} texts of {start} tokens",
                tokens.len()
            )));
        }
        state.grow(start + columns)?;
        let numbers: Vec<i64> = tokens.iter().map(|&token| i64::from(token)).collect();
        let numbers = Tensor::f_from_slice(&numbers)?.f_to(self.embedding.device())?;
        let positions = self.positions.f_narrow(0, start, columns)?;
        let mut x = self
            .embedding
            .f_index_select(0, &numbers)?
            .f_view([rows, columns, self.heads.width])?
            .f_add_(&positions)?;
        for (n, (layer, heard)) in self.layers.iter().zip(&sound.0).enumerate() {
            let (query, fresh) = layer
                .self_attn
                .queries(&layer.self_attn_norm.forward(&x)?)?;
            let own = state.append(n as i64, &fresh, columns)?;
            let _ = x.f_add_(&layer.self_attn.mix(&query, &own, None, columns > 1)?)?;
            let query = layer
                .cross_attn
                .query(&layer.cross_attn_norm.forward(&x)?)?;
            if let (Some(kept), Some(aligned)) = (&state.queries, &layer.aligned) {
                let place = kept
                    .f_narrow(0, aligned.first, aligned.count)?
                    .f_narrow(2, start, columns)?;
                place
                    .f_transpose(0, 1)?
                    .f_copy_(&query.f_index_select(1, &aligned.heads)?)?;
            }
            let _ = x.f_add_(&layer.cross_attn.mix(&query, heard, None, false)?)?;
            let _ = x.f_add_(&layer.mlp.forward(&layer.mlp_norm.forward(&x)?)?)?;
        }
        state.length = start + columns;
        Ok(x)
    }

    /// Logits after hidden states `[n, width]`: `[n, vocab]`, f32.
    ///
    /// # Errors
    /// Overload, where memory is short.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        Ok(self
            .head
            .forward(&self.norm.forward(hidden)?)?
            .f_to_kind(Kind::Float)?)
    }

    /// How much each of `tokens` that `row` has read, by their places, attended to each position of
    /// the sound, by the heads that follow it: `[heads, tokens, positions]`, f32, each row of sum
    /// 1.
    ///
    /// # Errors
    /// Bug, where the texts were not started to be aligned; overload, where memory is short.
    pub fn attention(
        &self,
        state: &State,
        sound: &AudioContext,
        row: usize,
        tokens: std::ops::Range<usize>,
    ) -> Result<Tensor> {
        let queries = state
            .queries
            .as_ref()
            .ok_or_else(|| Error::bug("these texts keep no queries"))?;
        let queries = queries.f_select(1, row as i64)?.f_narrow(
            1,
            tokens.start as i64,
            tokens.len() as i64,
        )?;
        let mut parts = Vec::new();
        for (n, aligned) in self.aligned() {
            let keys = sound.0[n]
                .keys
                .f_select(0, row as i64)?
                .f_index_select(0, &aligned.heads)?;
            let queries = queries
                .f_narrow(0, aligned.first, aligned.count)?
                .f_mul_scalar((self.heads.dim as f64).powf(-0.5))?;
            parts.push(
                queries
                    .f_matmul(&keys.f_transpose(1, 2)?)?
                    .f_softmax(-1, Kind::Float)?,
            );
        }
        Ok(Tensor::f_cat(&parts, 0)?)
    }
}

impl State {
    /// Tokens that every text has read.
    pub fn length(&self) -> usize {
        self.length as usize
    }

    fn room(&self) -> i64 {
        self.own.size()[4]
    }

    fn grow(&mut self, tokens: i64) -> Result<()> {
        let room = self.room();
        if tokens <= room {
            return Ok(());
        }
        let wider = |tensor: &Tensor, dim: usize| -> Result<Tensor> {
            let mut shape = tensor.size();
            shape[dim] = (2 * room).max(tokens);
            let wide = Tensor::f_empty(&shape, (tensor.kind(), tensor.device()))?;
            wide.f_narrow(dim as i64, 0, room)?.f_copy_(tensor)?;
            Ok(wide)
        };
        self.own = wider(&self.own, 4)?;
        self.queries = self
            .queries
            .as_ref()
            .map(|queries| wider(queries, 2))
            .transpose()?;
        Ok(())
    }

    /// Keeps a layer's new keys and gives all of its.
    fn append(&self, layer: i64, fresh: &KeyValue, columns: i64) -> Result<KeyValue> {
        let own = self.own.f_select(0, layer)?;
        let part = |at: i64, fresh: &Tensor| -> Result<Tensor> {
            let part = own.f_select(0, at)?;
            part.f_narrow(2, self.length, columns)?.f_copy_(fresh)?;
            Ok(part.f_narrow(2, 0, self.length + columns)?)
        };
        Ok(KeyValue {
            keys: part(0, &fresh.keys)?,
            values: part(1, &fresh.values)?,
        })
    }

    /// Lets go of all rows but these.
    ///
    /// # Errors
    /// Overload, where memory is short.
    pub fn keep(&mut self, rows: &[usize]) -> Result<()> {
        let rows = index(rows, self.own.device())?;
        self.own = self.own.f_index_select(2, &rows)?;
        self.queries = self
            .queries
            .as_ref()
            .map(|queries| queries.f_index_select(1, &rows))
            .transpose()?;
        Ok(())
    }
}

fn index(rows: &[usize], device: Device) -> Result<Tensor> {
    let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
    Ok(Tensor::f_from_slice(&rows)?.f_to(device)?)
}
