//! Whisper's text decoder, `[texts, columns]` tokens to `[texts, columns, width]` hidden states:
//! learned positions, pre-norm layers that attend to the tokens so far and to the audio. Where
//! words will be timed, the queries of the heads that follow the audio are kept beside keys and
//! values. After transformers' `WhisperDecoder`.

use std::collections::BTreeMap;

use super::config::{SpecialTokens, WhisperConfig};
use super::encoder::{BIASES, EPSILON, PROJECTIONS};
use crate::error::{Error, Result};
use crate::models::Scope;
use crate::models::attention::{Attention, AttentionConfig, KeyValue};
use crate::models::decoder::{Cache, CrossContext, Decoder, KvCache, KvCacheConfig, LayerCache};
use crate::models::layers::{LayerNorm, Linear, Mlp};
use crate::tensor::{Kind, Tensor};

/// The decoder with its weights.
#[derive(Debug)]
pub(super) struct TextDecoder {
    embedding: Tensor,
    /// `[positions, width]`.
    positions: Tensor,
    layers: Vec<Layer>,
    norm: LayerNorm,
    head: Linear,
    heads: AttentionConfig,
    /// Of all aligned heads.
    aligned: i64,
}

#[derive(Debug)]
struct Layer {
    self_attn_norm: LayerNorm,
    self_attn: Attention,
    cross_attn_norm: LayerNorm,
    cross_attn: Attention,
    mlp_norm: LayerNorm,
    mlp: Mlp,
    aligned: Option<AlignedHeads>,
}

/// The heads of a layer that follow the audio, and which of all those they are.
#[derive(Debug)]
struct AlignedHeads {
    heads: Tensor,
    first: i64,
    count: i64,
}

/// The decoder over audio, one window a prompt.
#[derive(Debug)]
pub(super) struct AudioTextDecoder<'a> {
    network: &'a TextDecoder,
    audio: &'a CrossContext,
    /// Whether words will be timed.
    aligned: bool,
}

/// Texts under way, the audio that they are about, and the queries of the aligned heads.
#[derive(Debug)]
pub(super) struct AudioTextCache {
    columns: KvCache,
    /// Each window has equally many rows, one after the other.
    audio: CrossContext,
    /// `[aligned heads, rows, room, dim]`; none where words are not timed.
    queries: Option<Tensor>,
}

impl TextDecoder {
    pub(super) fn load(
        scope: &Scope<'_>,
        config: &WhisperConfig,
        tokens: &SpecialTokens,
    ) -> Result<Self> {
        let width = config.d_model;
        let mut by_layer: BTreeMap<usize, Vec<i64>> = BTreeMap::new();
        for &(layer, head) in &tokens.alignment_heads {
            by_layer.entry(layer).or_default().push(head as i64);
        }
        let device = scope.weights().device();
        let mut aligned = 0;
        let mut layers = Vec::new();
        for n in 0..config.decoder_layers {
            let mut layer = Layer::load(&(scope / "layers" / n), config)?;
            if let Some(heads) = by_layer.get(&(n as usize)) {
                let count = heads.len() as i64;
                layer.aligned = Some(AlignedHeads {
                    heads: Tensor::f_from_slice(heads)?.f_to(device)?,
                    first: aligned,
                    count,
                });
                aligned += count;
            }
            layers.push(layer);
        }
        let embedding = (scope / "embed_tokens").take("weight", &[config.vocab_size, width])?;
        Ok(Self {
            head: Linear::new(embedding.shallow_clone(), None).packed()?,
            embedding,
            positions: (scope / "embed_positions")
                .take("weight", &[config.max_target_positions, width])?,
            layers,
            norm: LayerNorm::load(&(scope / "layer_norm"), width, EPSILON)?,
            heads: AttentionConfig::self_attention(width, config.decoder_attention_heads),
            aligned,
        })
    }

    /// What the encoder gives, `[windows, positions, width]`, as every layer attends to it.
    ///
    /// # Errors
    /// Model, where the shape does not fit; overload, where memory is short.
    pub(super) fn audio(&self, encoded: &Tensor) -> Result<CrossContext> {
        CrossContext::build(self.layers.iter().map(|layer| &layer.cross_attn), encoded)
    }

    /// The decoder over `audio`; `aligned` where the words' times will be asked for.
    pub(super) fn over<'a>(
        &'a self,
        audio: &'a CrossContext,
        aligned: bool,
    ) -> AudioTextDecoder<'a> {
        AudioTextDecoder {
            network: self,
            audio,
            aligned: aligned && self.aligned > 0,
        }
    }

    /// How much each of `tokens` that `row` has read, by their columns, attended to each position
    /// of the audio, by the heads that follow it: `[heads, tokens, positions]`, f32, each row of
    /// sum 1.
    ///
    /// # Errors
    /// Bug, where the texts were not started to be aligned; overload, where memory is short.
    pub(super) fn attention(
        &self,
        cache: &AudioTextCache,
        row: usize,
        tokens: std::ops::Range<usize>,
    ) -> Result<Tensor> {
        let queries = cache
            .queries
            .as_ref()
            .ok_or_else(|| Error::bug("these texts keep no queries"))?;
        let queries = queries.f_select(1, row as i64)?.f_narrow(
            1,
            tokens.start as i64,
            tokens.len() as i64,
        )?;
        let window = row as i64 / (cache.columns.rows() / cache.audio.rows());
        let mut parts = Vec::new();
        for (layer, audio) in self.layers.iter().zip(cache.audio.layers()) {
            let Some(aligned) = &layer.aligned else {
                continue;
            };
            let keys = audio
                .keys
                .f_select(0, window)?
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

impl Decoder for AudioTextDecoder<'_> {
    type Cache = AudioTextCache;

    fn vocabulary(&self) -> i64 {
        self.network.embedding.size()[0]
    }

    fn positions(&self) -> i64 {
        self.network.positions.size()[0]
    }

    fn depends_on_tokens_only(&self) -> bool {
        false
    }

    fn empty(&self, columns: i64) -> Result<AudioTextCache> {
        let network = self.network;
        let (kind, device) = (network.positions.kind(), network.positions.device());
        let shape = KvCacheConfig {
            layers: network.layers.len() as i64,
            heads: network.heads.count,
            dim: network.heads.dim,
            positions: self.positions(),
        };
        let queries = self
            .aligned
            .then(|| Tensor::f_empty([network.aligned, 0, 0, shape.dim], (kind, device)))
            .transpose()?;
        Ok(AudioTextCache {
            columns: KvCache::build(shape, columns, kind, device)?,
            audio: self.audio.share(),
            queries,
        })
    }

    fn pass(&self, cache: &mut AudioTextCache, tokens: &[i64], columns: i64) -> Result<Tensor> {
        let network = self.network;
        let slots = cache.columns.open(columns)?;
        // The kernel hides what comes later faster than by a mask.
        let causal = columns > 1 && cache.columns.is_causal(columns);
        let mask = if causal {
            None
        } else {
            cache.columns.mask(columns, 1)?
        };
        let queries = cache.new_queries(columns)?;
        let tokens = Tensor::f_from_slice(tokens)?.f_to(network.embedding.device())?;
        let mut x = network
            .embedding
            .f_index_select(0, &tokens)?
            .f_view([-1, columns, network.heads.width])?
            .f_add_(&cache.columns.embed_positions(&network.positions, columns)?)?;
        for ((layer, mut slot), audio) in network.layers.iter().zip(slots).zip(cache.audio.layers())
        {
            let normed = layer.self_attn_norm.forward(&x)?;
            let (query, new) = layer.self_attn.queries(&normed)?;
            slot.fill(&new)?;
            let LayerCache { seen, .. } = &slot;
            let _ = x.f_add_(&layer.self_attn.mix(&query, seen, mask.as_ref(), causal)?)?;
            let _ = x.f_add_(&layer.attend(&x, audio, queries.as_ref())?)?;
            let _ = x.f_add_(&layer.mlp.forward(&layer.mlp_norm.forward(&x)?)?)?;
        }
        Ok(x)
    }

    fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let network = self.network;
        Ok(network
            .head
            .forward(&network.norm.forward(hidden)?)?
            .f_to_kind(Kind::Float)?)
    }
}

impl Layer {
    fn load(scope: &Scope<'_>, config: &WhisperConfig) -> Result<Self> {
        let width = config.d_model;
        let heads = AttentionConfig::self_attention(width, config.decoder_attention_heads);
        let norm = |name: &str| LayerNorm::load(&(scope / name), width, EPSILON);
        let (self_attn, cross_attn) = (scope / "self_attn", scope / "encoder_attn");
        Ok(Self {
            self_attn_norm: norm("self_attn_layer_norm")?,
            self_attn: Attention::load_self(&self_attn, PROJECTIONS, heads, BIASES)?.packed()?,
            cross_attn_norm: norm("encoder_attn_layer_norm")?,
            cross_attn: Attention::load_cross(&cross_attn, PROJECTIONS, heads, BIASES)?.packed()?,
            mlp_norm: norm("final_layer_norm")?,
            mlp: Mlp::load(
                [&(scope / "fc1"), &(scope / "fc2")],
                width,
                config.decoder_ffn_dim,
                config.activation,
            )?,
            aligned: None,
        })
    }

    /// What `x`, `[rows, columns, width]`, finds in the audio: the same shape. The queries of the
    /// aligned heads go into their part of `queries`, `[aligned heads, rows, columns, dim]`.
    fn attend(&self, x: &Tensor, audio: &KeyValue, queries: Option<&Tensor>) -> Result<Tensor> {
        let (rows, columns, width) = x.size3()?;
        let windows = audio.keys.size()[0];
        // All texts about one window ask it as one sequence, so that its keys need not be there for
        // each.
        let normed = self.cross_attn_norm.forward(x)?;
        let query = self
            .cross_attn
            .query(&normed.f_view([windows, -1, width])?)?;
        if let (Some(queries), Some(aligned)) = (queries, &self.aligned) {
            let dim = query.size()[3];
            let own = queries.f_narrow(0, aligned.first, aligned.count)?;
            own.f_view([aligned.count, windows, rows / windows, columns, dim])?
                .f_transpose(0, 1)?
                .f_copy_(&query.f_index_select(1, &aligned.heads)?.f_view([
                    windows,
                    aligned.count,
                    rows / windows,
                    columns,
                    dim,
                ])?)?;
        }
        let found = self.cross_attn.mix(&query, audio, None, false)?;
        Ok(found.f_view([rows, columns, width])?)
    }
}

impl AudioTextCache {
    /// Columns that every text has read.
    pub(super) fn len(&self) -> usize {
        self.columns.len() as usize
    }

    /// Where the queries of the newest `columns` go, `[aligned heads, rows, columns, dim]`; none
    /// where words are not timed. They have room for as many as the keys.
    fn new_queries(&mut self, columns: i64) -> Result<Option<Tensor>> {
        let Some(queries) = &mut self.queries else {
            return Ok(None);
        };
        let start = self.columns.len() - columns;
        let (rows, room) = (self.columns.rows(), self.columns.room());
        let size = queries.size();
        if size[2] < room {
            let wide = [size[0], rows, room, size[3]];
            let wide = Tensor::f_empty(wide, (queries.kind(), queries.device()))?;
            if start > 0 {
                wide.f_narrow(2, 0, start)?
                    .f_copy_(&queries.f_narrow(2, 0, start)?)?;
            }
            *queries = wide;
        }
        Ok(Some(queries.f_narrow(2, start, columns)?))
    }
}

impl Cache for AudioTextCache {
    fn columns(&mut self) -> &mut KvCache {
        &mut self.columns
    }

    fn keep(&mut self, rows: &[usize]) -> Result<()> {
        let texts = self.columns.rows();
        if rows.iter().copied().eq(0..texts as usize) {
            return Ok(());
        }
        self.audio.keep(rows, texts)?;
        self.columns.keep(rows)?;
        if let Some(queries) = &mut self.queries {
            let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
            let rows = Tensor::f_from_slice(&rows)?.f_to(queries.device())?;
            *queries = queries.f_index_select(1, &rows)?;
        }
        Ok(())
    }
}
