//! The Stable Diffusion family, from folders in Diffusers' layout: autoencoders between pictures and latents, the network that denoises latents,
//! schedulers that lead from noise to a picture, and the blocks their networks share.

pub mod blocks;
pub mod unet;
