//! The autoencoder of Stable Diffusion: pictures to the mean and variance of latents an eighth as
//! wide and high, and latents to pictures. Rombach et al., "High-Resolution Image Synthesis with
//! Latent Diffusion Models" (arXiv:2112.10752); the reference is diffusers' `autoencoder_kl.py` and
//! `vae.py`, whose checkpoint keys and config.json it reads.

use tch::{Device, Kind, Tensor};

use super::blocks::{
    Border, Downsample2D, PixelAttention, ResnetBlock2D, ResnetShape, Upsample2D, conv3x3,
    norm_silu,
};
use super::tiles::Fading;
use super::vae_options::VaeOptions;
use crate::error::{Error, Result};
use crate::models::config::Config;
use crate::models::layers::{Conv2d, ConvConfig, GroupNorm};
use crate::models::offload::tensors;
use crate::models::weights::{Scope, Weights};
use crate::tensor::{Precision, channels_last};

tensors!(AutoencoderKl {
    encoder,
    decoder,
    quant_conv,
    post_quant_conv
});
tensors!(Encoder {
    conv_in,
    levels,
    middle,
    output
});
tensors!(Decoder {
    conv_in,
    middle,
    levels,
    output
});
tensors!(Level<Downsample2D> { resnets, sampler });
tensors!(Level<Upsample2D> { resnets, sampler });
tensors!(Middle { resnets, attention });
tensors!(Output { norm, conv });

/// Added to variances.
const EPSILON: f64 = 1e-6;

/// Sizes of the network, as config.json has them; the default is Stable Diffusion 1.5's.
#[derive(Debug, Clone, PartialEq)]
pub struct AutoencoderKlConfig {
    /// Channels of the pictures that go in.
    pub in_channels: i64,
    /// Channels of the pictures that come out.
    pub out_channels: i64,
    /// Channels after each halving, the first before any.
    pub block_out_channels: Vec<i64>,
    /// Residual blocks before each halving; one more before each doubling.
    pub layers_per_block: i64,
    /// Channels of the latents.
    pub latent_channels: i64,
    /// Groups of every norm.
    pub norm_num_groups: i64,
    /// Side of the pictures that it was trained on, and of a tile.
    pub sample_size: i64,
    /// Latents times this have a deviation near 1.
    pub scaling_factor: f64,
    /// Taken from latents before they are scaled.
    pub shift_factor: f64,
    /// It overflows in f16, and must run in f32 there.
    pub force_upcast: bool,
    /// A 1x1 convolution follows the encoder.
    pub use_quant_conv: bool,
    /// A 1x1 convolution precedes the decoder.
    pub use_post_quant_conv: bool,
    /// There is attention in the middle of encoder and decoder.
    pub mid_block_add_attention: bool,
}

impl Default for AutoencoderKlConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            block_out_channels: vec![128, 256, 512, 512],
            layers_per_block: 2,
            latent_channels: 4,
            norm_num_groups: 32,
            sample_size: 512,
            scaling_factor: 0.18215,
            shift_factor: 0.,
            force_upcast: true,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
        }
    }
}

impl AutoencoderKlConfig {
    /// From config.json; what is missing is what diffusers' class takes for it.
    ///
    /// # Errors
    /// Model, where a field is not what it must be, or asks for what is not read here.
    pub fn read(config: &Config) -> Result<Self> {
        let read = Self {
            in_channels: config.integer_or("in_channels", 3)?,
            out_channels: config.integer_or("out_channels", 3)?,
            block_out_channels: config.integers_or("block_out_channels", &[64])?,
            layers_per_block: config.integer_or("layers_per_block", 1)?,
            latent_channels: config.integer_or("latent_channels", 4)?,
            norm_num_groups: config.integer_or("norm_num_groups", 32)?,
            sample_size: config.integer_or("sample_size", 32)?,
            scaling_factor: config.number_or("scaling_factor", 0.18215)?,
            shift_factor: config.number_or("shift_factor", 0.)?,
            force_upcast: config.boolean_or("force_upcast", true)?,
            use_quant_conv: config.boolean_or("use_quant_conv", true)?,
            use_post_quant_conv: config.boolean_or("use_post_quant_conv", true)?,
            mid_block_add_attention: config.boolean_or("mid_block_add_attention", true)?,
        };
        for (field, block) in [
            ("down_block_types", "DownEncoderBlock2D"),
            ("up_block_types", "UpDecoderBlock2D"),
        ] {
            let blocks = match config.field(field) {
                Some(names) => names
                    .as_array()
                    .filter(|names| names.iter().all(|name| name == block))
                    .map(Vec::len),
                None => Some(1),
            };
            if blocks != Some(read.block_out_channels.len()) {
                return Err(config.error(format_args!(
                    "`{field}` must be a list of {block}, as long as `block_out_channels`"
                )));
            }
        }
        if config.string_or("act_fn", "silu")? != "silu" {
            return Err(config.error("`act_fn` must be silu"));
        }
        if let Some(field) = ["latents_mean", "latents_std"]
            .into_iter()
            .find(|field| config.field(field).is_some())
        {
            return Err(config.error(format_args!("`{field}` is not supported")));
        }
        read.check().map_err(|what| config.error(what))?;
        Ok(read)
    }

    fn check(&self) -> Result<(), &'static str> {
        let sizes = [
            self.in_channels,
            self.out_channels,
            self.latent_channels,
            self.layers_per_block,
            self.norm_num_groups,
        ];
        match () {
            () if sizes.contains(&0) || self.block_out_channels.is_empty() => {
                Err("every size must be above 0")
            }
            () if self
                .block_out_channels
                .iter()
                .any(|channels| *channels == 0 || channels % self.norm_num_groups != 0) =>
            {
                Err("`block_out_channels` must be multiples of `norm_num_groups`")
            }
            () if self.sample_size < 4 * self.factor() => {
                Err("`sample_size` must be at least four latents wide")
            }
            () if self.scaling_factor <= 0. => Err("`scaling_factor` must be above 0"),
            () => Ok(()),
        }
    }

    /// Pixels of a picture's side to one of its latents'.
    pub fn factor(&self) -> i64 {
        1 << (self.block_out_channels.len() - 1)
    }
}

/// The latents of pictures, as normal distributions.
#[derive(Debug)]
pub struct Moments {
    /// `[n, latent channels, h, w]`, f32.
    pub mean: Tensor,
    /// Logarithm of the variance, of the same shape, in -30..20.
    pub logvar: Tensor,
}

impl Moments {
    /// The likeliest latents.
    pub fn mode(&self) -> Tensor {
        self.mean.shallow_clone()
    }

    /// Latents drawn by `noise`, standard normal numbers of their shape.
    ///
    /// # Errors
    /// Model, where the shapes differ.
    pub fn sample(&self, noise: &Tensor) -> Result<Tensor> {
        Ok(self
            .logvar
            .f_mul_scalar(0.5)?
            .f_exp_()?
            .f_mul_(noise)?
            .f_add_(&self.mean)?)
    }
}

/// The network with its weights.
#[derive(Debug)]
pub struct AutoencoderKl {
    encoder: Encoder,
    decoder: Decoder,
    quant_conv: Option<Conv2d>,
    post_quant_conv: Option<Conv2d>,
    config: AutoencoderKlConfig,
    memory: VaeOptions,
    device: Device,
    precision: Precision,
}

impl AutoencoderKl {
    /// The network of these weights; `memory` says whether many or large pictures go through it in
    /// parts.
    ///
    /// # Errors
    /// Model, where the weights do not fit.
    pub fn new(weights: Weights, config: &AutoencoderKlConfig, memory: VaeOptions) -> Result<Self> {
        let _frozen = crate::tensor::guard();
        let root = weights.root();
        let quantised = |name: &str, channels: i64, used: bool| match used {
            true => Conv2d::load(
                &(&root / name),
                ConvConfig {
                    input: channels,
                    output: channels,
                    kernel: 1,
                    stride: 1,
                },
            )
            .map(Some),
            false => Ok(None),
        };
        let this = Self {
            encoder: Encoder::new(&(&root / "encoder"), config)?,
            decoder: Decoder::new(&(&root / "decoder"), config)?,
            quant_conv: quantised(
                "quant_conv",
                2 * config.latent_channels,
                config.use_quant_conv,
            )?,
            post_quant_conv: quantised(
                "post_quant_conv",
                config.latent_channels,
                config.use_post_quant_conv,
            )?,
            config: config.clone(),
            memory,
            device: weights.device(),
            precision: weights.precision(),
        };
        weights.finish()?;
        Ok(this)
    }

    /// Its sizes.
    pub fn config(&self) -> &AutoencoderKlConfig {
        &self.config
    }

    /// Where it runs.
    pub fn device(&self) -> Device {
        self.device
    }

    /// What it computes in.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The latents of pictures `[n, in channels, h, w]` in -1..1, not scaled; their sides are best
    /// multiples of the [`factor`](AutoencoderKlConfig::factor), what is over is left out.
    ///
    /// # Errors
    /// Model, where the shape does not fit; overload, where memory is short.
    pub fn encode(&self, pictures: &Tensor) -> Result<Moments> {
        let _frozen = crate::tensor::guard();
        let pictures = self.taken(pictures, self.config.in_channels, self.config.factor())?;
        let tiles = Fading::new(
            self.config.sample_size,
            self.config.sample_size / self.config.factor(),
        );
        let moments =
            self.memory
                .in_slices(&pictures, &|picture| match self.memory.tiling
                    && tiles.divides(picture)?
                {
                    true => tiles.run(picture, &|tile| self.encode_tile(tile)),
                    false => self.encode_tile(picture),
                })?;
        let halves = moments.f_to_kind(Kind::Float)?.f_chunk(2, 1)?;
        Ok(Moments {
            mean: halves[0].shallow_clone(),
            logvar: halves[1].f_clamp(-30., 20.)?,
        })
    }

    /// The pictures of latents `[n, latent channels, h, w]`, not scaled: `[n, out channels, factor
    /// h, factor w]`, about in -1..1, of its precision.
    ///
    /// # Errors
    /// As for [`encode`](Self::encode).
    pub fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        let _frozen = crate::tensor::guard();
        let latents = self.taken(latents, self.config.latent_channels, 1)?;
        let tiles = Fading::new(
            self.config.sample_size / self.config.factor(),
            self.config.sample_size,
        );
        self.memory
            .in_slices(
                &latents,
                &|latents| match self.memory.tiling && tiles.divides(latents)? {
                    true => tiles.run(latents, &|tile| self.decode_tile(tile)),
                    false => self.decode_tile(latents),
                },
            )
    }

    /// What is given, checked, as the convolutions want it.
    fn taken(&self, x: &Tensor, channels: i64, least: i64) -> Result<Tensor> {
        let size = x.size();
        if size.len() != 4 || size[0] < 1 || size[1] != channels || size[2].min(size[3]) < least {
            return Err(Error::model(format!(
                "the autoencoder takes [n, {channels}, h, w], h and w at least {least}, not \
                 {size:?}"
            )));
        }
        channels_last(
            &x.f_to_device(self.device)?
                .f_to_kind(self.precision.kind())?,
        )
    }

    fn encode_tile(&self, pictures: &Tensor) -> Result<Tensor> {
        let moments = self.encoder.forward(pictures)?;
        self.quant_conv
            .as_ref()
            .map_or(Ok(moments.shallow_clone()), |conv| conv.forward(&moments))
    }

    fn decode_tile(&self, latents: &Tensor) -> Result<Tensor> {
        match &self.post_quant_conv {
            Some(conv) => self.decoder.forward(&conv.forward(latents)?),
            None => self.decoder.forward(latents),
        }
    }
}

fn resnet(
    scope: &Scope<'_>,
    input: i64,
    output: i64,
    config: &AutoencoderKlConfig,
) -> Result<ResnetBlock2D> {
    ResnetBlock2D::new(
        scope,
        ResnetShape {
            input,
            output,
            time: None,
            groups: config.norm_num_groups,
            epsilon: EPSILON,
        },
    )
}

/// Two residual blocks, attention between them.
#[derive(Debug)]
struct Middle {
    resnets: [ResnetBlock2D; 2],
    attention: Option<PixelAttention>,
}

impl Middle {
    fn new(scope: &Scope<'_>, channels: i64, config: &AutoencoderKlConfig) -> Result<Self> {
        let resnets = scope / "resnets";
        let attention = match config.mid_block_add_attention {
            true => Some(PixelAttention::new(
                &(scope / "attentions" / 0),
                channels,
                config.norm_num_groups,
                EPSILON,
            )?),
            false => None,
        };
        Ok(Self {
            resnets: [
                resnet(&(&resnets / 0), channels, channels, config)?,
                resnet(&(&resnets / 1), channels, channels, config)?,
            ],
            attention,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = self.resnets[0].forward(x, None)?;
        if let Some(attention) = &self.attention {
            x = attention.forward(&x)?;
        }
        self.resnets[1].forward(&x, None)
    }
}

/// The norm and the convolution that end encoder and decoder.
#[derive(Debug)]
struct Output {
    norm: GroupNorm,
    conv: Conv2d,
}

impl Output {
    fn new(
        scope: &Scope<'_>,
        input: i64,
        output: i64,
        config: &AutoencoderKlConfig,
    ) -> Result<Self> {
        let norm = GroupNorm::load(
            &(scope / "conv_norm_out"),
            input,
            config.norm_num_groups,
            EPSILON,
        )?;
        Ok(Self {
            norm,
            conv: conv3x3(&(scope / "conv_out"), input, output)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.conv.forward(&norm_silu(&self.norm, x)?)
    }
}

/// Residual blocks, and what halves or doubles the picture after them.
#[derive(Debug)]
struct Level<S> {
    resnets: Vec<ResnetBlock2D>,
    sampler: Option<S>,
}

impl<S> Level<S> {
    fn forward(
        &self,
        x: &Tensor,
        sample: impl Fn(&S, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let mut x = x.shallow_clone();
        for resnet in &self.resnets {
            x = resnet.forward(&x, None)?;
        }
        self.sampler
            .as_ref()
            .map_or(Ok(x.shallow_clone()), |sampler| sample(sampler, &x))
    }
}

#[derive(Debug)]
struct Encoder {
    conv_in: Conv2d,
    levels: Vec<Level<Downsample2D>>,
    middle: Middle,
    output: Output,
}

impl Encoder {
    fn new(scope: &Scope<'_>, config: &AutoencoderKlConfig) -> Result<Self> {
        let channels = &config.block_out_channels;
        let mut input = channels[0];
        let conv_in = conv3x3(&(scope / "conv_in"), config.in_channels, input)?;
        let mut levels = Vec::new();
        for (number, &output) in channels.iter().enumerate() {
            let scope = scope / "down_blocks" / number;
            let mut resnets = Vec::new();
            for layer in 0..config.layers_per_block {
                resnets.push(resnet(
                    &(&scope / "resnets" / layer),
                    input,
                    output,
                    config,
                )?);
                input = output;
            }
            let sampler = match number + 1 < channels.len() {
                true => Some(Downsample2D::new(
                    &(&scope / "downsamplers" / 0),
                    output,
                    Border::Behind,
                )?),
                false => None,
            };
            levels.push(Level { resnets, sampler });
        }
        let middle = Middle::new(&(scope / "mid_block"), input, config)?;
        Ok(Self {
            conv_in,
            levels,
            middle,
            output: Output::new(scope, input, 2 * config.latent_channels, config)?,
        })
    }

    fn forward(&self, pictures: &Tensor) -> Result<Tensor> {
        let mut x = self.conv_in.forward(pictures)?;
        for level in &self.levels {
            x = level.forward(&x, Downsample2D::forward)?;
        }
        self.output.forward(&self.middle.forward(&x)?)
    }
}

#[derive(Debug)]
struct Decoder {
    conv_in: Conv2d,
    middle: Middle,
    levels: Vec<Level<Upsample2D>>,
    output: Output,
}

impl Decoder {
    fn new(scope: &Scope<'_>, config: &AutoencoderKlConfig) -> Result<Self> {
        let channels = &config.block_out_channels;
        let mut input = channels[channels.len() - 1];
        let conv_in = conv3x3(&(scope / "conv_in"), config.latent_channels, input)?;
        let middle = Middle::new(&(scope / "mid_block"), input, config)?;
        let mut levels = Vec::new();
        for (number, &output) in channels.iter().rev().enumerate() {
            let scope = scope / "up_blocks" / number;
            let mut resnets = Vec::new();
            for layer in 0..=config.layers_per_block {
                resnets.push(resnet(
                    &(&scope / "resnets" / layer),
                    input,
                    output,
                    config,
                )?);
                input = output;
            }
            let sampler = match number + 1 < channels.len() {
                true => Some(Upsample2D::new(
                    &(&scope / "upsamplers" / 0 / "conv"),
                    output,
                    true,
                )?),
                false => None,
            };
            levels.push(Level { resnets, sampler });
        }
        Ok(Self {
            conv_in,
            middle,
            levels,
            output: Output::new(scope, input, config.out_channels, config)?,
        })
    }

    fn forward(&self, latents: &Tensor) -> Result<Tensor> {
        let mut x = self.middle.forward(&self.conv_in.forward(latents)?)?;
        for level in &self.levels {
            x = level.forward(&x, Upsample2D::forward)?;
        }
        self.output.forward(&x)
    }
}

#[cfg(test)]
pub(in crate::models) mod tests;
