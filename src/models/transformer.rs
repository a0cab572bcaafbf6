//! The transformer layers of image and text towers: pre-norm, as CLIP, SigLIP and DINOv2 share them. Dosovitskiy et al., "An Image is Worth
//! 16x16 Words" (arXiv:2010.11929). What is constant around a product is folded into its weights.

use tch::{Device, Kind, Tensor};

use super::attention::{Attention, Biases, Heads};
use super::config::Config;
use super::layers::{Activation, LayerNorm, Linear};
use super::weights::Scope;
use crate::error::Result;

/// QuickGELU is x * sigmoid(1.702 x).
const QUICK: f64 = 1.702;

/// The sizes of a tower.
#[derive(Debug, Clone, PartialEq)]
pub struct Tower {
    /// Width of the sequence.
    pub width: i64,
    /// Heads of every attention.
    pub heads: i64,
    /// Number of layers.
    pub layers: i64,
    /// Width between the two layers of the feed-forward part.
    pub intermediate: i64,
    /// What stands between them.
    pub activation: Activation,
    /// What is added to variances.
    pub epsilon: f64,
}

impl Tower {
    /// `hidden_size`, `num_attention_heads`, `num_hidden_layers`, `intermediate_size`, `hidden_act`, `layer_norm_eps`; what is missing is
    /// `default`'s, whose activation transformers calls `activation`.
    ///
    /// # Errors
    /// Model, where a field is not what it must be.
    pub fn read(config: &Config, default: &Self, activation: &str) -> Result<Self> {
        let read = Self {
            width: config.integer_or("hidden_size", default.width)?,
            heads: config.integer_or("num_attention_heads", default.heads)?,
            layers: config.integer_or("num_hidden_layers", default.layers)?,
            intermediate: config.integer_or("intermediate_size", default.intermediate)?,
            activation: Activation::read(config, "hidden_act", activation)?,
            epsilon: config.number_or("layer_norm_eps", default.epsilon)?,
        };
        if read.heads == 0 || read.width == 0 || read.width % read.heads != 0 || read.intermediate == 0 {
            return Err(config.error("`hidden_size` must be a multiple of `num_attention_heads`, and all sizes above 0"));
        }
        Ok(read)
    }
}

/// The feed-forward part of a layer: two products and what stands between them.
#[derive(Debug)]
pub struct Mlp {
    into: Linear,
    between: Between,
    out: Linear,
}

#[derive(Debug, Clone, Copy)]
enum Between {
    Activation(Activation),
    /// The first half through SiLU gates the second: Shazeer, "GLU Variants Improve Transformer" (arXiv:2002.05202).
    Gate,
}

impl Mlp {
    /// `fc1` and `fc2` under `scope`.
    ///
    /// # Errors
    /// Model, where the weights do not fit.
    pub fn new(scope: &Scope<'_>, tower: &Tower) -> Result<Self> {
        let &Tower { width, intermediate, activation, .. } = tower;
        let (fc1, fc2) = (scope / "fc1", scope / "fc2");
        if activation != Activation::QuickGelu {
            let (into, out) = (Linear::new(&fc1, width, intermediate)?, Linear::new(&fc2, intermediate, width)?);
            return Ok(Self::of(into, activation, out));
        }
        // x * sigmoid(1.702 x) is SiLU(1.702 x) / 1.702: a kernel of its own instead of three, with both factors in the weights.
        let factor = |value: f64| Tensor::f_full([] as [i64; 0], value, (Kind::Float, Device::Cpu));
        let into = Linear::scaled(&fc1, width, intermediate, &factor(QUICK)?, &factor(QUICK)?)?;
        let out = Linear::scaled(&fc2, intermediate, width, &factor(1. / QUICK)?, &factor(1.)?)?;
        Ok(Self::of(into, Activation::Silu, out))
    }

    /// Of these layers.
    pub fn of(into: Linear, activation: Activation, out: Linear) -> Self {
        Self { into, between: Between::Activation(activation), out }
    }

    /// Of a first layer whose first half gates its second.
    pub fn gated(into: Linear, out: Linear) -> Self {
        Self { into, between: Between::Gate, out }
    }

    /// `[.., width]` to the same.
    ///
    /// # Errors
    /// Model, where the shape does not fit; overload, where memory is short.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self.between {
            Between::Activation(activation) => self.out.forward(&self.into.forward_then(x, activation)?),
            Between::Gate => {
                let both = self.into.forward(x)?.f_chunk(2, -1)?;
                self.out.forward(&both[0].f_silu()?.f_mul_(&both[1])?)
            }
        }
    }
}

/// One layer: attention, then the feed-forward part, each over what a layer norm makes of the sequence, each added to it.
#[derive(Debug)]
pub struct Layer {
    norm1: LayerNorm,
    attention: Attention,
    norm2: LayerNorm,
    mlp: Mlp,
}

impl Layer {
    /// Under CLIP's and SigLIP's names.
    ///
    /// # Errors
    /// Model, where the weights do not fit.
    pub fn new(scope: &Scope<'_>, tower: &Tower) -> Result<Self> {
        let names = ["q_proj", "k_proj", "v_proj", "out_proj"];
        Ok(Self {
            norm1: LayerNorm::new(&(scope / "layer_norm1"), tower.width, tower.epsilon)?,
            attention: Attention::of_self(&(scope / "self_attn"), names, Heads::of_self(tower.width, tower.heads), Biases::ALL)?,
            norm2: LayerNorm::new(&(scope / "layer_norm2"), tower.width, tower.epsilon)?,
            mlp: Mlp::new(&(scope / "mlp"), tower)?,
        })
    }

    /// Of these parts, in their order.
    pub fn of(norm1: LayerNorm, attention: Attention, norm2: LayerNorm, mlp: Mlp) -> Self {
        Self { norm1, attention, norm2, mlp }
    }

    /// `[b, t, width]` to the same; `causal` hides from each place what comes after it. What goes in is left as it is.
    ///
    /// # Errors
    /// Model, where the shape does not fit; overload, where memory is short.
    pub fn forward(&self, x: &Tensor, causal: bool) -> Result<Tensor> {
        let x = self.attention.forward(&self.norm1.forward(x)?, None, causal)?.f_add_(x)?;
        Ok(self.mlp.forward(&self.norm2.forward(&x)?)?.f_add_(&x)?)
    }

    /// What [`forward`](Self::forward) makes of one place, `[b, width]`: it looks at the others, but nothing is made of them.
    ///
    /// # Errors
    /// As there.
    pub fn forward_one(&self, x: &Tensor, place: i64) -> Result<Tensor> {
        let (query, keys) = self.attention.queries(&self.norm1.forward(x)?)?;
        let mixed = self.attention.mix(&query.f_narrow(2, place, 1)?, &keys, None, false)?;
        let x = mixed.f_add(&x.f_narrow(1, place, 1)?)?;
        Ok(self.mlp.forward(&self.norm2.forward(&x)?)?.f_add_(&x)?.f_select(1, 0)?)
    }
}

/// The layers under `scope`'s `0`, `1` and so on, under CLIP's names.
///
/// # Errors
/// Model, where the weights do not fit.
pub fn layers(scope: &Scope<'_>, tower: &Tower) -> Result<Vec<Layer>> {
    (0..tower.layers).map(|index| Layer::new(&(scope / index), tower)).collect()
}
