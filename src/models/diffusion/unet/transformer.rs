//! The transformers of a UNet: pixels attend to one another and to the prompt. Rombach et al.,
//! "High-Resolution Image Synthesis with Latent Diffusion Models" (arXiv:2112.10752); the reference
//! is Diffusers' `Transformer2DModel` with its `BasicTransformerBlock`.

use tch::Tensor;

use super::config::UNetConfig;
use crate::error::Result;
use crate::models::attention::{Attention, AttentionConfig, Biases, KeyValue};
use crate::models::diffusion::blocks::{Pointwise, to_rows};
use crate::models::layers::{Activation, GroupNorm, LayerNorm, Linear};
use crate::models::offload::tensors;
use crate::models::weights::Scope;

const NAMES: [&str; 4] = ["to_q", "to_k", "to_v", "to_out.0"];
/// What the transformers' norms add to variances, whatever config.json says.
const GROUP_EPSILON: f64 = 1e-6;
const LAYER_EPSILON: f64 = 1e-5;
/// The feed-forward part is this many times as wide inside.
const EXPANSION: i64 = 4;

/// A transformer over the pixels of a picture, added to it.
#[derive(Debug)]
pub(super) struct Transformer {
    norm: GroupNorm,
    into: Pointwise,
    blocks: Vec<Block>,
    out: Pointwise,
}

#[derive(Debug)]
struct Block {
    norms: [LayerNorm; 3],
    pixels: Attention,
    prompt: Attention,
    feed: FeedForward,
}

/// GEGLU: Shazeer, "GLU Variants Improve Transformer" (arXiv:2002.05202).
#[derive(Debug)]
struct FeedForward {
    value: Linear,
    gate: Linear,
    out: Linear,
}

tensors!(Transformer {
    norm,
    into,
    blocks,
    out
});
tensors!(Block {
    norms,
    pixels,
    prompt,
    feed
});
tensors!(FeedForward { value, gate, out });

impl Transformer {
    /// Under `scope`, at the resolution `level` of `config`.
    pub fn load(scope: &Scope<'_>, config: &UNetConfig, level: usize) -> Result<Self> {
        let width = config.channels[level];
        let blocks = &(scope / "transformer_blocks");
        let pointwise = if config.linear_projection {
            Pointwise::load_linear
        } else {
            Pointwise::load
        };
        Ok(Self {
            norm: GroupNorm::load(&(scope / "norm"), width, config.groups, GROUP_EPSILON)?,
            into: pointwise(&(scope / "proj_in"), width, width)?,
            blocks: (0..config.depths[level])
                .map(|index| Block::load(&(blocks / index), config, level))
                .collect::<Result<_>>()?,
            out: pointwise(&(scope / "proj_out"), width, width)?,
        })
    }

    /// The keys that its blocks ask of a prompt `[n, t, context]`, in their order.
    pub fn keys(&self, prompt: &Tensor, keys: &mut Vec<KeyValue>) -> Result<()> {
        for block in &self.blocks {
            keys.push(block.prompt.keys(prompt)?);
        }
        Ok(())
    }

    /// `[n, c, h, w]`, best channels-last, to the same. Takes its blocks' keys off the front of
    /// `keys`.
    pub fn forward<'k>(
        &self,
        x: &Tensor,
        keys: &mut impl Iterator<Item = &'k KeyValue>,
    ) -> Result<Tensor> {
        let (batch, channels, height, width) = x.size4()?;
        let mut states = self.into.rows(&to_rows(&self.norm.forward(x)?)?)?;
        for block in &self.blocks {
            let keys = keys
                .next()
                .ok_or_else(|| crate::error::Error::bug("keys of another UNet's prompt"))?;
            states = block.forward(states, keys)?;
        }
        let out = self.out.rows(&states)?.f_add_(&to_rows(x)?)?;
        Ok(out
            .f_view([batch, height, width, channels])?
            .f_permute([0, 3, 1, 2])?)
    }
}

impl Block {
    fn load(scope: &Scope<'_>, config: &UNetConfig, level: usize) -> Result<Self> {
        let (width, count) = (config.channels[level], config.heads[level]);
        let heads = AttentionConfig::self_attention(width, count);
        let norm = |name: &str| LayerNorm::load(&(scope / name), width, LAYER_EPSILON);
        let upcast = config.upcast_attention;
        Ok(Self {
            norms: [norm("norm1")?, norm("norm2")?, norm("norm3")?],
            pixels: Attention::load_self(&(scope / "attn1"), NAMES, heads, Biases::OUT)?
                .upcast(upcast)
                .packed()?,
            prompt: Attention::load_cross(
                &(scope / "attn2"),
                NAMES,
                AttentionConfig {
                    context: config.context,
                    ..heads
                },
                Biases::OUT,
            )?
            .upcast(upcast)
            .packed()?,
            feed: FeedForward::load(&(scope / "ff" / "net"), width)?,
        })
    }

    fn forward(&self, x: Tensor, keys: &KeyValue) -> Result<Tensor> {
        let [first, second, third] = &self.norms;
        let x = self
            .pixels
            .forward(&first.forward(&x)?, None, false)?
            .f_add_(&x)?;
        let x = self
            .prompt
            .attend(&second.forward(&x)?, keys, None)?
            .f_add_(&x)?;
        Ok(self.feed.forward(&third.forward(&x)?)?.f_add_(&x)?)
    }
}

impl FeedForward {
    fn load(scope: &Scope<'_>, width: i64) -> Result<Self> {
        let inner = EXPANSION * width;
        let both = Linear::load(&(scope / 0 / "proj"), width, 2 * inner)?;
        // Two layers of one matrix, so that what comes out lies in one piece.
        let half = |at: i64| -> Result<Linear> {
            let bias = both
                .bias()
                .map(|bias| bias.f_narrow(0, at, inner))
                .transpose()?;
            Linear::new(both.weight().f_narrow(0, at, inner)?, bias).packed()
        };
        Ok(Self {
            value: half(0)?,
            gate: half(inner)?,
            out: Linear::load(&(scope / 2), inner, width)?.packed()?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let gate = self.gate.forward_activated(x, Activation::Gelu)?;
        self.out.forward(&self.value.forward(x)?.f_mul_(&gate)?)
    }
}
