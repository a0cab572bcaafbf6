//! Either of the autoencoders, between pictures and the latents that a diffusion model works on.

use tch::{Device, Kind, Tensor};

use super::autoencoder_kl::{AutoencoderKl, AutoencoderKlConfig};
use super::autoencoder_tiny::{AutoencoderTiny, AutoencoderTinyConfig};
use super::schedulers::Noise;
use super::vae_options::VaeOptions;
use crate::error::{Error, Result};
use crate::models::config::Config;
use crate::models::offload::Tensors;
use crate::models::weights::Weights;
use crate::tensor::Precision;

/// An autoencoder, whichever its folder's config.json names.
#[derive(Debug)]
pub enum Autoencoder {
    /// Stable Diffusion's own.
    Kl(Box<AutoencoderKl>),
    /// TAESD.
    Tiny(Box<AutoencoderTiny>),
}

impl Tensors for Autoencoder {
    fn each(&mut self, act: &mut dyn FnMut(&mut Tensor) -> Result<()>) -> Result<()> {
        match self {
            Self::Kl(network) => network.each(act),
            Self::Tiny(network) => network.each(act),
        }
    }
}

impl Autoencoder {
    /// The network that `_class_name` of config.json names, of these weights.
    ///
    /// # Errors
    /// Model, where it is none of those read here, or its config or weights do not fit.
    pub fn build(weights: Weights, config: &Config, memory: VaeOptions) -> Result<Self> {
        match config.string("_class_name")? {
            "AutoencoderKL" => Ok(Self::Kl(Box::new(AutoencoderKl::load(
                weights,
                &AutoencoderKlConfig::read(config)?,
                memory,
            )?))),
            "AutoencoderTiny" => Ok(Self::Tiny(Box::new(AutoencoderTiny::build(
                weights,
                &AutoencoderTinyConfig::read(config)?,
                memory,
            )?))),
            other => Err(config.error(format_args!(
                "autoencoder `{other}` is not one of AutoencoderKL, AutoencoderTiny"
            ))),
        }
    }

    /// The precision that an autoencoder of this config.json computes in where `wanted` is asked
    /// for: some overflow in f16.
    ///
    /// # Errors
    /// Model, where a field is not what it must be.
    pub fn precision_for(config: &Config, wanted: Precision) -> Result<Precision> {
        let upcast = config.string("_class_name")? == "AutoencoderKL"
            && config.boolean_or("force_upcast", true)?;
        Ok(if upcast && wanted == Precision::F16 {
            Precision::F32
        } else {
            wanted
        })
    }

    /// Pixels of a picture's side to one of its latents'.
    pub fn factor(&self) -> i64 {
        match self {
            Self::Kl(network) => network.config().factor(),
            Self::Tiny(network) => network.config().factor(),
        }
    }

    /// Channels of the latents.
    pub fn latent_channels(&self) -> i64 {
        match self {
            Self::Kl(network) => network.config().latent_channels,
            Self::Tiny(network) => network.config().latent_channels,
        }
    }

    /// Where it runs.
    pub fn device(&self) -> Device {
        match self {
            Self::Kl(network) => network.device(),
            Self::Tiny(network) => network.device(),
        }
    }

    /// The latents, f32 and scaled for the diffusion model, of pictures `[n, 3, h, w]` in -1..1,
    /// whose sides are multiples of the [`factor`](Self::factor). Where the network gives
    /// distributions they are drawn by one call of `noise`.
    ///
    /// # Errors
    /// Model, where the shape does not fit; overload, where memory is short.
    pub fn to_latents(&self, pictures: &Tensor, noise: &mut Noise<'_>) -> Result<Tensor> {
        let size = pictures.size();
        if size.iter().skip(2).any(|side| side % self.factor() != 0) {
            return Err(Error::model(format!(
                "pictures {size:?} whose sides are no multiples of {}",
                self.factor()
            )));
        }
        let latents = match self {
            Self::Kl(network) => network.encode(pictures)?.sample(&noise()?)?,
            Self::Tiny(network) => network.encode(pictures)?.f_to_kind(Kind::Float)?,
        };
        let (scale, shift) = self.scaling();
        Ok(latents.f_sub_scalar(shift)?.f_mul_scalar_(scale)?)
    }

    /// The pictures, about in -1..1, of the diffusion model's latents.
    ///
    /// # Errors
    /// As for [`to_latents`](Self::to_latents).
    pub fn to_pictures(&self, latents: &Tensor) -> Result<Tensor> {
        let (scale, shift) = self.scaling();
        let latents = latents.f_div_scalar(scale)?.f_add_scalar_(shift)?;
        match self {
            Self::Kl(network) => network.decode(&latents),
            Self::Tiny(network) => network.decode(&latents),
        }
    }

    fn scaling(&self) -> (f64, f64) {
        match self {
            Self::Kl(network) => (
                network.config().scaling_factor,
                network.config().shift_factor,
            ),
            Self::Tiny(network) => (
                network.config().scaling_factor,
                network.config().shift_factor,
            ),
        }
    }
}
