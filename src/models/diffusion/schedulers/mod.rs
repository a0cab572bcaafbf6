//! Schedulers: which times a network is asked about on the way from noise to a picture, and what
//! its answers make of the sample. Each is configured by a scheduler_config.json as diffusers 0.42
//! reads it, and proven against diffusers step by step.

mod config;
mod ddim;
mod dpm;
mod euler;
mod lcm;
mod pndm;
mod prediction;
mod schedule;
mod scheduler;
mod sigmas;
#[cfg(test)]
mod tests;

pub use config::SchedulerConfig;
pub use scheduler::{Noise, Scheduler};
