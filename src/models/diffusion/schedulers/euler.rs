//! Euler's method, plain and ancestral, after Karras et al., "Elucidating the Design Space of
//! Diffusion-Based Generative Models" (arXiv:2206.00364) and k-diffusion; the reference is
//! diffusers' `scheduling_euler_discrete.py` and `scheduling_euler_ancestral_discrete.py`.

use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use super::prediction::{PREDICTIONS, Prediction, choice, refuse, sum};
use super::schedule::{BetaDefaults, Schedule, Spacing};
use super::scheduler::{Class, Noise, Position, Scheduler, first_step};
use super::sigmas::{FinalSigma, Spread, sigma_at, time_of};
use crate::error::Result;
use crate::models::config::Config;

#[derive(Debug)]
struct Euler {
    schedule: Schedule,
    prediction: Prediction,
    spacing: Spacing,
    offset: i64,
    spread: Spread,
    /// Bounds of spread sigmas, where the configuration sets them.
    bounds: [Option<f64>; 2],
    log_linear: bool,
    /// The network takes a quarter of sigma's logarithm for the time.
    continuous: bool,
    final_sigma: FinalSigma,
    ancestral: bool,
}

fn common(config: &Config, predictions: &[(&str, Prediction)]) -> Result<Euler> {
    Ok(Euler {
        schedule: Schedule::read_finite(
            config,
            BetaDefaults::USUAL,
            config.boolean_or("rescale_betas_zero_snr", false)?,
        )?,
        prediction: Prediction::read(config, predictions)?,
        spacing: Spacing::read(config, "linspace")?,
        offset: config.integer_or("steps_offset", 0)?,
        spread: Spread::Times,
        bounds: [None; 2],
        log_linear: false,
        continuous: false,
        final_sigma: FinalSigma::Zero,
        ancestral: false,
    })
}

pub(super) fn read(config: &Config) -> Result<Arc<dyn Class>> {
    refuse(config, &["use_beta_sigmas"])?;
    let [epsilon, velocity, sample] = PREDICTIONS;
    let common = common(
        config,
        &[
            epsilon,
            velocity,
            sample,
            ("original_sample", Prediction::Sample),
        ],
    )?;
    let bound = |field| {
        config
            .field(field)
            .map(|_| config.number(field))
            .transpose()
    };
    let bounds = [bound("sigma_min")?, bound("sigma_max")?];
    if bounds.iter().flatten().any(|&bound| bound <= 0.) {
        return Err(config.error("`sigma_min` and `sigma_max` must be above 0"));
    }
    Ok(Arc::new(Euler {
        spread: Spread::read(config, false)?,
        bounds,
        log_linear: choice(
            config,
            "interpolation_type",
            "linear",
            &[("linear", false), ("log_linear", true)],
        )?,
        continuous: choice(
            config,
            "timestep_type",
            "discrete",
            &[("discrete", false), ("continuous", true)],
        )? && common.prediction == Prediction::Velocity,
        final_sigma: FinalSigma::read(config)?,
        ..common
    }))
}

pub(super) fn read_ancestral(config: &Config) -> Result<Arc<dyn Class>> {
    Ok(Arc::new(Euler {
        ancestral: true,
        ..common(config, &PREDICTIONS[..2])?
    }))
}

impl Class for Euler {
    fn start(self: Arc<Self>, steps: usize, strength: f64) -> Result<Box<dyn Scheduler>> {
        self.schedule.check(steps)?;
        // f32, as PyTorch is given them.
        let mut times: Vec<f64> = self
            .spacing
            .times(self.schedule.len(), steps, self.offset)
            .into_iter()
            .map(|time| f64::from(time as f32))
            .collect();
        let known = self.schedule.sigmas();
        let mut sigmas: Vec<f64> = if self.log_linear {
            log_linear(&known, steps)?
        } else {
            times.iter().map(|&time| sigma_at(time, &known)).collect()
        };
        let (max, min) = (
            self.bounds[1].unwrap_or(sigmas[0]),
            self.bounds[0].unwrap_or(sigmas[sigmas.len() - 1]),
        );
        if let Some(spread) = self.spread.sigmas(max, min, steps) {
            times = spread
                .iter()
                .map(|&sigma| f64::from(time_of(sigma, &known) as f32))
                .collect();
            sigmas = spread;
        }
        let sigmas = self.final_sigma.after(sigmas, &known);
        if self.continuous {
            times = sigmas[..sigmas.len() - 1]
                .iter()
                .map(|sigma| 0.25 * sigma.ln())
                .collect();
        }
        Ok(Box::new(Run {
            position: Position::new(times, first_step(steps, strength)),
            config: self,
            sigmas,
        }))
    }
}

/// Sigmas between the first and last of the training by the logarithm; one more than steps, for
/// none of them is the end.
fn log_linear(known: &[f64], steps: usize) -> Result<Vec<f64>> {
    let log = |sigma: f64| f64::from(sigma.ln() as f32);
    let sigmas = Tensor::f_linspace(
        log(known[known.len() - 1]),
        log(known[0]),
        steps as i64 + 1,
        (Kind::Float, Device::Cpu),
    )?
    .f_exp()?;
    Ok(Vec::<f32>::try_from(&sigmas)?
        .into_iter()
        .map(f64::from)
        .collect())
}

#[derive(Debug)]
struct Run {
    config: Arc<Euler>,
    position: Position,
    /// Of each time, and of the end.
    sigmas: Vec<f64>,
}

impl Scheduler for Run {
    fn timesteps(&self) -> &[f64] {
        self.position.walked()
    }

    fn init_noise_sigma(&self) -> f64 {
        let max = self.sigmas.iter().copied().fold(0., f64::max);
        if self.config.spacing == Spacing::Leading {
            max.hypot(1.)
        } else {
            max
        }
    }

    fn scale_model_input(&self, sample: &Tensor) -> Result<Tensor> {
        sum(&[(1. / self.sigmas[self.position.index()?].hypot(1.), sample)])
    }

    fn step(&mut self, output: &Tensor, sample: &Tensor, noise: &mut Noise<'_>) -> Result<Tensor> {
        let index = self.position.index()?;
        let (sigma, next) = (self.sigmas[index], self.sigmas[index + 1]);
        // The sample is picture + sigma * noise; what the network saw of it is `alpha` times that.
        let alpha = 1. / sigma.hypot(1.);
        let picture = match self.config.prediction {
            Prediction::Epsilon => (1., -sigma),
            Prediction::Velocity => (alpha * alpha, -sigma * alpha),
            Prediction::Sample => (0., 1.),
        };
        let up = if self.config.ancestral {
            (next.powi(2) * (sigma.powi(2) - next.powi(2)) / sigma.powi(2)).sqrt()
        } else {
            0.
        };
        let down = (next.powi(2) - up.powi(2)).sqrt();
        // Along (sample - picture) / sigma, from sigma to down.
        let way = (down - sigma) / sigma;
        let factors = (1. + way * (1. - picture.0), -way * picture.1);
        self.position.next += 1;
        if self.config.ancestral {
            return sum(&[(factors.0, sample), (factors.1, output), (up, &noise()?)]);
        }
        sum(&[(factors.0, sample), (factors.1, output)])
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor) -> Result<Tensor> {
        sum(&[(1., original), (self.sigmas[self.position.index()?], noise)])
    }
}
