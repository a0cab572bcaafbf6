//! DDIM: Song et al., "Denoising Diffusion Implicit Models" (arXiv:2010.02502), without noise of
//! its own (eta is 0); the reference is diffusers' `scheduling_ddim.py`.

use std::sync::Arc;

use tch::Tensor;

use super::prediction::{Limit, PREDICTIONS, Prediction, sum};
use super::schedule::{BetaDefaults, Schedule, Spacing};
use super::scheduler::{Class, Noise, Position, Scheduler, first_step};
use crate::error::{Error, Result};
use crate::models::config::Config;

#[derive(Debug)]
struct Ddim {
    schedule: Schedule,
    prediction: Prediction,
    limit: Limit,
    spacing: Spacing,
    offset: i64,
    /// The product that stands before the first time.
    final_alpha: f64,
}

pub(super) fn read(config: &Config) -> Result<Arc<dyn Class>> {
    let schedule = Schedule::read(
        config,
        BetaDefaults::USUAL,
        config.boolean_or("rescale_betas_zero_snr", false)?,
    )?;
    let to_one = config.boolean_or("set_alpha_to_one", true)?;
    Ok(Arc::new(Ddim {
        prediction: Prediction::read(config, &PREDICTIONS)?,
        limit: Limit::read(config, Some(true))?,
        spacing: Spacing::read(config, "leading")?,
        offset: config.integer_or("steps_offset", 0)?,
        final_alpha: if to_one {
            1.
        } else {
            schedule.alpha(0).unwrap_or(1.)
        },
        schedule,
    }))
}

impl Class for Ddim {
    fn start(self: Arc<Self>, steps: usize, strength: f64) -> Result<Box<dyn Scheduler>> {
        let times = whole_times(&self.schedule, self.spacing, self.offset, steps)?;
        let stride = (self.schedule.len() / steps) as i64;
        Ok(Box::new(Run {
            position: Position::new(times, first_step(steps, strength)),
            config: self,
            stride,
        }))
    }
}

/// The picked times, falling, rounded to whole ones.
pub(super) fn whole_times(
    schedule: &Schedule,
    spacing: Spacing,
    offset: i64,
    steps: usize,
) -> Result<Vec<f64>> {
    schedule.check(steps)?;
    let times: Vec<f64> = spacing
        .times(schedule.len(), steps, offset)
        .into_iter()
        .map(f64::round_ties_even)
        .collect();
    if times[0] >= schedule.len() as f64 {
        return Err(Error::config(format!(
            "{steps} steps and a `steps_offset` of {offset} lead past the {} times of the training",
            schedule.len()
        ))
        .hint("fewer steps would do"));
    }
    Ok(times)
}

#[derive(Debug)]
struct Run {
    config: Arc<Ddim>,
    position: Position,
    stride: i64,
}

impl Scheduler for Run {
    fn timesteps(&self) -> &[f64] {
        self.position.walked()
    }

    fn step(&mut self, output: &Tensor, sample: &Tensor, _: &mut Noise<'_>) -> Result<Tensor> {
        let (config, time) = (&self.config, self.position.time()?);
        let now = config.schedule.alpha(time).unwrap_or(config.final_alpha);
        let next = config
            .schedule
            .alpha(time - self.stride)
            .unwrap_or(config.final_alpha);
        let (alpha, sigma) = (now.sqrt(), (1. - now).sqrt());
        let (picture, noise) = (
            config.prediction.picture(alpha, sigma),
            config.prediction.noise(alpha, sigma),
        );
        let picture = config
            .limit
            .apply(sum(&[(picture.0, sample), (picture.1, output)])?)?;
        let noise = sum(&[(noise.0, sample), (noise.1, output)])?;
        self.position.next += 1;
        sum(&[(next.sqrt(), &picture), ((1. - next).sqrt(), &noise)])
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor) -> Result<Tensor> {
        let alpha = self
            .config
            .schedule
            .alpha(self.position.time()?)
            .unwrap_or(1.);
        sum(&[(alpha.sqrt(), original), ((1. - alpha).sqrt(), noise)])
    }
}
