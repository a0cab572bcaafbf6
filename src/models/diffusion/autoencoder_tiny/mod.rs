//! The tiny autoencoder (TAESD) that stands in for Stable Diffusion's, a small fraction of its
//! work: Ollin Boer Bohan's <https://github.com/madebyollin/taesd>; the reference is diffusers'
//! `autoencoder_tiny.py` and `vae.py`, whose checkpoint keys and config.json it reads.

use tch::{Device, Tensor};

use super::blocks::conv3x3;
use super::resampling::Upsample2D;
use super::tiles::Overlaying;
use super::vae_options::VaeOptions;
use crate::error::{Error, Result};
use crate::models::config::Config;
use crate::models::layers::Conv2d;
use crate::models::offload::{Tensors, tensors};
use crate::models::weights::{Scope, Weights};
use crate::tensor::{Conv2dParams, Precision, channels_last};

/// Side of a tile, in pixels; diffusers' class has no setting for it.
const TILE: i64 = 512;

/// Sizes of the network, as config.json has them.
#[derive(Debug, Clone, PartialEq)]
pub struct AutoencoderTinyConfig {
    /// Channels of the pictures that go in.
    pub in_channels: i64,
    /// Channels of the pictures that come out.
    pub out_channels: i64,
    /// Channels of each stage of the encoder.
    pub encoder_block_out_channels: Vec<i64>,
    /// Channels of each stage of the decoder.
    pub decoder_block_out_channels: Vec<i64>,
    /// Blocks of each stage of the encoder.
    pub num_encoder_blocks: Vec<i64>,
    /// Blocks of each stage of the decoder.
    pub num_decoder_blocks: Vec<i64>,
    /// Channels of the latents.
    pub latent_channels: i64,
    /// Latents are in -magnitude..magnitude, about.
    pub latent_magnitude: f64,
    /// Where 0 goes when latents are scaled to 0..1.
    pub latent_shift: f64,
    /// What latents are multiplied by before a diffusion model sees them.
    pub scaling_factor: f64,
    /// What is taken from latents before that.
    pub shift_factor: f64,
}

impl Default for AutoencoderTinyConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            encoder_block_out_channels: vec![64; 4],
            decoder_block_out_channels: vec![64; 4],
            num_encoder_blocks: vec![1, 3, 3, 3],
            num_decoder_blocks: vec![3, 3, 3, 1],
            latent_channels: 4,
            latent_magnitude: 3.,
            latent_shift: 0.5,
            scaling_factor: 1.,
            shift_factor: 0.,
        }
    }
}

impl AutoencoderTinyConfig {
    /// From config.json; what is missing is the default's.
    ///
    /// # Errors
    /// Model, where a field is not what it must be, or asks for what is not read here.
    pub fn read(config: &Config) -> Result<Self> {
        let default = Self::default();
        let read = Self {
            in_channels: config.integer_or("in_channels", default.in_channels)?,
            out_channels: config.integer_or("out_channels", default.out_channels)?,
            encoder_block_out_channels: config.integers_or(
                "encoder_block_out_channels",
                &default.encoder_block_out_channels,
            )?,
            decoder_block_out_channels: config.integers_or(
                "decoder_block_out_channels",
                &default.decoder_block_out_channels,
            )?,
            num_encoder_blocks: config
                .integers_or("num_encoder_blocks", &default.num_encoder_blocks)?,
            num_decoder_blocks: config
                .integers_or("num_decoder_blocks", &default.num_decoder_blocks)?,
            latent_channels: config.integer_or("latent_channels", default.latent_channels)?,
            latent_magnitude: config.number_or("latent_magnitude", default.latent_magnitude)?,
            latent_shift: config.number_or("latent_shift", default.latent_shift)?,
            scaling_factor: config.number_or("scaling_factor", default.scaling_factor)?,
            shift_factor: config.number_or("shift_factor", default.shift_factor)?,
        };
        for (field, known) in [("act_fn", "relu"), ("upsample_fn", "nearest")] {
            if config.string_or(field, known)? != known {
                return Err(config.error(format_args!("`{field}` must be {known}")));
            }
        }
        if config.integer_or("upsampling_scaling_factor", 2)? != 2 {
            return Err(config.error("`upsampling_scaling_factor` must be 2"));
        }
        read.check().map_err(|what| config.error(what))?;
        Ok(read)
    }

    fn check(&self) -> Result<(), &'static str> {
        let (encoder, decoder) = (
            &self.encoder_block_out_channels,
            &self.decoder_block_out_channels,
        );
        let sizes = [self.in_channels, self.out_channels, self.latent_channels];
        if [
            encoder.len(),
            self.num_encoder_blocks.len(),
            self.num_decoder_blocks.len(),
        ] != [decoder.len(); 3]
            || decoder.is_empty()
        {
            return Err("encoder and decoder must have equally many stages, one or more");
        }
        // Between two stages the channels stay: diffusers' convolutions there have those of the
        // later stage on both sides.
        if encoder
            .iter()
            .chain(decoder)
            .any(|channels| channels != &encoder[0])
            || sizes.contains(&0)
            || encoder[0] == 0
        {
            return Err(
                "`encoder_block_out_channels` and `decoder_block_out_channels` must all be one \
                 number above 0",
            );
        }
        if self.latent_magnitude <= 0. || self.scaling_factor <= 0. {
            return Err("`latent_magnitude` and `scaling_factor` must be above 0");
        }
        Ok(())
    }

    /// Pixels of a picture's side to one of its latents'.
    pub fn factor(&self) -> i64 {
        1 << (self.decoder_block_out_channels.len() - 1)
    }
}

/// The network with its weights.
#[derive(Debug)]
pub struct AutoencoderTiny {
    encoder: Vec<Layer>,
    decoder: Vec<Layer>,
    config: AutoencoderTinyConfig,
    memory: VaeOptions,
    tile: i64,
    device: Device,
    precision: Precision,
}

impl AutoencoderTiny {
    /// The network of these weights; `memory` says whether many or large pictures go through it in
    /// parts.
    ///
    /// # Errors
    /// Model, where the weights do not fit.
    pub fn build(
        weights: Weights,
        config: &AutoencoderTinyConfig,
        memory: VaeOptions,
    ) -> Result<Self> {
        let _frozen = crate::tensor::guard();
        let root = weights.root();
        let encoder = encoder(&(&root / "encoder" / "layers"), config)?;
        let decoder = decoder(&(&root / "decoder" / "layers"), config)?;
        let (device, precision) = (weights.device(), weights.precision());
        weights.finish()?;
        Ok(Self {
            encoder,
            decoder,
            config: config.clone(),
            memory,
            tile: TILE,
            device,
            precision,
        })
    }

    /// Its sizes.
    pub fn config(&self) -> &AutoencoderTinyConfig {
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

    /// The latents `[n, latent channels, h / factor, w / factor]` of pictures `[n, in channels, h,
    /// w]` in -1..1, of its precision.
    ///
    /// # Errors
    /// Model, where the shape does not fit; overload, where memory is short.
    pub fn encode(&self, pictures: &Tensor) -> Result<Tensor> {
        let _frozen = crate::tensor::guard();
        let pictures = self.taken(pictures, self.config.in_channels)?;
        let tiles = Overlaying {
            tile: self.tile,
            out: self.tile / self.config.factor(),
        };
        // From -1..1 to 0..1.
        let whole = |pictures: &Tensor| {
            through(
                &self.encoder,
                &pictures.f_add_scalar(1.)?.f_mul_scalar_(0.5)?,
            )
        };
        self.memory.in_slices(&pictures, &|picture| {
            if self.memory.tiling {
                tiles.run(picture, &whole)
            } else {
                whole(picture)
            }
        })
    }

    /// The pictures `[n, out channels, factor h, factor w]`, about in -1..1, of latents `[n, latent
    /// channels, h, w]`.
    ///
    /// # Errors
    /// As for [`encode`](Self::encode).
    pub fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        let _frozen = crate::tensor::guard();
        let latents = self.taken(latents, self.config.latent_channels)?;
        let tiles = Overlaying {
            tile: self.tile / self.config.factor(),
            out: self.tile,
        };
        // Latents far out are drawn in.
        let whole = |latents: &Tensor| {
            through(
                &self.decoder,
                &latents.f_div_scalar(3.)?.f_tanh_()?.f_mul_scalar_(3.)?,
            )
        };
        self.memory.in_slices(&latents, &|latents| {
            if self.memory.tiling {
                tiles.run(latents, &whole)
            } else {
                whole(latents)
            }
        })
    }

    /// Latents as numbers of 0..1, as which they can be kept like a picture's bytes.
    ///
    /// # Errors
    /// Overload, where memory is short.
    pub fn scale_latents(&self, latents: &Tensor) -> Result<Tensor> {
        Ok(latents
            .f_div_scalar(2. * self.config.latent_magnitude)?
            .f_add_scalar_(self.config.latent_shift)?
            .f_clamp_(0., 1.)?)
    }

    /// The latents that [`scale_latents`](Self::scale_latents) was given.
    ///
    /// # Errors
    /// As there.
    pub fn unscale_latents(&self, scaled: &Tensor) -> Result<Tensor> {
        Ok(scaled
            .f_sub_scalar(self.config.latent_shift)?
            .f_mul_scalar_(2. * self.config.latent_magnitude)?)
    }

    fn taken(&self, x: &Tensor, channels: i64) -> Result<Tensor> {
        let size = x.size();
        if size.len() != 4 || size[1] != channels || size.contains(&0) {
            return Err(Error::model(format!(
                "the autoencoder takes [n, {channels}, h, w], not {size:?}"
            )));
        }
        channels_last(
            &x.f_to_device(self.device)?
                .f_to_kind(self.precision.kind())?,
        )
    }
}

/// A layer of the encoder or decoder.
#[derive(Debug)]
enum Layer {
    Conv(Conv2d),
    ConvRelu(Conv2d),
    Double(Upsample2D),
    Block([Conv2d; 3]),
}

tensors!(AutoencoderTiny { encoder, decoder });

impl Tensors for Layer {
    fn each(&mut self, act: &mut dyn FnMut(&mut Tensor) -> Result<()>) -> Result<()> {
        match self {
            Self::Conv(conv) | Self::ConvRelu(conv) => conv.each(act),
            Self::Double(up) => up.each(act),
            Self::Block(convs) => convs.each(act),
        }
    }
}

impl Layer {
    fn block(scope: &Scope<'_>, channels: i64) -> Result<Self> {
        let scope = scope / "conv";
        let conv = |at| conv3x3(&(&scope / at), channels, channels);
        Ok(Self::Block([conv(0)?, conv(2)?, conv(4)?]))
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Conv(conv) => conv.forward(x)?,
            Self::ConvRelu(conv) => conv.forward_relu(x)?,
            Self::Double(up) => up.forward(x)?,
            Self::Block([first, second, third]) => {
                let inside = second.forward_relu(&first.forward_relu(x)?)?;
                third.forward(&inside)?.f_add_(x)?.f_relu_()?
            }
        })
    }
}

fn through(layers: &[Layer], x: &Tensor) -> Result<Tensor> {
    layers
        .iter()
        .try_fold(x.shallow_clone(), |x, layer| layer.forward(&x))
}

/// A convolution that halves the picture; it has no bias.
fn halving(scope: &Scope<'_>, channels: i64) -> Result<Conv2d> {
    let weight = scope.take_f32("weight", &[channels, channels, 3, 3])?;
    let bias = weight.f_new_zeros([channels], (weight.kind(), weight.device()))?;
    Ok(Conv2d::place(scope, &weight, &bias, Conv2dParams::dense([2, 2], [1, 1]))?.packed())
}

fn encoder(scope: &Scope<'_>, config: &AutoencoderTinyConfig) -> Result<Vec<Layer>> {
    let channels = config.encoder_block_out_channels[0];
    let mut layers = Vec::new();
    for (stage, &blocks) in config.num_encoder_blocks.iter().enumerate() {
        let scope_of_conv = scope / layers.len();
        layers.push(Layer::Conv(if stage == 0 {
            conv3x3(&scope_of_conv, config.in_channels, channels)?
        } else {
            halving(&scope_of_conv, channels)?
        }));
        for _ in 0..blocks {
            layers.push(Layer::block(&(scope / layers.len()), channels)?);
        }
    }
    layers.push(Layer::Conv(conv3x3(
        &(scope / layers.len()),
        channels,
        config.latent_channels,
    )?));
    Ok(layers)
}

fn decoder(scope: &Scope<'_>, config: &AutoencoderTinyConfig) -> Result<Vec<Layer>> {
    let channels = config.decoder_block_out_channels[0];
    let mut layers = vec![Layer::ConvRelu(conv3x3(
        &(scope / 0),
        config.latent_channels,
        channels,
    )?)];
    // The ReLU is a layer of its own in the checkpoint's numbers, and so is each doubling.
    let mut at = 2;
    for (stage, &blocks) in config.num_decoder_blocks.iter().enumerate() {
        for _ in 0..blocks {
            layers.push(Layer::block(&(scope / at), channels)?);
            at += 1;
        }
        if stage + 1 < config.num_decoder_blocks.len() {
            layers.push(Layer::Double(Upsample2D::load(
                &(scope / (at + 1)),
                channels,
                false,
            )?));
            at += 2;
        }
    }
    layers.push(Layer::Conv(output(
        &(scope / at),
        channels,
        config.out_channels,
    )?));
    Ok(layers)
}

/// The last convolution, from 0..1 to -1..1.
fn output(scope: &Scope<'_>, input: i64, output: i64) -> Result<Conv2d> {
    let weight = scope
        .take_f32("weight", &[output, input, 3, 3])?
        .f_mul_scalar_(2.)?;
    let bias = scope
        .take_f32("bias", &[output])?
        .f_mul_scalar_(2.)?
        .f_sub_scalar_(1.)?;
    Ok(Conv2d::place(scope, &weight, &bias, Conv2dParams::dense([1, 1], [1, 1]))?.packed())
}

#[cfg(test)]
pub(in crate::models) mod tests;
