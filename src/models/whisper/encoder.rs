//! Whisper's encoder: two convolutions over the spectrogram, sinusoidal positions, pre-norm
//! transformer layers.

use super::config::{STRIDE, WhisperConfig};
use crate::error::Result;
use crate::models::Scope;
use crate::models::attention::{Attention, AttentionConfig, Biases};
use crate::models::layers::{Activation, Conv1d, ConvConfig, LayerNorm, Linear};
use crate::tensor::{Device, Kind, Tensor};

/// Added to a variance.
pub(super) const EPSILON: f64 = 1e-5;
/// Whisper's keys have no bias.
pub(super) const BIASES: Biases = Biases {
    query: true,
    key: false,
    value: true,
    out: true,
};
/// The names of an attention's projections.
pub(super) const PROJECTIONS: [&str; 4] = ["q_proj", "k_proj", "v_proj", "out_proj"];

/// From a spectrogram to what the decoder listens to.
#[derive(Debug)]
pub struct Encoder {
    convolutions: [Conv1d; 2],
    positions: Tensor,
    layers: Vec<Layer>,
    norm: LayerNorm,
    kind: Kind,
}

#[derive(Debug)]
struct Layer {
    attention_norm: LayerNorm,
    attention: Attention,
    mlp_norm: LayerNorm,
    mlp: FeedForward,
}

/// Two linear layers around an activation.
#[derive(Debug)]
pub(super) struct FeedForward {
    inner: Linear,
    outer: Linear,
    activation: Activation,
}

impl FeedForward {
    pub(super) fn new(
        scope: &Scope<'_>,
        width: i64,
        inner: i64,
        activation: Activation,
    ) -> Result<Self> {
        let layer =
            |name: &str, input, output| Linear::load(&(scope / name), input, output)?.packed();
        Ok(Self {
            inner: layer("fc1", width, inner)?,
            outer: layer("fc2", inner, width)?,
            activation,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.outer
            .forward(&self.inner.forward_activated(x, self.activation)?)
    }
}

impl Encoder {
    pub(super) fn new(scope: &Scope<'_>, config: &WhisperConfig) -> Result<Self> {
        let width = config.d_model;
        let convolution = |name: &str, input, stride| {
            Conv1d::load(
                &(scope / name),
                ConvConfig {
                    input,
                    output: width,
                    kernel: 3,
                    stride,
                },
            )
        };
        let heads = AttentionConfig::self_attention(width, config.encoder_attention_heads);
        let layer = |n: i64| -> Result<Layer> {
            let scope = scope / "layers" / n;
            Ok(Layer {
                attention_norm: LayerNorm::load(
                    &(&scope / "self_attn_layer_norm"),
                    width,
                    EPSILON,
                )?,
                attention: Attention::load_self(
                    &(&scope / "self_attn"),
                    PROJECTIONS,
                    heads,
                    BIASES,
                )?
                .packed()?,
                mlp_norm: LayerNorm::load(&(&scope / "final_layer_norm"), width, EPSILON)?,
                mlp: FeedForward::new(&scope, width, config.encoder_ffn_dim, config.activation)?,
            })
        };
        Ok(Self {
            convolutions: [
                convolution("conv1", config.num_mel_bins, 1)?,
                convolution("conv2", width, STRIDE as i64)?,
            ],
            positions: (scope / "embed_positions")
                .take("weight", &[config.max_source_positions, width])?,
            layers: (0..config.encoder_layers)
                .map(layer)
                .collect::<Result<_>>()?,
            norm: LayerNorm::load(&(scope / "layer_norm"), width, EPSILON)?,
            kind: scope.weights().precision().kind(),
        })
    }

    /// Spectrograms `[b, bands, frames]` to `[b, positions, width]`.
    ///
    /// # Errors
    /// Model, where shapes do not fit; overload, where memory is short.
    pub fn forward(&self, spectrograms: &Tensor) -> Result<Tensor> {
        // On a CPU the activations of one window are what its caches hold.
        if matches!(spectrograms.device(), Device::Cpu) && spectrograms.size()[0] > 1 {
            let rows = (0..spectrograms.size()[0])
                .map(|row| self.pass(&spectrograms.f_narrow(0, row, 1)?))
                .collect::<Result<Vec<_>>>()?;
            return Ok(Tensor::f_cat(&rows, 0)?);
        }
        self.pass(spectrograms)
    }

    fn pass(&self, spectrograms: &Tensor) -> Result<Tensor> {
        let mut x = spectrograms.f_to_kind(self.kind)?;
        for convolution in &self.convolutions {
            x = convolution.forward(&x)?.f_gelu("none")?;
        }
        let mut x = x
            .f_transpose(1, 2)?
            .f_contiguous()?
            .f_add_(&self.positions)?;
        for layer in &self.layers {
            let _ = x.f_add_(&layer.attention.forward(
                &layer.attention_norm.forward(&x)?,
                None,
                false,
            )?)?;
            let _ = x.f_add_(&layer.mlp.forward(&layer.mlp_norm.forward(&x)?)?)?;
            if self.kind == Kind::Half {
                // The trained networks reach f16's limit.
                let _ = x.f_clamp_(-64_504., 64_504.)?;
            }
        }
        self.norm.forward(&x)
    }
}
