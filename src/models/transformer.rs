//! The transformer layers of image and text towers: pre-norm, as CLIP, SigLIP and DINOv2 share
//! them. Dosovitskiy et al., "An Image is Worth 16x16 Words" (arXiv:2010.11929). What is constant
//! around a product is folded into its weights.

use tch::{Device, Kind, Tensor};

use super::attention::{Attention, AttentionConfig, Biases};
use super::config::Config;
use super::layers::{Activation, LayerNorm, Linear};
use super::offload::tensors;
use super::weights::Scope;
use crate::error::Result;

/// QuickGELU is x * sigmoid(1.702 x).
const QUICK: f64 = 1.702;

tensors!(Mlp { into, out });
tensors!(TransformerLayer {
    norm1,
    attention,
    norm2,
    mlp
});

/// The sizes of a tower.
#[derive(Debug, Clone, PartialEq)]
pub struct TransformerConfig {
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

impl TransformerConfig {
    /// `hidden_size`, `num_attention_heads`, `num_hidden_layers`, `intermediate_size`,
    /// `hidden_act`, `layer_norm_eps`; what is missing is `default`'s, whose activation
    /// transformers calls `activation`.
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
        if read.heads == 0
            || read.width == 0
            || read.width % read.heads != 0
            || read.intermediate == 0
        {
            return Err(config.error(
                "`hidden_size` must be a multiple of `num_attention_heads`, and all sizes above 0",
            ));
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
    /// The first half through SiLU gates the second: Shazeer, "GLU Variants Improve Transformer"
    /// (arXiv:2002.05202).
    Gate,
}

impl Mlp {
    /// `fc1` and `fc2` under `scope`.
    ///
    /// # Errors
    /// Model, where the weights do not fit.
    pub fn new(scope: &Scope<'_>, tower: &TransformerConfig) -> Result<Self> {
        let &TransformerConfig {
            width,
            intermediate,
            activation,
            ..
        } = tower;
        let (fc1, fc2) = (scope / "fc1", scope / "fc2");
        if activation != Activation::QuickGelu {
            return Self::of(
                Linear::load(&fc1, width, intermediate)?,
                activation,
                Linear::load(&fc2, intermediate, width)?,
            );
        }
        // x * sigmoid(1.702 x) is SiLU(1.702 x) / 1.702: a kernel of its own instead of three, with
        // both factors in the weights.
        let factor = |value: f64| Tensor::f_full([] as [i64; 0], value, (Kind::Float, Device::Cpu));
        let into =
            Linear::load_scaled(&fc1, width, intermediate, &factor(QUICK)?, &factor(QUICK)?)?;
        let out = Linear::load_scaled(
            &fc2,
            intermediate,
            width,
            &factor(1. / QUICK)?,
            &factor(1.)?,
        )?;
        Self::of(into, Activation::Silu, out)
    }

    /// Of these layers.
    ///
    /// # Errors
    /// Overload, where memory is short.
    pub fn of(into: Linear, activation: Activation, out: Linear) -> Result<Self> {
        Ok(Self {
            into: into.packed()?,
            between: Between::Activation(activation),
            out: out.packed()?,
        })
    }

    /// Of a first layer whose first half gates its second.
    ///
    /// # Errors
    /// Overload, where memory is short.
    pub fn gated(into: Linear, out: Linear) -> Result<Self> {
        Ok(Self {
            into: into.packed()?,
            between: Between::Gate,
            out: out.packed()?,
        })
    }

    /// `[.., width]` to the same.
    ///
    /// # Errors
    /// Model, where the shape does not fit; overload, where memory is short.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self.between {
            Between::Activation(activation) => self
                .out
                .forward(&self.into.forward_activated(x, activation)?),
            Between::Gate => {
                let both = self.into.forward(x)?.f_chunk(2, -1)?;
                self.out.forward(&both[0].f_silu()?.f_mul_(&both[1])?)
            }
        }
    }
}

/// One layer: attention, then the feed-forward part, each over what a layer norm makes of the
/// sequence, each added to it.
#[derive(Debug)]
pub struct TransformerLayer {
    norm1: LayerNorm,
    attention: Attention,
    norm2: LayerNorm,
    mlp: Mlp,
}

impl TransformerLayer {
    /// Under CLIP's and SigLIP's names.
    ///
    /// # Errors
    /// Model, where the weights do not fit.
    pub fn new(scope: &Scope<'_>, tower: &TransformerConfig) -> Result<Self> {
        let names = ["q_proj", "k_proj", "v_proj", "out_proj"];
        Self::of(
            LayerNorm::load(&(scope / "layer_norm1"), tower.width, tower.epsilon)?,
            Attention::load_self(
                &(scope / "self_attn"),
                names,
                AttentionConfig::self_attention(tower.width, tower.heads),
                Biases::ALL,
            )?,
            LayerNorm::load(&(scope / "layer_norm2"), tower.width, tower.epsilon)?,
            Mlp::new(&(scope / "mlp"), tower)?,
        )
    }

    /// Of these parts, in their order.
    ///
    /// # Errors
    /// Overload, where memory is short.
    pub fn of(norm1: LayerNorm, attention: Attention, norm2: LayerNorm, mlp: Mlp) -> Result<Self> {
        Ok(Self {
            norm1,
            attention: attention.packed()?,
            norm2,
            mlp,
        })
    }

    /// `[b, t, width]` to the same; `causal` hides from each place what comes after it. What goes
    /// in is left as it is.
    ///
    /// # Errors
    /// Model, where the shape does not fit; overload, where memory is short.
    pub fn forward(&self, x: &Tensor, causal: bool) -> Result<Tensor> {
        let x = self
            .attention
            .forward(&self.norm1.forward(x)?, None, causal)?
            .f_add_(x)?;
        Ok(self.mlp.forward(&self.norm2.forward(&x)?)?.f_add_(&x)?)
    }

    /// What [`forward`](Self::forward) makes of one place, `[b, width]`: it looks at the others,
    /// but nothing is made of them.
    ///
    /// # Errors
    /// As there.
    pub fn forward_one(&self, x: &Tensor, place: i64) -> Result<Tensor> {
        let (query, keys) = self.attention.queries(&self.norm1.forward(x)?)?;
        let mixed = self
            .attention
            .mix(&query.f_narrow(2, place, 1)?, &keys, None, false)?;
        let x = mixed.f_add(&x.f_narrow(1, place, 1)?)?;
        Ok(self
            .mlp
            .forward(&self.norm2.forward(&x)?)?
            .f_add_(&x)?
            .f_select(1, 0)?)
    }
}

/// The layers under `scope`'s `0`, `1` and so on, under CLIP's names.
///
/// # Errors
/// Model, where the weights do not fit.
pub fn layers(scope: &Scope<'_>, tower: &TransformerConfig) -> Result<Vec<TransformerLayer>> {
    (0..tower.layers)
        .map(|index| TransformerLayer::new(&(scope / index), tower))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::weights::Weights;
    use crate::tensor::Precision;

    const WIDTH: i64 = 256;
    const INNER: i64 = 512;

    /// A layer large enough for its weights to be laid out for oneDNN, beside the same written out
    /// in libtorch's operations.
    #[test]
    fn a_large_layer_is_what_it_is_written_out() {
        let random = |shape: &[i64]| {
            Tensor::randn(shape, (Kind::Float, Device::Cpu))
                / (*shape.last().unwrap() as f64).sqrt()
        };
        let mut tensors = Vec::new();
        let dense = [
            ("self_attn.q_proj", WIDTH, WIDTH),
            ("self_attn.k_proj", WIDTH, WIDTH),
            ("self_attn.v_proj", WIDTH, WIDTH),
            ("self_attn.out_proj", WIDTH, WIDTH),
            ("mlp.fc1", INNER, WIDTH),
            ("mlp.fc2", WIDTH, INNER),
        ];
        for (name, output, input) in dense {
            tensors.push((format!("{name}.weight"), random(&[output, input])));
            tensors.push((format!("{name}.bias"), random(&[output])));
        }
        for norm in ["layer_norm1", "layer_norm2"] {
            tensors.push((format!("{norm}.weight"), random(&[WIDTH]) + 1.));
            tensors.push((format!("{norm}.bias"), random(&[WIDTH])));
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.safetensors");
        Tensor::write_safetensors(&tensors, &file).unwrap();
        let tower = TransformerConfig {
            width: WIDTH,
            heads: 4,
            layers: 1,
            intermediate: INNER,
            activation: Activation::QuickGelu,
            epsilon: 1e-5,
        };
        let weights = Weights::open(&[file], Device::Cpu, Precision::F32).unwrap();
        let layer = TransformerLayer::new(&weights.root(), &tower).unwrap();
        weights.finish().unwrap();

        let of = |name: &str| &tensors.iter().find(|(key, _)| key == name).unwrap().1;
        let linear = |name: &str, x: &Tensor| {
            x.linear(
                of(&format!("{name}.weight")),
                Some(of(&format!("{name}.bias"))),
            )
        };
        let norm = |name: &str, x: &Tensor| {
            x.layer_norm(
                [WIDTH],
                Some(of(&format!("{name}.weight"))),
                Some(of(&format!("{name}.bias"))),
                1e-5,
                false,
            )
        };
        let x = random(&[3, 20, WIDTH]) * 16.;
        for causal in [false, true] {
            let normal = norm("layer_norm1", &x);
            let heads = |name: &str| {
                linear(name, &normal)
                    .view([3, 20, 4, WIDTH / 4])
                    .transpose(1, 2)
            };
            let [query, key, value] =
                ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"].map(heads);
            let scores = query.matmul(&key.transpose(2, 3)) / ((WIDTH / 4) as f64).sqrt();
            let hidden =
                Tensor::full([20, 20], f64::NEG_INFINITY, (Kind::Float, Device::Cpu)).triu(1);
            let scores = if causal { scores + hidden } else { scores };
            let mixed = scores
                .softmax(-1, Kind::Float)
                .matmul(&value)
                .transpose(1, 2)
                .reshape([3, 20, WIDTH]);
            let attended = &x + linear("self_attn.out_proj", &mixed);
            let inner = linear("mlp.fc1", &norm("layer_norm2", &attended));
            let expected = &attended + linear("mlp.fc2", &(&inner * (&inner * QUICK).sigmoid()));
            let apart = |found: &Tensor, expected: &Tensor| {
                ((found - expected).norm() / expected.norm()).double_value(&[])
            };
            let found = layer.forward(&x, causal).unwrap();
            assert!(
                apart(&found, &expected) < 1e-5,
                "causal {causal}: {}",
                apart(&found, &expected)
            );
            if !causal {
                let one = layer.forward_one(&x, 7).unwrap();
                assert!(
                    apart(&one, &expected.select(1, 7)) < 1e-5,
                    "{}",
                    apart(&one, &expected.select(1, 7))
                );
            }
        }
    }
}
