//! The autoencoder of Stable Diffusion: pictures to the mean and variance of latents an eighth as
//! wide and high, and latents to pictures. Rombach et al., "High-Resolution Image Synthesis with
//! Latent Diffusion Models" (arXiv:2112.10752); the reference is diffusers' `autoencoder_kl.py` and
//! `vae.py`, whose checkpoint keys and config.json it reads.

mod coders;
mod config;

pub use config::AutoencoderKlConfig;

use tch::{Device, Kind, Tensor};

use coders::{Decoder, Encoder};

use super::tiles::Fading;
use super::vae_options::VaeOptions;
use crate::error::{Error, Result};
use crate::models::layers::{Conv2d, ConvConfig};
use crate::models::offload::tensors;
use crate::models::weights::Weights;
use crate::tensor::{Precision, channels_last};

tensors!(AutoencoderKl {
    encoder,
    decoder,
    quant_conv,
    post_quant_conv
});
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
    pub fn load(
        weights: Weights,
        config: &AutoencoderKlConfig,
        memory: VaeOptions,
    ) -> Result<Self> {
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
            encoder: Encoder::load(&(&root / "encoder"), config)?,
            decoder: Decoder::load(&(&root / "decoder"), config)?,
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

#[cfg(test)]
pub(in crate::models) mod tests;
