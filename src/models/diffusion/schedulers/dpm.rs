//! DPM-Solver++ with several steps' memory: Lu et al., "DPM-Solver++" (arXiv:2211.01095), as an
//! ordinary or a stochastic differential equation; the reference is diffusers'
//! `scheduling_dpmsolver_multistep.py`.

use std::sync::Arc;

use tch::Tensor;

use super::prediction::{Limit, PREDICTIONS, Prediction, choice, refuse, sum};
use super::schedule::{BetaDefaults, Schedule, Spacing, falling, linspace};
use super::scheduler::{Class, Noise, Position, Scheduler, first_step};
use super::sigmas::{FinalSigma, Spread, sigma_at, time_of};
use crate::error::{Error, Result};
use crate::models::config::Config;

/// Below this many steps the last ones are of lower order, where the configuration wants it.
const FEW: usize = 15;

#[derive(Debug)]
struct Dpm {
    schedule: Schedule,
    prediction: Prediction,
    limit: Limit,
    spacing: Spacing,
    offset: i64,
    spread: Spread,
    /// Spread sigmas stand for whole times.
    whole: bool,
    final_sigma: FinalSigma,
    /// Times before this one are picked from: later ones have a lambda below `lambda_min_clipped`.
    usable: usize,
    solver: Solver,
}

#[derive(Debug, Clone, Copy)]
struct Solver {
    order: usize,
    stochastic: bool,
    heun: bool,
    lower_order_final: bool,
    euler_at_final: bool,
}

impl Solver {
    fn read(config: &Config) -> Result<Self> {
        let order = config.integer_or("solver_order", 2)?;
        if !(1..=3).contains(&order) {
            return Err(config.error(format_args!(
                "`solver_order` must be 1, 2 or 3, it is {order}"
            )));
        }
        Ok(Solver {
            order: order as usize,
            // Names of other solvers are taken as diffusers takes them where a scheduler was exchanged.
            stochastic: choice(
                config,
                "algorithm_type",
                "dpmsolver++",
                &[
                    ("dpmsolver++", false),
                    ("sde-dpmsolver++", true),
                    ("deis", false),
                ],
            )?,
            heun: choice(
                config,
                "solver_type",
                "midpoint",
                &[
                    ("midpoint", false),
                    ("heun", true),
                    ("logrho", false),
                    ("bh1", false),
                    ("bh2", false),
                ],
            )?,
            lower_order_final: config.boolean_or("lower_order_final", true)?,
            euler_at_final: config.boolean_or("euler_at_final", false)?,
        })
    }
}

pub(super) fn read(config: &Config) -> Result<Arc<dyn Class>> {
    refuse(
        config,
        &["use_beta_sigmas", "use_flow_sigmas", "use_dynamic_shifting"],
    )?;
    // A network that predicts its variance has more channels; other types are of schedulers that
    // this one was exchanged for.
    if config
        .string_or("variance_type", "fixed")?
        .starts_with("learned")
    {
        return Err(config.error("`variance_type` must not be learned"));
    }
    let schedule = Schedule::read_finite(
        config,
        BetaDefaults::USUAL,
        config.boolean_or("rescale_betas_zero_snr", false)?,
    )?;
    let lambda_min = config.number_or("lambda_min_clipped", f64::NEG_INFINITY)?;
    let usable = (0..schedule.len())
        .rev()
        .find(|&time| lambda(&schedule, time) >= lambda_min)
        .map_or(0, |time| time + 1);
    if usable == 0 {
        return Err(config.error(format_args!(
            "`lambda_min_clipped` of {lambda_min} leaves no time"
        )));
    }
    let spread = Spread::read(config, true)?;
    let cosine = config.string_or("beta_schedule", "linear")? == "squaredcos_cap_v2";
    Ok(Arc::new(Dpm {
        prediction: Prediction::read(config, &PREDICTIONS)?,
        limit: Limit::read(config, None)?,
        spacing: Spacing::read(config, "linspace")?,
        offset: config.integer_or("steps_offset", 0)?,
        whole: spread != Spread::Exponential && !cosine,
        spread,
        final_sigma: FinalSigma::read(config)?,
        schedule,
        usable,
        solver: Solver::read(config)?,
    }))
}

/// Half the logarithm of the signal to noise ratio, in f32 as PyTorch has it.
fn lambda(schedule: &Schedule, time: usize) -> f64 {
    let alpha = schedule.alpha(time as i64).unwrap_or(1.) as f32;
    f64::from(alpha.sqrt().ln() - (1. - alpha).sqrt().ln())
}

impl Dpm {
    /// The times before sigmas are spread, falling and whole.
    fn times(&self, steps: usize) -> Vec<f64> {
        let last = self.usable as f64;
        match self.spacing {
            Spacing::Linspace => linspace(0., last - 1., steps + 1)
                .into_iter()
                .skip(1)
                .rev()
                .map(f64::round_ties_even)
                .collect(),
            Spacing::Leading => {
                let stride = self.usable / (steps + 1);
                (1..=steps)
                    .rev()
                    .map(|step| (step * stride) as f64 + self.offset as f64)
                    .collect()
            }
            Spacing::Trailing => falling(last, self.schedule.len() as f64 / steps as f64),
        }
    }
}

impl Class for Dpm {
    fn start(self: Arc<Self>, steps: usize, strength: f64) -> Result<Box<dyn Scheduler>> {
        self.schedule.check(steps)?;
        let known = self.schedule.sigmas();
        let mut times = self.times(steps);
        let sigmas = match self.spread.sigmas(known[known.len() - 1], known[0], steps) {
            Some(spread) => {
                let time = |&sigma: &f64| {
                    if self.whole {
                        time_of(sigma, &known).round_ties_even()
                    } else {
                        time_of(sigma, &known).trunc()
                    }
                };
                times = spread.iter().map(time).collect();
                spread
            }
            None => times.iter().map(|&time| sigma_at(time, &known)).collect(),
        };
        let begin = first_step(steps, strength);
        if begin >= times.len() {
            return Err(Error::config(format!(
                "`lambda_min_clipped` leaves none of {steps} steps at a strength of {strength}"
            )));
        }
        let sigmas = self.final_sigma.after(sigmas, &known);
        Ok(Box::new(Run {
            position: Position::new(times, begin),
            config: self,
            sigmas,
            pictures: Vec::new(),
        }))
    }
}

#[derive(Debug)]
struct Run {
    config: Arc<Dpm>,
    position: Position,
    /// Of each time, and of the end.
    sigmas: Vec<f64>,
    /// The pictures predicted at the times before, the latest last, as many as the order.
    pictures: Vec<Tensor>,
}

/// The factors of picture and noise in a sample, and half the logarithm of their ratio squared.
#[derive(Debug, Clone, Copy)]
struct Mixture {
    alpha: f64,
    sigma: f64,
    lambda: f64,
}

impl Mixture {
    fn of(sigma: f64) -> Self {
        let alpha = 1. / sigma.hypot(1.);
        Self {
            alpha,
            sigma: sigma * alpha,
            lambda: -sigma.ln(),
        }
    }
}

impl Run {
    /// The order of the step at `index`.
    fn order(&self, index: usize) -> usize {
        let (solver, steps) = (self.config.solver, self.position.timesteps.len());
        let lower = solver.lower_order_final && steps < FEW;
        let last = index + 1 == steps
            && (solver.euler_at_final || lower || self.config.final_sigma == FinalSigma::Zero);
        let before_last = index + 2 == steps && lower;
        let allowed = if last {
            1
        } else if before_last {
            2
        } else {
            3
        };
        solver.order.min(self.pictures.len()).min(allowed)
    }

    /// The factors of the sample and of the pictures, the latest first.
    fn factors(&self, index: usize) -> (f64, Vec<f64>) {
        let at = |index: usize| Mixture::of(self.sigmas[index]);
        let (next, now) = (at(index + 1), at(index));
        let h = next.lambda - now.lambda;
        // `decay` is e^-h, or e^-2h with noise of its own; `first` the integral over a constant
        // picture, `second` over one that changes.
        let rate = if self.config.solver.stochastic {
            2. * h
        } else {
            h
        };
        let decay = (-rate).exp();
        let sample = next.sigma / now.sigma
            * if self.config.solver.stochastic {
                (-h).exp()
            } else {
                1.
            };
        let first = next.alpha * (1. - decay);
        let slope = next.alpha * ((decay - 1.) / rate + 1.);
        match self.order(index) {
            1 => (sample, vec![first]),
            2 => {
                let r = (now.lambda - at(index - 1).lambda) / h;
                let second = if self.config.solver.heun {
                    slope
                } else {
                    0.5 * first
                };
                (sample, vec![first + second / r, -second / r])
            }
            _ => {
                let before = at(index - 1);
                let (r0, r1) = (
                    (now.lambda - before.lambda) / h,
                    (before.lambda - at(index - 2).lambda) / h,
                );
                // The reference has another sign in the stochastic one.
                let half = if self.config.solver.stochastic {
                    -0.5
                } else {
                    0.5
                };
                let curve = next.alpha * ((1. - decay - rate) / rate.powi(2) + half);
                // What the step takes of the two differences between pictures.
                let (newer, older) = (
                    slope * (1. + r0 / (r0 + r1)) + curve / (r0 + r1),
                    -slope * r0 / (r0 + r1) - curve / (r0 + r1),
                );
                (
                    sample,
                    vec![first + newer / r0, -newer / r0 + older / r1, -older / r1],
                )
            }
        }
    }
}

impl Scheduler for Run {
    fn timesteps(&self) -> &[f64] {
        self.position.walked()
    }

    fn step(&mut self, output: &Tensor, sample: &Tensor, noise: &mut Noise<'_>) -> Result<Tensor> {
        let index = self.position.index()?;
        let Mixture { alpha, sigma, .. } = Mixture::of(self.sigmas[index]);
        let picture = self.config.prediction.picture(alpha, sigma);
        let picture = self
            .config
            .limit
            .apply(sum(&[(picture.0, sample), (picture.1, output)])?)?;
        if self.pictures.len() == self.config.solver.order {
            drop(self.pictures.remove(0));
        }
        self.pictures.push(picture);
        let (of_sample, of_pictures) = self.factors(index);
        let mut terms = vec![(of_sample, sample)];
        terms.extend(of_pictures.into_iter().zip(self.pictures.iter().rev()));
        let fresh;
        if self.config.solver.stochastic {
            let (next, now) = (
                Mixture::of(self.sigmas[index + 1]),
                Mixture::of(self.sigmas[index]),
            );
            fresh = noise()?;
            terms.push((
                next.sigma * (1. - (-2. * (next.lambda - now.lambda)).exp()).sqrt(),
                &fresh,
            ));
        }
        self.position.next += 1;
        sum(&terms)
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor) -> Result<Tensor> {
        let Mixture { alpha, sigma, .. } = Mixture::of(self.sigmas[self.position.index()?]);
        sum(&[(alpha, original), (sigma, noise)])
    }
}
