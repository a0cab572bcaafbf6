//! Diffusion: the networks, schedules and pipelines of the Stable Diffusion family, from folders in Diffusers' layout.

pub mod unet;
