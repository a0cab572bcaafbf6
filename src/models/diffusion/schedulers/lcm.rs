//! Latent consistency models: Luo et al., "Latent Consistency Models" (arXiv:2310.04378), a picture
//! in 1 to 8 steps; the reference is diffusers' `scheduling_lcm.py`.

use std::sync::Arc;

use tch::Tensor;

use super::prediction::{Limit, PREDICTIONS, Prediction, sum};
use super::schedule::{BetaDefaults, Schedule, Spacing};
use super::scheduler::{Class, Noise, Position, Scheduler, first_step};
use crate::error::{Error, Result};
use crate::models::config::Config;

/// The deviation of pictures that the boundary condition assumes.
const SIGMA_DATA: f64 = 0.5;

#[derive(Debug)]
struct Lcm {
    schedule: Schedule,
    prediction: Prediction,
    limit: Limit,
    /// Steps of the schedule that the network was distilled on.
    original_steps: usize,
    timestep_scaling: f64,
}

pub(super) fn read(config: &Config) -> Result<Arc<dyn Class>> {
    let defaults = BetaDefaults {
        start: 0.00085,
        end: 0.012,
        schedule: "scaled_linear",
    };
    let schedule = Schedule::read(
        config,
        defaults,
        config.boolean_or("rescale_betas_zero_snr", false)?,
    )?;
    let original_steps = config.integer_or("original_inference_steps", 50)? as usize;
    if original_steps == 0 || original_steps > schedule.len() {
        return Err(config.error(
            "`original_inference_steps` must be above 0 and at most `num_train_timesteps`",
        ));
    }
    // Times are picked from the distilled ones, whatever the spacing; one that diffusers does not
    // know is refused all the same.
    Spacing::read(config, "leading")?;
    Ok(Arc::new(Lcm {
        schedule,
        prediction: Prediction::read(config, &PREDICTIONS)?,
        limit: Limit::read(config, Some(false))?,
        original_steps,
        timestep_scaling: config.number_or("timestep_scaling", 10.)?,
    }))
}

impl Class for Lcm {
    fn start(self: Arc<Self>, steps: usize, strength: f64) -> Result<Box<dyn Scheduler>> {
        let times = self.times(steps, self.original_steps)?;
        Ok(Box::new(Run {
            position: Position::new(times, first_step(steps, strength)),
            config: self,
        }))
    }

    fn start_within(
        self: Arc<Self>,
        steps: usize,
        strength: f64,
    ) -> Option<Result<Box<dyn Scheduler>>> {
        let kept = (self.original_steps as f64 * strength) as usize;
        let run = |times| -> Box<dyn Scheduler> {
            Box::new(Run {
                position: Position::new(times, 0),
                config: Arc::clone(&self),
            })
        };
        Some(self.times(steps, kept).map(run))
    }
}

impl Lcm {
    /// `steps` of the last `kept` times that the network was distilled on, evenly spread, the
    /// latest first.
    fn times(&self, steps: usize, kept: usize) -> Result<Vec<f64>> {
        if steps == 0 || steps > kept {
            return Err(Error::config(format!(
                "{steps} steps are not among the {kept} that the network was distilled on"
            ))
            .hint(
                "a latent consistency model needs 1 to 8 steps, and a strength that leaves as many",
            ));
        }
        let stride = self.schedule.len() / self.original_steps;
        let time = |step: usize| {
            ((kept - (step as f64 * (kept as f64 / steps as f64)).floor() as usize) * stride - 1)
                as f64
        };
        Ok((0..steps).map(time).collect())
    }
}

#[derive(Debug)]
struct Run {
    config: Arc<Lcm>,
    position: Position,
}

impl Run {
    /// What is left of the picture at a time.
    fn alpha(&self, time: f64) -> f64 {
        self.config.schedule.alpha(time as i64).unwrap_or(1.)
    }
}

impl Scheduler for Run {
    fn timesteps(&self) -> &[f64] {
        self.position.walked()
    }

    fn step(&mut self, output: &Tensor, sample: &Tensor, noise: &mut Noise<'_>) -> Result<Tensor> {
        let index = self.position.index()?;
        let time = self.position.timesteps[index];
        let now = self.alpha(time);
        let picture = self
            .config
            .prediction
            .picture(now.sqrt(), (1. - now).sqrt());
        let picture = self
            .config
            .limit
            .apply(sum(&[(picture.0, sample), (picture.1, output)])?)?;
        let scaled = time * self.config.timestep_scaling;
        let (skip, out) = (
            SIGMA_DATA.powi(2) / (scaled.powi(2) + SIGMA_DATA.powi(2)),
            scaled / scaled.hypot(SIGMA_DATA),
        );
        let denoised = sum(&[(out, &picture), (skip, sample)])?;
        self.position.next += 1;
        match self.position.timesteps.get(index + 1) {
            Some(&next) => {
                let next = self.alpha(next);
                sum(&[(next.sqrt(), &denoised), ((1. - next).sqrt(), &noise()?)])
            }
            None => Ok(denoised),
        }
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor) -> Result<Tensor> {
        let alpha = self.alpha(self.position.timesteps[self.position.index()?]);
        sum(&[(alpha.sqrt(), original), ((1. - alpha).sqrt(), noise)])
    }
}
