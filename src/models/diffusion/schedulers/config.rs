//! A scheduler as its scheduler_config.json has it: its class, its options, and the ways that
//! generations start from it.

use std::sync::Arc;

use super::scheduler::{Class, Scheduler};
use super::{ddim, dpm, euler, lcm, pndm};
use crate::error::{Error, Result};
use crate::models::config::Config;

/// A scheduler as its scheduler_config.json has it, from which each generation starts its own
/// [`Scheduler`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SchedulerConfig(Arc<dyn Class>);

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
