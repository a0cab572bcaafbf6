//! Whisper's encoder: two convolutions over the spectrogram, sinusoidal positions, pre-norm
//! transformer layers.

use super::config::{STRIDE, WhisperConfig};
use crate::error::Result;
use crate::models::Scope;
use crate::models::attention::Biases;
use crate::models::layers::{Conv1d, ConvConfig, LayerNorm};
use crate::models::transformer::{
    AttentionKeys, LayerKeys, PreNormLayer, TransformerConfig, load_layers,
};
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

/// The names of an encoder layer's weights.
const LAYER: LayerKeys = LayerKeys {
    norm1: "self_attn_layer_norm",
    attention: AttentionKeys::Separate(
        [
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.out_proj",
        ],
        BIASES,
    ),
    norm2: "final_layer_norm",
    mlp: ["fc1", "fc2"],
    gated: false,
    layer_scale: None,
};

/// From spectrograms to what the text decoder attends to.
#[derive(Debug)]
pub(super) struct Encoder {
    convolutions: [Conv1d; 2],
    positions: Tensor,
    layers: Vec<PreNormLayer>,
    norm: LayerNorm,
    kind: Kind,
}

impl Encoder {
    pub(super) fn load(scope: &Scope<'_>, config: &WhisperConfig) -> Result<Self> {
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
        let layers = TransformerConfig {
            width,
            heads: config.encoder_attention_heads,
            layers: config.encoder_layers,
            intermediate: config.encoder_ffn_dim,
            activation: config.activation,
            epsilon: EPSILON,
        };
        Ok(Self {
            convolutions: [
                convolution("conv1", config.num_mel_bins, 1)?,
                convolution("conv2", width, STRIDE as i64)?,
            ],
            positions: (scope / "embed_positions")
                .take("weight", &[config.max_source_positions, width])?,
            layers: load_layers(&(scope / "layers"), &layers, &LAYER)?,
            norm: LayerNorm::load(&(scope / "layer_norm"), width, EPSILON)?,
            kind: scope.weights().precision().kind(),
        })
    }

    /// Spectrograms `[b, bands, frames]` to `[b, positions, width]`.
    ///
    /// # Errors
    /// Model, where shapes do not fit; overload, where memory is short.
    pub(super) fn forward(&self, spectrograms: &Tensor) -> Result<Tensor> {
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
            x = layer.forward(&x, false)?;
            if self.kind == Kind::Half {
                // The trained networks reach f16's limit.
                let _ = x.f_clamp_(-64_504., 64_504.)?;
            }
        }
        self.norm.forward(&x)
    }
}
