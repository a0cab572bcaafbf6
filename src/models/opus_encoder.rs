//! The video encoder of the system that opusflow descends from: a vector for a clip. Four
//! convolutions a frame, attention over the frames, a transformer encoder (post-norm, GELU), the
//! mean over frames, a projection. The reference is the same module in PyTorch
//! (`tests/golden/opus_encoder.py`); Vaswani et al., "Attention Is All You Need" (arXiv:1706.03762)
//! for the transformer.
//!
//! It is fast on a CPU because batch norm is folded into the convolutions, memory is channels-last,
//! and the first convolutions see a few frames at a time, so that what lies between them stays in
//! the cache; the later ones see more, attention all of them at once.

use tch::{Device, Kind, Tensor};

use super::attention::{Attention, AttentionConfig};
use super::config::Config;
use super::folder::ModelFolder;
use super::layers::{Activation, Conv2d, ConvConfig, LayerNorm, Linear, Mlp};
use super::network_spec::{Load, NetworkSpec, NetworkTask};
use super::weights::{Scope, Weights};
use crate::error::{Error, Result};
use crate::tensor::{Precision, channels_last};

/// Its entry in the table of networks.
pub const NETWORK: NetworkSpec = NetworkSpec {
    classes: &[("OpusEncoder", NetworkTask::EncodeClips)],
    load: Load::Checked(|folder, device, precision| {
        OpusEncoder::load(folder, device, precision).map(drop)
    }),
};

/// Frames that go through the first half of the convolutions at once on a CPU: as few as keep what
/// lies between them in the cache.
const CPU_PASS: i64 = 4;
/// Frames that go through the second half: what lies between is small there, the weights are not,
/// and are fetched once a pass.
const CPU_GROUP: i64 = 48;
/// On a GPU, where memory is the only limit.
const GPU_PASS: i64 = 256;

/// The network's sizes; the default is the seed system's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpusEncoderConfig {
    /// Channels after each convolution; the last is the width of the attention.
    pub channels: Vec<i64>,
    /// Side of each convolution's kernel, odd.
    pub kernels: Vec<i64>,
    /// Heads of every attention.
    pub heads: i64,
    /// Layers of the transformer encoder.
    pub layers: i64,
    /// Width of their feed-forward part.
    pub intermediate: i64,
    /// Length of the clip's vector.
    pub output: i64,
}

impl Default for OpusEncoderConfig {
    fn default() -> Self {
        let (channels, kernels) = (vec![64, 128, 256, 512], vec![7, 3, 3, 3]);
        Self {
            channels,
            kernels,
            heads: 8,
            layers: 6,
            intermediate: 2048,
            output: 512,
        }
    }
}

impl OpusEncoderConfig {
    /// From config.json: `channels`, `kernels`, `num_attention_heads`, `num_hidden_layers`,
    /// `intermediate_size`, `projection_size`; what is missing is the default's.
    ///
    /// # Errors
    /// Model, where a field is not what it must be.
    pub fn read(config: &Config) -> Result<Self> {
        let default = Self::default();
        let channels = config.integers_or("channels", &default.channels)?;
        let kernels = config.integers_or("kernels", &default.kernels)?;
        let width = channels.last().copied().unwrap_or(0);
        let read = Self {
            heads: config.integer_or("num_attention_heads", default.heads)?,
            layers: config.integer_or("num_hidden_layers", default.layers)?,
            intermediate: config.integer_or("intermediate_size", default.intermediate)?,
            output: config.integer_or("projection_size", width)?,
            channels,
            kernels,
        };
        if read.channels.len() != read.kernels.len()
            || read.channels.is_empty()
            || read.kernels.iter().any(|kernel| kernel % 2 == 0)
        {
            return Err(
                config.error("`channels` and `kernels` must be equally long lists, kernels odd")
            );
        }
        if read.heads == 0
            || width == 0
            || width % read.heads != 0
            || config.integer_or("hidden_size", width)? != width
        {
            return Err(config.error(
                "`hidden_size` must be the last of `channels` and a multiple of \
                 `num_attention_heads`",
            ));
        }
        Ok(read)
    }
}

/// The network with its weights.
#[derive(Debug)]
pub struct OpusEncoder {
    /// The first convolution over bytes; a byte is exact in every precision, its 255th is not.
    bytes: Conv2d,
    /// The same over pairs of pixels, for pictures of even width.
    pairs: Option<PixelPairs>,
    convolutions: Vec<Conv2d>,
    attention: Attention,
    layers: Vec<Layer>,
    output_proj: Linear,
    device: Device,
    precision: Precision,
}

impl OpusEncoder {
    /// The network of a folder whose architecture is `OpusEncoder`.
    ///
    /// # Errors
    /// Config, where the folder is another network's; model, where its config or weights do not
    /// fit.
    pub fn load(folder: &ModelFolder, device: Device, precision: Precision) -> Result<Self> {
        NETWORK.expect(folder)?;
        Self::build(
            folder.weights(device, precision)?,
            &OpusEncoderConfig::read(folder.config())?,
        )
    }

    /// The network of these weights.
    ///
    /// # Errors
    /// Model, where they do not fit.
    pub fn build(weights: Weights, config: &OpusEncoderConfig) -> Result<Self> {
        let _guard = crate::tensor::guard();
        let (device, precision) = (weights.device(), weights.precision());
        let root = weights.root();
        let (conv, norm) = (&root / "conv_layers" / 0, &root / "bn_layers" / 0);
        let geometry = ConvConfig {
            input: 3,
            output: config.channels[0],
            kernel: config.kernels[0],
            stride: 2,
        };
        let bytes = Conv2d::load_folded_scaled(&conv, true, &norm, geometry, 255.)?;
        let pairs = (device == Device::Cpu && precision == Precision::BF16)
            .then(|| PixelPairs::build(&bytes, geometry))
            .transpose()?;
        let (mut convolutions, mut input) = (Vec::new(), 3);
        for (index, (&output, &kernel)) in config.channels.iter().zip(&config.kernels).enumerate() {
            let (conv, norm) = (&root / "conv_layers" / index, &root / "bn_layers" / index);
            convolutions.push(Conv2d::load_folded(
                &conv,
                true,
                &norm,
                ConvConfig {
                    input,
                    output,
                    kernel,
                    stride: 2,
                },
            )?);
            input = output;
        }
        let layer =
            |index: i64| Layer::load(&(&root / "transformer" / "layers" / index), input, config);
        let network = Self {
            bytes,
            pairs,
            convolutions,
            attention: attention(&(&root / "attention"), input, config.heads)?,
            layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
            output_proj: Linear::load(&(&root / "output_proj"), input, config.output)?,
            device,
            precision,
        };
        weights.finish()?;
        Ok(network)
    }

    /// Where it runs.
    pub fn device(&self) -> Device {
        self.device
    }

    /// What it computes in.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Clips on its device to vectors `[b, output]`, f32. A clip is bytes `[b, t, h, w, 3]`, scaled
    /// to 0..1 here and nothing else, or floating point `[b, t, 3, h, w]`, taken as it is.
    ///
    /// # Errors
    /// Model, where the input has another shape or frames are too small for four halvings twice;
    /// overload, where memory is short.
    pub fn forward(&self, clips: &Tensor) -> Result<Tensor> {
        let _guard = crate::tensor::guard();
        let size = clips.size();
        let bytes = clips.kind() == Kind::Uint8;
        if size.len() != 5 || size[if bytes { 4 } else { 2 }] != 3 || size[0] == 0 || size[1] == 0 {
            return Err(Error::model(format!(
                "clips must be bytes [b, t, h, w, 3] or numbers [b, t, 3, h, w], got {:?} {size:?}",
                clips.kind()
            )));
        }
        let frames = clips.f_reshape([&[-1], &size[2..]].concat())?;
        let (pass, group) = if self.device == Device::Cpu {
            (CPU_PASS, CPU_GROUP)
        } else {
            (GPU_PASS, GPU_PASS)
        };
        let (near, far) = self
            .convolutions
            .split_at(self.convolutions.len().div_ceil(2));
        let mut vectors = Vec::new();
        for group in frames.f_split(group, 0)? {
            let parts = group
                .f_split(pass, 0)?
                .into_iter()
                .map(|part| self.first_of(near, &part))
                .collect::<Result<Vec<_>>>()?;
            let mut x = if let [one] = parts.as_slice() {
                one.shallow_clone()
            } else {
                Tensor::f_cat(&parts, 0)?
            };
            for convolution in far {
                x = pooled(convolution.forward(&x)?)?;
            }
            vectors.push(x.f_mean_dim([2, 3].as_slice(), false, None)?);
        }
        let mut x = self.attention.forward(
            &Tensor::f_cat(&vectors, 0)?.f_view([size[0], size[1], -1])?,
            None,
            false,
        )?;
        for layer in &self.layers {
            x = layer.forward(&x)?;
        }
        let mean = x.f_mean_dim([1].as_slice(), false, None)?;
        Ok(self.output_proj.forward(&mean)?.f_to_kind(Kind::Float)?)
    }

    /// Frames through the first convolutions.
    fn first_of(&self, convolutions: &[Conv2d], frames: &Tensor) -> Result<Tensor> {
        let mut convolutions = convolutions.iter();
        let kind = self.precision.kind();
        let mut x = match &self.pairs {
            _ if frames.kind() != Kind::Uint8 => channels_last(&frames.f_to_kind(kind)?)?,
            Some(pairs) if frames.size()[2] % 2 == 0 => pooled(pairs.forward(frames, kind)?)?,
            _ => pooled(
                self.bytes
                    .forward(&frames.f_to_kind(kind)?.f_permute([0, 3, 1, 2])?)?,
            )?,
        };
        if frames.kind() == Kind::Uint8 {
            convolutions.next();
        }
        for convolution in convolutions {
            x = pooled(convolution.forward(&x)?)?;
        }
        Ok(x)
    }
}

/// The maximum of each 2 x 2, and ReLU: it grows with its input, so it may follow the maximum that
/// it stood before, a quarter of the work and the same values.
fn pooled(x: Tensor) -> Result<Tensor> {
    if x.device() != Device::Cpu {
        return Ok(x
            .f_max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false)?
            .f_relu_()?);
    }
    // On a CPU libtorch's pooling also writes down where each maximum lay; comparing neighbours
    // takes half its time.
    let mut x = x;
    for side in [2, 3] {
        let end = x.size()[side as usize] / 2 * 2;
        if end == 0 {
            return Err(Error::model(
                "frames are too small to be halved twice by every convolution",
            ));
        }
        x = x
            .f_slice(side, 0, end, 2)?
            .f_maximum(&x.f_slice(side, 1, end, 2)?)?;
    }
    Ok(x.f_relu_()?)
}

/// A convolution of stride 2 over three channels, as one over pairs of neighbouring pixels, which
/// are six: a CPU multiplies bf16 two and two, and three channels waste a quarter of that.
#[derive(Debug)]
struct PixelPairs {
    convolution: Conv2d,
    /// Pairs of zeros before and after each row.
    margin: [i64; 2],
}

impl PixelPairs {
    fn build(convolution: &Conv2d, geometry: ConvConfig) -> Result<Self> {
        let ConvConfig {
            input,
            output,
            kernel,
            ..
        } = geometry;
        let half = kernel / 2;
        // A kernel that reaches an odd number of pixels to the left begins in the middle of a pair.
        let weight = convolution
            .weight()?
            .f_constant_pad_nd([half % 2, 1 - half % 2])?;
        let weight = weight
            .f_reshape([output, input, kernel, half + 1, 2])?
            .f_permute([0, 4, 1, 2, 3])?;
        let weight = weight.f_reshape([output, 2 * input, kernel, half + 1])?;
        let convolution = Conv2d::build(&weight, convolution.bias(), [2, 1], [half, 0])?;
        Ok(Self {
            convolution,
            margin: [(half + 1) / 2, half / 2],
        })
    }

    /// Bytes `[n, h, w, 3]`, `w` even, to `[n, output, h / 2, w / 2]`.
    fn forward(&self, frames: &Tensor, kind: Kind) -> Result<Tensor> {
        let (n, h, w, channels) = frames.size4()?;
        let pairs = frames
            .f_reshape([n, h, w / 2, 2 * channels])?
            .f_constant_pad_nd([0, 0, self.margin[0], self.margin[1]])?;
        self.convolution
            .forward(&pairs.f_to_kind(kind)?.f_permute([0, 3, 1, 2])?)
    }
}

/// PyTorch's `nn.MultiheadAttention(batch_first=True)` of a sequence with itself.
fn attention(scope: &Scope<'_>, width: i64, heads: i64) -> Result<Attention> {
    let weight = scope.take("in_proj_weight", &[3 * width, width])?;
    let fused = Linear::new(weight, Some(scope.take("in_proj_bias", &[3 * width])?));
    let out = Linear::load(&(scope / "out_proj"), width, width)?;
    Ok(Attention::fused(
        fused,
        out,
        AttentionConfig::self_attention(width, heads),
        scope.weights().attention(),
    ))
}

/// PyTorch's `nn.TransformerEncoderLayer(activation="gelu", batch_first=True)`: post-norm.
#[derive(Debug)]
struct Layer {
    self_attn: Attention,
    mlp: Mlp,
    norm1: LayerNorm,
    norm2: LayerNorm,
}

impl Layer {
    fn load(scope: &Scope<'_>, width: i64, config: &OpusEncoderConfig) -> Result<Self> {
        Ok(Self {
            self_attn: attention(&(scope / "self_attn"), width, config.heads)?,
            mlp: Mlp::new(
                Linear::load(&(scope / "linear1"), width, config.intermediate)?,
                Activation::Gelu,
                Linear::load(&(scope / "linear2"), config.intermediate, width)?,
            ),
            norm1: LayerNorm::load(&(scope / "norm1"), width, 1e-5)?,
            norm2: LayerNorm::load(&(scope / "norm2"), width, 1e-5)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self
            .norm1
            .forward(&x.f_add(&self.self_attn.forward(x, None, false)?)?)?;
        self.norm2.forward(&x.f_add(&self.mlp.forward(&x)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pairs_of_pixels_give_what_pixels_give() {
        for kernel in [3, 5, 7, 9] {
            let geometry = ConvConfig {
                input: 3,
                output: 4,
                kernel,
                stride: 2,
            };
            let weight = Tensor::randn([4, 3, kernel, kernel], (Kind::Float, Device::Cpu));
            let plain = Conv2d::build(
                &weight,
                &Tensor::randn([4], (Kind::Float, Device::Cpu)),
                [2, 2],
                [kernel / 2; 2],
            )
            .unwrap();
            let frames = Tensor::randint(256, [2, 11, 14, 3], (Kind::Uint8, Device::Cpu));
            let expected = plain
                .forward(&frames.to_kind(Kind::Float).permute([0, 3, 1, 2]))
                .unwrap();
            let found = PixelPairs::build(&plain, geometry)
                .unwrap()
                .forward(&frames, Kind::Float)
                .unwrap();
            assert_eq!(found.size(), expected.size());
            assert!(
                (&found - &expected).abs().max().double_value(&[]) < 1e-2,
                "kernel of {kernel}"
            );
        }
    }

    #[test]
    fn config_defaults_to_the_seeds_sizes() {
        assert_eq!(
            OpusEncoderConfig::read(&Config::of(json!({}))).unwrap(),
            OpusEncoderConfig::default()
        );
    }

    #[test]
    fn sizes_that_do_not_fit_each_other_are_refused() {
        for config in [
            json!({"channels": [64, 128]}),
            json!({"kernels": [7, 3, 3, 2]}),
            json!({"num_attention_heads": 7}),
            json!({"num_attention_heads": 0}),
            json!({"hidden_size": 256}),
            json!({"channels": [], "kernels": []}),
        ] {
            assert!(
                OpusEncoderConfig::read(&Config::of(config.clone())).is_err(),
                "{config}"
            );
        }
    }
}
