//! PNDM: Liu et al., "Pseudo Numerical Methods for Diffusion Models on Manifolds"
//! (arXiv:2202.09778), with the Runge-Kutta steps of the paper first or, as Stable Diffusion has
//! it, without; the reference is diffusers' `scheduling_pndm.py`.

use std::sync::Arc;

use tch::{Kind, Tensor};

use super::ddim::whole_times;
use super::prediction::{PREDICTIONS, Prediction, sum};
use super::schedule::{BetaDefaults, Schedule, Spacing};
use super::scheduler::{Class, Noise, Position, Scheduler, first_step};
use crate::error::{Error, Result};
use crate::models::config::Config;

/// Times that the Runge-Kutta steps are taken at.
const ORDER: usize = 4;

#[derive(Debug)]
struct Pndm {
    schedule: Schedule,
    prediction: Prediction,
    spacing: Spacing,
    offset: i64,
    skip_prk: bool,
    final_alpha: f64,
}

pub(super) fn read(config: &Config) -> Result<Arc<dyn Class>> {
    let schedule = Schedule::read(config, BetaDefaults::USUAL, false)?;
    let to_one = config.boolean_or("set_alpha_to_one", false)?;
    Ok(Arc::new(Pndm {
        prediction: Prediction::read(config, &PREDICTIONS[..2])?,
        spacing: Spacing::read(config, "leading")?,
        offset: config.integer_or("steps_offset", 0)?,
        skip_prk: config.boolean_or("skip_prk_steps", false)?,
        final_alpha: if to_one {
            1.
        } else {
            schedule.alpha(0).unwrap_or(1.)
        },
        schedule,
    }))
}

impl Class for Pndm {
    fn start(self: Arc<Self>, steps: usize, strength: f64) -> Result<Box<dyn Scheduler>> {
        let times = whole_times(&self.schedule, self.spacing, self.offset, steps)?;
        let stride = (self.schedule.len() / steps) as i64;
        let (prk, plms) = if self.skip_prk {
            (Vec::new(), twice(&times))
        } else {
            runge_kutta(&times, stride)?
        };
        let position = Position::new([&prk[..], &plms].concat(), first_step(steps, strength));
        Ok(Box::new(Run {
            config: self,
            position,
            stride,
            prk,
            count: 0,
            outputs: Vec::new(),
            start: None,
            sum: None,
        }))
    }
}

/// Falling times, the second of them twice: the first step is taken again from there.
fn twice(times: &[f64]) -> Vec<f64> {
    match times {
        [first, second, ..] => [&[*first, *second], &times[1..]].concat(),
        _ => times.to_vec(),
    }
}

/// The times of the Runge-Kutta steps, and those of the steps after them.
fn runge_kutta(times: &[f64], stride: i64) -> Result<(Vec<f64>, Vec<f64>)> {
    if times.len() < ORDER {
        return Err(Error::config(format!(
            "PNDM's Runge-Kutta steps take {ORDER} steps or more, not {}",
            times.len()
        ))
        .hint("`skip_prk_steps` in scheduler_config.json leaves them out"));
    }
    let half = (stride / 2) as f64;
    // Rising: each of the first four times and half a stride after it, the last left out; of each
    // two, but of the first and last one.
    let mut rising: Vec<f64> = times[..ORDER]
        .iter()
        .rev()
        .flat_map(|&time| [time, time + half])
        .collect();
    rising.pop();
    let twice: Vec<f64> = rising.iter().flat_map(|&time| [time, time]).collect();
    let falling = twice[1..twice.len() - 1].iter().rev().copied().collect();
    Ok((falling, times[ORDER - 1..].to_vec()))
}

#[derive(Debug)]
struct Run {
    config: Arc<Pndm>,
    position: Position,
    stride: i64,
    prk: Vec<f64>,
    /// Steps done.
    count: usize,
    /// What the network said at the times before, the latest last.
    outputs: Vec<Tensor>,
    /// The sample that several steps set out from.
    start: Option<Tensor>,
    /// What of a Runge-Kutta step's outputs is summed up.
    sum: Option<Tensor>,
}

impl Run {
    fn runge_kutta(&mut self, output: &Tensor, sample: &Tensor) -> Result<Tensor> {
        let time = self.position.time()?;
        let next = time
            - if self.count.is_multiple_of(2) {
                self.stride / 2
            } else {
                0
            };
        let stage = self.count % 4;
        let weight = if stage == 0 || stage == 3 {
            1. / 6.
        } else {
            1. / 3.
        };
        let total = match self.sum.take() {
            Some(total) => sum(&[(1., &total), (weight, output)])?,
            None => sum(&[(weight, output)])?,
        };
        if stage == 0 {
            self.outputs.push(output.f_to_kind(Kind::Float)?);
            self.start = Some(sample.shallow_clone());
        }
        let output = if stage == 3 {
            total
        } else {
            self.sum = Some(total);
            output.shallow_clone()
        };
        let from = self.prk[self.count / 4 * 4] as i64;
        let start = self.start.as_ref().unwrap_or(sample);
        self.previous(start, &output, from, next)
    }

    fn multistep(&mut self, output: &Tensor, sample: &Tensor) -> Result<Tensor> {
        let mut time = self.position.time()?;
        let mut next = time - self.stride;
        if self.count == 1 {
            // The first step again, with the mean of what the network says at its start and at its
            // end.
            (time, next) = (time + self.stride, time);
            let output = sum(&[(0.5, output), (0.5, self.outputs.last().unwrap_or(output))])?;
            let start = self.start.take();
            return self.previous(start.as_ref().unwrap_or(sample), &output, time, next);
        }
        if self.outputs.len() == ORDER {
            drop(self.outputs.remove(0));
        }
        self.outputs.push(output.f_to_kind(Kind::Float)?);
        let output = match &self.outputs[..] {
            [first] => {
                self.start = Some(sample.shallow_clone());
                first.shallow_clone()
            }
            [b, a] => sum(&[(1.5, a), (-0.5, b)])?,
            [c, b, a] => sum(&[(23. / 12., a), (-16. / 12., b), (5. / 12., c)])?,
            [d, c, b, a, ..] => sum(&[
                (55. / 24., a),
                (-59. / 24., b),
                (37. / 24., c),
                (-9. / 24., d),
            ])?,
            [] => return Err(Error::bug("an output was not kept")),
        };
        self.previous(sample, &output, time, next)
    }

    /// The sample at `next` from that at `time`: formula 9 of the paper.
    fn previous(&self, sample: &Tensor, output: &Tensor, time: i64, next: i64) -> Result<Tensor> {
        let alpha = |time| {
            self.config
                .schedule
                .alpha(time)
                .unwrap_or(self.config.final_alpha)
        };
        let (now, next) = (alpha(time), alpha(next));
        // The noise that the network predicts, as a sum of sample and output.
        let noise = self.config.prediction.noise(now.sqrt(), (1. - now).sqrt());
        let factor = (now - next) / (now * (1. - next).sqrt() + (now * (1. - now) * next).sqrt());
        sum(&[
            ((next / now).sqrt() + factor * noise.0, sample),
            (factor * noise.1, output),
        ])
    }
}

impl Scheduler for Run {
    fn timesteps(&self) -> &[f64] {
        self.position.walked()
    }

    fn step(&mut self, output: &Tensor, sample: &Tensor, _: &mut Noise<'_>) -> Result<Tensor> {
        let next = if self.count < self.prk.len() {
            self.runge_kutta(output, sample)?
        } else {
            self.multistep(output, sample)?
        };
        self.count += 1;
        self.position.next += 1;
        Ok(next)
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
