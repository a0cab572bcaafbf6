//! The caption decoder of the system that opusflow descends from: a transformer decoder that writes
//! over the vectors of a video (post-norm, GELU). The reference is PyTorch's
//! `nn.TransformerDecoder` between an embedding and a projection (`tests/golden/opus_captions.py`);
//! Vaswani et al., "Attention Is All You Need" (arXiv:1706.03762).

use super::attention::{Attention, AttentionConfig};
use super::caption_decoder::CaptionDecoder;
use super::config::Config;
use super::decoder::{CrossAttentionDecoder, CrossAttentionLayer};
use super::folder::ModelFolder;
use super::layers::{Activation, Embedding, LayerNorm, Linear, Mlp};
use super::network_spec::{Load, NetworkSpec, NetworkTask};
use super::text::{TextGenerator, Tokenizer, token_ids};
use super::weights::{Scope, Weights};
use crate::error::Result;
use crate::tensor::{Device, Kind, Precision, Tensor, guard};

/// Its entry in the table of networks.
pub const NETWORK: NetworkSpec = NetworkSpec {
    classes: &[("OpusCaptionDecoder", NetworkTask::CaptionClips)],
    load: Load::Checked(|folder, device, precision| {
        self::load(folder, device, precision).map(drop)
    }),
};

/// What its layer norms add to the variance.
const EPSILON: f64 = 1e-5;

/// The network's sizes.
#[derive(Debug, Clone, PartialEq)]
pub struct OpusCaptionConfig {
    /// Tokens.
    pub vocabulary: i64,
    /// Numbers a position, and of a vector of the video.
    pub width: i64,
    /// Heads of every attention.
    pub heads: i64,
    /// Layers.
    pub layers: i64,
    /// Width of their feed-forward part.
    pub intermediate: i64,
    /// Longest text.
    pub positions: i64,
    /// Where the vectors of positions come from.
    pub position_embedding: PositionEmbedding,
}

/// The vectors of positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PositionEmbedding {
    /// A table of the checkpoint.
    Learned,
    /// Sines and cosines of ever lower frequencies; vectors of tokens are then multiplied by the
    /// root of the width.
    Sinusoidal,
}

impl OpusCaptionConfig {
    /// From config.json: `vocab_size`, `hidden_size` (512 where missing), `num_attention_heads`
    /// (8), `num_hidden_layers` (6), `intermediate_size` (2048), `max_position_embeddings` (512),
    /// `position_embedding_type` (`learned` or `sinusoidal`).
    ///
    /// # Errors
    /// Model, where a field is not what it must be.
    pub fn read(config: &Config) -> Result<Self> {
        let read = Self {
            vocabulary: config.integer("vocab_size")?,
            width: config.integer_or("hidden_size", 512)?,
            heads: config.integer_or("num_attention_heads", 8)?,
            layers: config.integer_or("num_hidden_layers", 6)?,
            intermediate: config.integer_or("intermediate_size", 2048)?,
            positions: config.integer_or("max_position_embeddings", 512)?,
            position_embedding: match config.string_or("position_embedding_type", "learned")? {
                "learned" => PositionEmbedding::Learned,
                "sinusoidal" => PositionEmbedding::Sinusoidal,
                other => {
                    return Err(config.error(format_args!(
                        "`position_embedding_type` must be learned or sinusoidal, it is {other}"
                    )));
                }
            },
        };
        if read.heads == 0
            || read.width == 0
            || read.width % read.heads != 0
            || read.width % 2 != 0
            || read.positions == 0
        {
            return Err(config.error(
                "`hidden_size` must be even and a multiple of `num_attention_heads`, \
                 `max_position_embeddings` not 0",
            ));
        }
        Ok(read)
    }
}

/// Reads the decoder's weights.
///
/// # Errors
/// Model, where they do not fit; overload, where memory is short.
pub fn read(weights: Weights, config: &OpusCaptionConfig) -> Result<CrossAttentionDecoder> {
    let _frozen = guard();
    // A table of sines is computed here; some checkpoints carry it.
    weights.allow_surplus("pos_encoder.pe");
    let root = weights.root();
    let OpusCaptionConfig {
        vocabulary,
        width,
        heads,
        layers,
        positions,
        ..
    } = *config;
    let token_embedding = Embedding::load(&(&root / "embedding"), vocabulary, width)?;
    let decoder = &root / "decoder";
    let head = Linear::load(&(&root / "output_proj"), width, vocabulary)?.packed()?;
    let (position_embedding, scale) = match config.position_embedding {
        PositionEmbedding::Learned => (
            root.take("position_embedding.weight", &[positions, width])?,
            1.,
        ),
        PositionEmbedding::Sinusoidal => (
            weights.place(&sines(positions, width)?)?,
            (width as f64).sqrt(),
        ),
    };
    let last = &decoder / "norm";
    let network = CrossAttentionDecoder {
        token_embedding,
        scale,
        position_embedding,
        first: None,
        layers: (0..layers)
            .map(|n| layer(&(&decoder / "layers" / n), config))
            .collect::<Result<_>>()?,
        last: last
            .has("weight")
            .then(|| LayerNorm::load(&last, width, EPSILON))
            .transpose()?,
        transform: None,
        head,
        heads,
        context: width,
        kind: weights.precision().kind(),
        device: weights.device(),
    };
    weights.finish()?;
    Ok(network)
}

/// PyTorch's `nn.TransformerDecoderLayer(activation="gelu", batch_first=True)`: post-norm.
fn layer(scope: &Scope<'_>, config: &OpusCaptionConfig) -> Result<CrossAttentionLayer> {
    let OpusCaptionConfig {
        width,
        intermediate,
        ..
    } = *config;
    let heads = AttentionConfig::self_attention(width, config.heads);
    let kind = scope.weights().attention();
    let projections = |name: &str| -> Result<(Tensor, Tensor, Linear)> {
        let scope = scope / name;
        let (weight, bias) = (
            scope.take("in_proj_weight", &[3 * width, width])?,
            scope.take("in_proj_bias", &[3 * width])?,
        );
        Ok((
            weight,
            bias,
            Linear::load(&(&scope / "out_proj"), width, width)?,
        ))
    };
    let (weight, bias, out) = projections("self_attn")?;
    let self_attn = Attention::fused(Linear::new(weight, Some(bias)), out, heads, kind).packed()?;
    let (weight, bias, out) = projections("multihead_attn")?;
    let part = |start: i64, length: i64| -> Result<Linear> {
        let weight = weight.f_narrow(0, start * width, length * width)?;
        Ok(Linear::new(
            weight,
            Some(bias.f_narrow(0, start * width, length * width)?),
        ))
    };
    Ok(CrossAttentionLayer {
        self_attn,
        self_attn_norm: LayerNorm::load(&(scope / "norm1"), width, EPSILON)?,
        cross_attn: Attention::split(part(0, 1)?, part(1, 2)?, out, heads, kind).packed()?,
        cross_attn_norm: LayerNorm::load(&(scope / "norm2"), width, EPSILON)?,
        mlp: Mlp::new(
            Linear::load(&(scope / "linear1"), width, intermediate)?,
            Activation::Gelu,
            Linear::load(&(scope / "linear2"), intermediate, width)?,
        )
        .packed()?,
        mlp_norm: LayerNorm::load(&(scope / "norm3"), width, EPSILON)?,
    })
}

/// Sines in the even numbers of a vector, cosines in the odd ones: `[positions, width]`.
fn sines(positions: i64, width: i64) -> Result<Tensor> {
    let options = (Kind::Float, Device::Cpu);
    let rates = Tensor::f_arange(width / 2, options)?
        .f_mul_scalar(-2. * 10_000_f64.ln() / width as f64)?
        .f_exp()?;
    let angles = Tensor::f_arange(positions, options)?.f_outer(&rates)?;
    Ok(Tensor::f_stack(&[angles.f_sin()?, angles.f_cos()?], 2)?.f_view([positions, width])?)
}

/// The captioner of a folder whose architecture is `OpusCaptionDecoder`: config.json, weights and
/// tokenizer.json. It writes over the vectors of a video; a text begins with the token
/// `bos_token_id` of config.json and ends with one of `eos_token_id`.
///
/// # Errors
/// Config, where the folder lacks a file or is another network's; model, where a file is not what
/// it should be; overload, where memory is short.
pub fn load(folder: &ModelFolder, device: Device, precision: Precision) -> Result<CaptionDecoder> {
    NETWORK.expect(folder)?;
    let config = folder.config();
    let network = read(
        folder.weights(device, precision)?,
        &OpusCaptionConfig::read(config)?,
    )?;
    let writer = TextGenerator::new(Tokenizer::load(folder)?, token_ids(config, "eos_token_id")?);
    CaptionDecoder::build(network, writer, config.integer("bos_token_id")?)
}

#[cfg(test)]
pub(in crate::models) mod tests;
