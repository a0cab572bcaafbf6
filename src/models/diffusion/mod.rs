//! The Stable Diffusion family, from folders in Diffusers' layout: autoencoders between pictures
//! and latents, the network that denoises latents, schedulers that lead from noise to a picture,
//! the blocks their networks share, and whole pipelines.

pub(crate) mod autoencoder;
pub(crate) mod autoencoder_kl;
pub(crate) mod autoencoder_tiny;
pub(crate) mod blocks;
pub(crate) mod noise;
pub mod pipeline;
pub(crate) mod pixels;
mod resampling;
pub(crate) mod schedulers;
pub(crate) mod similarity;
#[cfg(test)]
mod starter;
mod tiles;
pub mod unet;
mod vae_options;

pub use autoencoder::Autoencoder;
pub use vae_options::VaeOptions;
