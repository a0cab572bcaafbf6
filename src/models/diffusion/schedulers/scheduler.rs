//! What every scheduler does, and what schedulers share: a way that one generation walks, and how far
//! it is on it.

use std::fmt::Debug;
use std::sync::Arc;

use tch::Tensor;

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

/// A class of diffusers', configured.
pub(super) trait Class: Debug + Send + Sync {
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

/// The index of the first of `steps` that are walked at `strength`, as diffusers' image-to-image
/// pipelines count.
pub(super) fn first_step(steps: usize, strength: f64) -> usize {
    steps - ((steps as f64 * strength) as usize).min(steps)
}

/// How far a generation is on its schedule.
#[derive(Debug)]
pub(super) struct Position {
    pub(super) timesteps: Vec<f64>,
    pub(super) begin: usize,
    pub(super) next: usize,
}

impl Position {
    pub(super) fn new(timesteps: Vec<f64>, begin: usize) -> Self {
        Self {
            timesteps,
            begin,
            next: begin,
        }
    }

    pub(super) fn walked(&self) -> &[f64] {
        &self.timesteps[self.begin..]
    }

    /// The index of the next step.
    pub(super) fn index(&self) -> Result<usize> {
        if self.next < self.timesteps.len() {
            Ok(self.next)
        } else {
            Err(Error::bug(
                "a scheduler was asked for more steps than it has",
            ))
        }
    }

    /// The time of the next step, where times are whole.
    pub(super) fn time(&self) -> Result<i64> {
        Ok(self.timesteps[self.index()?] as i64)
    }
}
