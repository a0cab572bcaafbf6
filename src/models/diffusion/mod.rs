//! The Stable Diffusion family, from folders in Diffusers' layout: autoencoders between pictures
//! and latents, the network that denoises latents, schedulers that lead from noise to a picture,
//! the blocks their networks share, and whole pipelines.

pub mod autoencoder;
pub mod autoencoder_kl;
pub mod autoencoder_tiny;
pub mod blocks;
pub mod noise;
pub mod pipeline;
pub mod pixels;
mod resampling;
pub mod schedulers;
pub mod similarity;
#[cfg(test)]
mod starter;
mod tiles;
pub mod unet;
mod vae_options;

pub use autoencoder::Autoencoder;
pub use vae_options::VaeOptions;
