//! The pre-norm transformer layer, as CLIP, SigLIP, DINOv2, BLIP's image tower, Whisper's encoder
//! and GPT-2 share it: attention, then the feed-forward part, each over what a layer norm makes of
//! the sequence, each added to it. Dosovitskiy et al., "An Image is Worth 16x16 Words"
//! (arXiv:2010.11929). What is constant around a product is folded into its weights.

use tch::Tensor;

use super::attention::{Attention, AttentionConfig, Biases};
use super::config::Config;
use super::decoder::LayerCache;
use super::layers::{Activation, LayerNorm, Linear, Mlp};
use super::offload::tensors;
use super::weights::Scope;
use crate::error::Result;

tensors!(PreNormLayer {
    norm1,
    attention,
    norm2,
    mlp
});

/// The sizes of a stack of layers.
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

/// The keys of a layer's weights in a checkpoint, and what of it is not the same in all networks.
#[derive(Debug, Clone, Copy)]
pub struct LayerKeys {
    /// The layer norm before the attention.
    pub norm1: &'static str,
    /// The projections of the attention.
    pub attention: AttentionKeys,
    /// The layer norm before the feed-forward part.
    pub norm2: &'static str,
    /// The two layers of the feed-forward part.
    pub mlp: [&'static str; 2],
    /// Whether the first half of the feed-forward part gates the second.
    pub gated: bool,
    /// What the outputs of attention and of the feed-forward part are multiplied by, `[width]`
    /// each, where they are: "LayerScale" (Touvron et al., arXiv:2103.17239).
    pub layer_scale: Option<[&'static str; 2]>,
}

/// The keys of an attention's projections.
#[derive(Debug, Clone, Copy)]
pub enum AttentionKeys {
    /// Query, key, value and output, each for itself.
    Separate([&'static str; 4], Biases),
    /// Query, key and value in one, and output; both with biases.
    Fused([&'static str; 2]),
}

impl LayerKeys {
    /// CLIP's and SigLIP's, in both towers.
    pub const CLIP: Self = Self {
        norm1: "layer_norm1",
        attention: AttentionKeys::Separate(
            [
                "self_attn.q_proj",
                "self_attn.k_proj",
                "self_attn.v_proj",
                "self_attn.out_proj",
            ],
            Biases::ALL,
        ),
        norm2: "layer_norm2",
        mlp: ["mlp.fc1", "mlp.fc2"],
        gated: false,
        layer_scale: None,
    };
}

/// One layer.
#[derive(Debug)]
pub struct PreNormLayer {
    norm1: LayerNorm,
    attention: Attention,
    norm2: LayerNorm,
    mlp: Mlp,
}

impl PreNormLayer {
    /// The layer under `scope`, with its weights laid out for oneDNN.
    ///
    /// # Errors
    /// Model, where the weights do not fit; overload, where memory is short.
    pub fn load(scope: &Scope<'_>, config: &TransformerConfig, keys: &LayerKeys) -> Result<Self> {
        let (width, epsilon) = (config.width, config.epsilon);
        let scale = |key: &str| scope.take_f32(key, &[width]);
        let [attended, fed] = match keys.layer_scale {
            Some([attention, mlp]) => [Some(scale(attention)?), Some(scale(mlp)?)],
            None => [None, None],
        };
        Ok(Self::new(
            LayerNorm::load(&(scope / keys.norm1), width, epsilon)?,
            load_attention(scope, config, keys.attention, attended.as_ref())?.packed()?,
            LayerNorm::load(&(scope / keys.norm2), width, epsilon)?,
            load_mlp(scope, config, keys, fed.as_ref())?,
        ))
    }

    /// Of these parts, in their order.
    pub fn new(norm1: LayerNorm, attention: Attention, norm2: LayerNorm, mlp: Mlp) -> Self {
        Self {
            norm1,
            attention,
            norm2,
            mlp,
        }
    }

    /// `[b, t, width]` to the same; `causal` hides from each place what comes after it. What goes
    /// in is left as it is.
    ///
    /// # Errors
    /// Model, where the shape does not fit; overload, where memory is short.
    pub fn forward(&self, x: &Tensor, causal: bool) -> Result<Tensor> {
        let normed = self.norm1.forward(x)?;
        let attended = self.attention.forward(&normed, None, causal)?.f_add_(x)?;
        self.feed(&attended)
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
        Ok(self.feed(&x)?.f_select(1, 0)?)
    }

    /// As [`forward`](Self::forward), where `x` goes on after what `cache` holds: its keys and
    /// values are kept there, and `mask`, broadcast to `[b, heads, t, cached + t]`, is added to the
    /// scores.
    ///
    /// # Errors
    /// As there.
    pub fn forward_cached(
        &self,
        x: &Tensor,
        cache: &mut LayerCache,
        mask: Option<&Tensor>,
    ) -> Result<Tensor> {
        let (query, new) = self.attention.queries(&self.norm1.forward(x)?)?;
        cache.fill(&new)?;
        let mut mixed = self.attention.mix(&query, &cache.seen, mask, false)?;
        self.feed(&mixed.f_add_(x)?)
    }

    /// The feed-forward part, added to what it is made of.
    fn feed(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.mlp.forward(&self.norm2.forward(x)?)?.f_add_(x)?)
    }
}

fn load_attention(
    scope: &Scope<'_>,
    config: &TransformerConfig,
    keys: AttentionKeys,
    scale: Option<&Tensor>,
) -> Result<Attention> {
    let (width, sizes) = (
        config.width,
        AttentionConfig::self_attention(config.width, config.heads),
    );
    match (keys, scale) {
        (AttentionKeys::Separate(keys, biases), None) => {
            Attention::load_self(scope, keys, sizes, biases)
        }
        (AttentionKeys::Separate(keys, biases), Some(scale)) => {
            Attention::load_self_scaled(scope, keys, sizes, biases, scale)
        }
        (AttentionKeys::Fused([qkv, out]), scale) => {
            let fused = Linear::load(&(scope / qkv), width, 3 * width)?;
            let out = load_output(&(scope / out), width, width, scale)?;
            let kind = scope.weights().attention();
            Ok(Attention::fused(fused, out, sizes, kind))
        }
    }
}

fn load_mlp(
    scope: &Scope<'_>,
    config: &TransformerConfig,
    keys: &LayerKeys,
    scale: Option<&Tensor>,
) -> Result<Mlp> {
    let (width, inner) = (config.width, config.intermediate);
    let [fc1, fc2] = keys.mlp.map(|key| scope / key);
    if keys.gated {
        let gate_up = Linear::load(&fc1, width, 2 * inner)?;
        return Mlp::gated(gate_up, load_output(&fc2, inner, width, scale)?).packed();
    }
    match scale {
        None => Mlp::load([&fc1, &fc2], width, inner, config.activation),
        Some(_) => {
            let fc1 = Linear::load(&fc1, width, inner)?;
            let fc2 = load_output(&fc2, inner, width, scale)?;
            Mlp::new(fc1, config.activation, fc2).packed()
        }
    }
}

/// The layer whose output is added to the sequence, multiplied by `scale` where there is one.
fn load_output(
    scope: &Scope<'_>,
    input: i64,
    output: i64,
    scale: Option<&Tensor>,
) -> Result<Linear> {
    match scale {
        Some(scale) => Linear::load_scaled(scope, input, output, scale, scale),
        None => Linear::load(scope, input, output),
    }
}

/// The layers under `scope`'s `0`, `1` and so on.
///
/// # Errors
/// Model, where the weights do not fit; overload, where memory is short.
pub fn load_layers(
    scope: &Scope<'_>,
    config: &TransformerConfig,
    keys: &LayerKeys,
) -> Result<Vec<PreNormLayer>> {
    (0..config.layers)
        .map(|index| PreNormLayer::load(&(scope / index), config, keys))
        .collect()
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

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
        let layer = PreNormLayer::load(&weights.root(), &tower, &LayerKeys::CLIP).unwrap();
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
            let expected = &attended + linear("mlp.fc2", &(&inner * (&inner * 1.702).sigmoid()));
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
