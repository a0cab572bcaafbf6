//! A transformer decoder that writes about something it is shown (Vaswani et al., "Attention Is All
//! You Need", arXiv:1706.03762): every layer attends to the text so far, then to the context, then
//! feeds forward, each normalised after its sum. BERT with cross-attention and PyTorch's
//! `nn.TransformerDecoder` are both this; they differ in the names of their weights and in what
//! stands before and after the layers.

use super::{Cache, CrossContext, Decoder, KvCache, KvCacheConfig, LayerCache};
use crate::error::{Error, Result};
use crate::models::attention::{Attention, KeyValue};
use crate::models::layers::{Activation, Embedding, LayerNorm, Linear, Mlp};
use crate::tensor::{Device, Kind, Tensor, guard};

/// The decoder with its weights.
#[derive(Debug)]
pub struct CrossAttentionDecoder {
    /// The vector of each token.
    pub token_embedding: Embedding,
    /// What the vectors of tokens are multiplied by.
    pub scale: f64,
    /// The vector of each position: `[positions, width]`.
    pub position_embedding: Tensor,
    /// What normalises their sum, where something does.
    pub first: Option<LayerNorm>,
    /// The layers.
    pub layers: Vec<CrossAttentionLayer>,
    /// What normalises what the last layer gives, where something does.
    pub last: Option<LayerNorm>,
    /// What stands before the head, where something does.
    pub transform: Option<Transform>,
    /// From width to vocabulary.
    pub head: Linear,
    /// Heads of every attention.
    pub heads: i64,
    /// Width of the context.
    pub context: i64,
    /// Number format of the weights.
    pub kind: Kind,
    /// Where they are.
    pub device: Device,
}

/// A layer of it.
#[derive(Debug)]
pub struct CrossAttentionLayer {
    /// Of the text with itself.
    pub self_attn: Attention,
    /// After the sum with it.
    pub self_attn_norm: LayerNorm,
    /// Of the text with the context.
    pub cross_attn: Attention,
    /// After the sum with it.
    pub cross_attn_norm: LayerNorm,
    /// The feed-forward part.
    pub mlp: Mlp,
    /// After the sum with it.
    pub mlp_norm: LayerNorm,
}

/// A layer, an activation and a normalisation: BERT's step before its head.
#[derive(Debug)]
pub struct Transform {
    /// The layer.
    pub dense: Linear,
    /// The activation.
    pub activation: Activation,
    /// The normalisation.
    pub norm: LayerNorm,
}

/// The decoder over the contexts that its texts are about, one a prompt.
#[derive(Debug)]
pub struct ConditionedDecoder<'a> {
    network: &'a CrossAttentionDecoder,
    context: CrossContext,
}

/// Texts under way, and what they are about.
#[derive(Debug)]
pub struct ConditionedCache {
    columns: KvCache,
    /// Each has equally many rows, one after the other.
    context: CrossContext,
}

impl CrossAttentionDecoder {
    /// The decoder over `states`, `[contexts, length, context]` in the model's number format: the
    /// keys of all layers are made here, once.
    ///
    /// # Errors
    /// Model, where `states` has another shape; overload, where memory is short.
    pub fn over(&self, states: &Tensor) -> Result<ConditionedDecoder<'_>> {
        let _frozen = guard();
        let size = states.size();
        if size.len() != 3 || size[0] == 0 || size[1] == 0 || size[2] != self.context {
            return Err(Error::model(format!(
                "what a text is about must be [n, length, {}], it is {size:?}",
                self.context
            )));
        }
        let layers = self.layers.iter().map(|layer| &layer.cross_attn);
        Ok(ConditionedDecoder {
            network: self,
            context: CrossContext::build(layers, states)?,
        })
    }

    fn width(&self) -> i64 {
        self.position_embedding.size()[1]
    }

    /// `tokens`, the newest columns of `cache`, as the first layer takes them.
    fn embed(&self, tokens: &Tensor, cache: &KvCache) -> Result<Tensor> {
        let vectors = self.token_embedding.forward(tokens)?;
        let scaled = if self.scale == 1. {
            vectors
        } else {
            vectors.f_mul_scalar(self.scale)?
        };
        let x =
            scaled.f_add(&cache.embed_positions(&self.position_embedding, tokens.size()[1])?)?;
        match &self.first {
            Some(norm) => norm.forward(&x),
            None => Ok(x),
        }
    }
}

impl Decoder for ConditionedDecoder<'_> {
    type Cache = ConditionedCache;

    fn vocabulary(&self) -> i64 {
        self.network.token_embedding.weight().size()[0]
    }

    fn positions(&self) -> i64 {
        self.network.position_embedding.size()[0]
    }

    fn depends_on_tokens_only(&self) -> bool {
        false
    }

    fn empty(&self, columns: i64) -> Result<ConditionedCache> {
        let network = self.network;
        let dim = network.width() / network.heads;
        let shape = KvCacheConfig {
            layers: network.layers.len() as i64,
            heads: network.heads,
            dim,
            positions: self.positions(),
        };
        let columns = KvCache::build(shape, columns, network.kind, network.device)?;
        Ok(ConditionedCache {
            columns,
            context: self.context.share(),
        })
    }

    fn pass(&self, cache: &mut ConditionedCache, tokens: &[i64], columns: i64) -> Result<Tensor> {
        let slots = cache.columns.open(columns)?;
        let mask = cache.columns.mask(columns, 1)?;
        let tokens = Tensor::f_from_slice(tokens)?
            .f_to(self.network.device)?
            .f_view([-1, columns])?;
        let mut x = self.network.embed(&tokens, &cache.columns)?;
        for ((layer, mut slot), context) in self
            .network
            .layers
            .iter()
            .zip(slots)
            .zip(cache.context.layers())
        {
            x = layer.forward(&x, &mut slot, context, mask.as_ref())?;
        }
        match &self.network.last {
            Some(norm) => norm.forward(&x),
            None => Ok(x),
        }
    }

    fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let logits = match &self.network.transform {
            Some(Transform {
                dense,
                activation,
                norm,
            }) => self
                .network
                .head
                .forward(&norm.forward(&dense.forward_activated(hidden, *activation)?)?)?,
            None => self.network.head.forward(hidden)?,
        };
        Ok(logits.f_to_kind(Kind::Float)?)
    }
}

impl CrossAttentionLayer {
    /// `[rows, columns, width]` to the same; rows of one context follow one another, as many for
    /// each.
    fn forward(
        &self,
        x: &Tensor,
        slot: &mut LayerCache,
        context: &KeyValue,
        mask: Option<&Tensor>,
    ) -> Result<Tensor> {
        let (query, new) = self.self_attn.queries(x)?;
        slot.fill(&new)?;
        let x = self
            .self_attn_norm
            .forward(&x.f_add(&self.self_attn.mix(&query, &slot.seen, mask, false)?)?)?;
        // All texts about one context ask it as one sequence, so that its keys need not be there
        // for each.
        let together = x.f_view([context.keys.size()[0], -1, x.size()[2]])?;
        let answer = self
            .cross_attn
            .attend(&together, context, None)?
            .f_view_as(&x)?;
        let x = self.cross_attn_norm.forward(&x.f_add(&answer)?)?;
        self.mlp_norm.forward(&x.f_add(&self.mlp.forward(&x)?)?)
    }
}

impl Cache for ConditionedCache {
    fn columns(&mut self) -> &mut KvCache {
        &mut self.columns
    }

    fn keep(&mut self, rows: &[usize]) -> Result<()> {
        self.context.keep(rows, self.columns.rows())?;
        self.columns.keep(rows)
    }
}
