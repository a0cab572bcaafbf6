//! BLIP's text decoder: BERT that attends to the picture in every layer, and whose head is tied to
//! its embedding.

use crate::error::Result;
use crate::models::attention::{Attention, AttentionConfig, Biases};
use crate::models::config::Config;
use crate::models::decoder::{CrossAttentionDecoder, CrossAttentionLayer, Transform};
use crate::models::layers::{Activation, Embedding, LayerNorm, Linear, Mlp};
use crate::models::text::token_ids;
use crate::models::weights::Scope;

/// Query, key, value and output under an attention's place.
const NAMES: [&str; 4] = ["self.query", "self.key", "self.value", "output.dense"];

/// The decoder's sizes and special tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct BlipTextConfig {
    /// Tokens.
    pub vocabulary: i64,
    /// Numbers a position.
    pub width: i64,
    /// Heads of every attention.
    pub heads: i64,
    /// Layers.
    pub layers: i64,
    /// Width of their feed-forward part.
    pub intermediate: i64,
    /// Longest text.
    pub positions: i64,
    /// Added to variances.
    pub epsilon: f64,
    /// In the feed-forward parts and before the head.
    pub activation: Activation,
    /// Whether the head is the embedding table.
    pub tied: bool,
    /// The token that texts start with.
    pub start: i64,
    /// The tokens that end them.
    pub ends: Vec<u32>,
}

impl BlipTextConfig {
    /// From the `text_config` of a whole model's config.json; what is missing is the base model's.
    ///
    /// # Errors
    /// Model, where a field is not what it must be.
    pub fn read(config: &Config) -> Result<Self> {
        let section = config.section("text_config")?;
        let ends = token_ids(&section, "sep_token_id")?;
        let read = Self {
            vocabulary: section.integer_or("vocab_size", 30524)?,
            width: section.integer_or("hidden_size", 768)?,
            heads: section.integer_or("num_attention_heads", 8)?,
            layers: section.integer_or("num_hidden_layers", 12)?,
            intermediate: section.integer_or("intermediate_size", 3072)?,
            positions: section.integer_or("max_position_embeddings", 512)?,
            epsilon: section.number_or("layer_norm_eps", 1e-12)?,
            activation: Activation::read(&section, "hidden_act", "gelu")?,
            tied: section.boolean_or("tie_word_embeddings", true)?,
            start: section.integer_or("bos_token_id", 30522)?,
            ends: if ends.is_empty() { vec![102] } else { ends },
        };
        if read.heads == 0 || read.width == 0 || read.width % read.heads != 0 || read.positions == 0
        {
            return Err(section.error(
                "`hidden_size` must be a multiple of `num_attention_heads`, and \
                 `max_position_embeddings` not 0",
            ));
        }
        Ok(read)
    }
}

/// The decoder under `scope`, over states of width `seen`.
///
/// # Errors
/// Model, where the weights do not fit.
pub(super) fn read(
    scope: &Scope<'_>,
    config: &BlipTextConfig,
    seen: i64,
) -> Result<CrossAttentionDecoder> {
    let (weights, width, epsilon) = (scope.weights(), config.width, config.epsilon);
    let (bert, head) = (scope / "bert", scope / "cls" / "predictions");
    let (embeddings, transform) = (&bert / "embeddings", &head / "transform");
    // Older checkpoints carry the numbers of positions, and what is tied a second time.
    for computed in ["embeddings.position_ids", "predictions.decoder.bias"] {
        weights.allow_surplus(computed);
    }
    let token_embedding =
        (&embeddings / "word_embeddings").take("weight", &[config.vocabulary, width])?;
    let table = if config.tied {
        weights.allow_surplus("predictions.decoder.weight");
        token_embedding.shallow_clone()
    } else {
        (&head / "decoder").take("weight", &[config.vocabulary, width])?
    };
    let encoder = &bert / "encoder" / "layer";
    Ok(CrossAttentionDecoder {
        token_embedding: Embedding::new(token_embedding),
        scale: 1.,
        position_embedding: (&embeddings / "position_embeddings")
            .take("weight", &[config.positions, width])?,
        first: Some(LayerNorm::load(
            &(&embeddings / "LayerNorm"),
            width,
            epsilon,
        )?),
        layers: (0..config.layers)
            .map(|n| layer(&(&encoder / n), config, seen))
            .collect::<Result<_>>()?,
        last: None,
        transform: Some(Transform {
            dense: Linear::load(&(&transform / "dense"), width, width)?.packed()?,
            activation: config.activation,
            norm: LayerNorm::load(&(&transform / "LayerNorm"), width, epsilon)?,
        }),
        head: Linear::new(table, Some(head.take("bias", &[config.vocabulary])?)).packed()?,
        heads: config.heads,
        context: seen,
        kind: weights.precision().kind(),
        device: weights.device(),
    })
}

fn layer(scope: &Scope<'_>, config: &BlipTextConfig, seen: i64) -> Result<CrossAttentionLayer> {
    let &BlipTextConfig {
        width,
        intermediate,
        heads,
        epsilon,
        ..
    } = config;
    let own = AttentionConfig::self_attention(width, heads);
    let norm = |place: &str| LayerNorm::load(&(scope / place), width, epsilon);
    Ok(CrossAttentionLayer {
        self_attn: Attention::load_self(&(scope / "attention"), NAMES, own, Biases::ALL)?
            .packed()?,
        self_attn_norm: norm("attention.output.LayerNorm")?,
        cross_attn: Attention::load_cross(
            &(scope / "crossattention"),
            NAMES,
            AttentionConfig {
                context: seen,
                ..own
            },
            Biases::ALL,
        )?
        .packed()?,
        cross_attn_norm: norm("crossattention.output.LayerNorm")?,
        mlp: Mlp::new(
            Linear::load(&(scope / "intermediate.dense"), width, intermediate)?,
            config.activation,
            Linear::load(&(scope / "output.dense"), intermediate, width)?,
        )
        .packed()?,
        mlp_norm: norm("output.LayerNorm")?,
    })
}
