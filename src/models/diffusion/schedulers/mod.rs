//! Schedulers: which times a network is asked about on the way from noise to a picture, and what
//! its answers make of the sample. Each is configured by a scheduler_config.json as diffusers 0.42
//! reads it, and proven against diffusers step by step.

mod ddim;
mod dpm;
mod euler;
mod lcm;
mod pndm;
mod prediction;
mod schedule;
mod sigmas;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::sync::Arc;

use tch::Tensor;

use super::super::config::Config;
use crate::error::{Error, Result};

/// Where a step takes fresh noise from: standard normal, of the sample's shape, in f32 on its
/// device. A seeded generator of the caller's, so that the same seed gives the same picture.
pub type Noise<'a> = dyn FnMut() -> Result<Tensor> + 'a;

/// One generation's way from noise, or from a noisy picture, to a picture. Samples are f32, `[n, c,
/// h, w]`; the network's output may be of any precision. What a step keeps of those before it is in
/// here, so each generation has its own.
pub trait Scheduler: Debug + Send {
    /// The times that the network is asked about, in their order; one call of [`step`](Self::step)
    /// each. A time may come twice.
    fn timesteps(&self) -> &[f64];

    /// The standard deviation of the noise that a picture begins as.
    fn init_noise_sigma(&self) -> f64 {
        1.
    }

    /// The sample as the network wants to see it at the next step.
    ///
    /// # Errors
    /// Overload, where memory is short; bug, where no step is left.
    fn scale_model_input(&self, sample: &Tensor) -> Result<Tensor> {
        Ok(sample.shallow_clone())
    }

    /// The sample after the next step, from what the network said of it.
    ///
    /// # Errors
    /// Model, where shapes do not fit; overload, where memory is short; bug, where no step is left.
    fn step(&mut self, output: &Tensor, sample: &Tensor, noise: &mut Noise<'_>) -> Result<Tensor>;

    /// A picture's latents with as much `noise` (standard normal, of their shape) as the next step
    /// expects to find.
    ///
    /// # Errors
    /// As for [`step`](Self::step).
    fn add_noise(&self, original: &Tensor, noise: &Tensor) -> Result<Tensor>;
}

/// A scheduler as its scheduler_config.json has it, from which each generation starts its own
/// [`Scheduler`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SchedulerConfig(Arc<dyn Class>);

/// A class of diffusers', configured.
trait Class: Debug + Send + Sync {
    fn start(self: Arc<Self>, steps: usize, strength: f64) -> Result<Box<dyn Scheduler>>;

    /// All of `steps`, inside the last part of `strength` of the schedule; none for classes that
    /// know no such way.
    fn start_within(
        self: Arc<Self>,
        _steps: usize,
        _strength: f64,
    ) -> Option<Result<Box<dyn Scheduler>>> {
        None
    }
}

type Read = fn(&Config) -> Result<Arc<dyn Class>>;

/// The classes that are read, by the `_class_name` of their configuration.
const CLASSES: [(&str, Read); 6] = [
    ("DDIMScheduler", ddim::read),
    ("PNDMScheduler", pndm::read),
    ("EulerDiscreteScheduler", euler::read),
    ("EulerAncestralDiscreteScheduler", euler::read_ancestral),
    ("DPMSolverMultistepScheduler", dpm::read),
    ("LCMScheduler", lcm::read),
];

/// What diffusers' schedulers are configured by. A class passes over those of the others, as in
/// diffusers, for checkpoints carry them over when their scheduler is exchanged; what no class
/// knows is refused.
const OPTIONS: [&str; 44] = [
    "algorithm_type",
    "beta_end",
    "beta_schedule",
    "beta_start",
    "clip_sample",
    "clip_sample_range",
    "disable_corrector",
    "dynamic_thresholding_ratio",
    "euler_at_final",
    "final_sigmas_type",
    "flow_shift",
    "interpolation_type",
    "lambda_min_clipped",
    "lower_order_final",
    "num_train_timesteps",
    "original_inference_steps",
    "predict_x0",
    "prediction_type",
    "rescale_betas_zero_snr",
    "rho",
    "sample_max_value",
    "set_alpha_to_one",
    "sigma_data",
    "sigma_max",
    "sigma_min",
    "sigma_schedule",
    "skip_prk_steps",
    "solver_order",
    "solver_p",
    "solver_type",
    "steps_offset",
    "thresholding",
    "time_shift_type",
    "timestep_scaling",
    "timestep_spacing",
    "timestep_type",
    "trained_betas",
    "use_beta_sigmas",
    "use_dynamic_shifting",
    "use_exponential_sigmas",
    "use_flow_sigmas",
    "use_karras_sigmas",
    "use_lu_lambdas",
    "variance_type",
];

impl SchedulerConfig {
    /// From scheduler_config.json.
    ///
    /// # Errors
    /// Model, where its class is none of those read here, an option is unknown, or a value is not
    /// supported.
    pub fn read(config: &Config) -> Result<Self> {
        let class = config.string("_class_name")?;
        let Some((_, read)) = CLASSES.iter().find(|(name, _)| *name == class) else {
            let known: Vec<&str> = CLASSES.iter().map(|(name, _)| *name).collect();
            return Err(config.error(format_args!(
                "scheduler `{class}` is not one of {}",
                known.join(", ")
            )));
        };
        let unknown = config.fields().find(|(key, value)| {
            !(key.starts_with('_') || **value == false || OPTIONS.contains(key))
        });
        match unknown {
            Some((key, _)) => Err(config.error(format_args!(
                "`{key}` is an option that no scheduler here knows"
            ))),
            None => read(config).map(Self),
        }
    }

    /// The way of one generation: `steps` in all, of which the last part of `strength` (above 0, at
    /// most 1) is walked. A picture from noise takes all of them; one made from another picture
    /// begins where its noise is as strong as that.
    ///
    /// # Errors
    /// Config, where the scheduler cannot do that many or that few steps, or none are left at this
    /// strength.
    pub fn start(&self, steps: usize, strength: f64) -> Result<Box<dyn Scheduler>> {
        check_strength(strength)?;
        if (steps as f64 * strength) as usize == 0 {
            return Err(Error::config(format!(
                "{steps} steps at a strength of {strength} leave none to do"
            ))
            .hint(format!(
                "strength times steps must be 1 or more: {} steps would do",
                (1. / strength).ceil()
            )));
        }
        Arc::clone(&self.0).start(steps, strength)
    }

    /// As [`start`](Self::start), but with all of `steps` inside the last part of `strength`, as
    /// diffusers' pipelines of latent consistency models walk; other schedulers than theirs start
    /// as ever.
    ///
    /// # Errors
    /// As there.
    pub fn start_within(&self, steps: usize, strength: f64) -> Result<Box<dyn Scheduler>> {
        check_strength(strength)?;
        Arc::clone(&self.0)
            .start_within(steps, strength)
            .unwrap_or_else(|| self.start(steps, strength))
    }
}

fn check_strength(strength: f64) -> Result<()> {
    if strength > 0. && strength <= 1. {
        return Ok(());
    }
    Err(Error::config(format!(
        "a strength must be above 0 and at most 1, it is {strength}"
    )))
}

/// The index of the first of `steps` that are walked at `strength`, as diffusers' image-to-image
/// pipelines count.
fn first_step(steps: usize, strength: f64) -> usize {
    steps - ((steps as f64 * strength) as usize).min(steps)
}

/// How far a generation is on its schedule.
#[derive(Debug)]
struct Position {
    timesteps: Vec<f64>,
    begin: usize,
    next: usize,
}

impl Position {
    fn new(timesteps: Vec<f64>, begin: usize) -> Self {
        Self {
            timesteps,
            begin,
            next: begin,
        }
    }

    fn walked(&self) -> &[f64] {
        &self.timesteps[self.begin..]
    }

    /// The index of the next step.
    fn index(&self) -> Result<usize> {
        if self.next < self.timesteps.len() {
            Ok(self.next)
        } else {
            Err(Error::bug(
                "a scheduler was asked for more steps than it has",
            ))
        }
    }

    /// The time of the next step, where times are whole.
    fn time(&self) -> Result<i64> {
        Ok(self.timesteps[self.index()?] as i64)
    }
}
