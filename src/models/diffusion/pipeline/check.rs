//! Which requests a pipeline can meet, and the way and the latents that each of them needs.

use tch::Kind;

use super::Pipeline;
use super::request::{DiffusionRequest, MAX_SIDE, Start};
use crate::error::{Error, Result};
use crate::models::diffusion::schedulers::Scheduler;

impl Pipeline {
    /// Refuses a request that [`generate`](Self::generate) would fail on.
    ///
    /// # Errors
    /// Config, where a parameter has no meaning; model, where the picture it starts from has
    /// another shape.
    pub fn check(&self, request: &DiffusionRequest) -> Result<()> {
        let factor = self.factor();
        let fits = |side: i64| side > 0 && side <= MAX_SIDE && side % factor == 0;
        if !fits(request.width) || !fits(request.height) {
            let (width, height) = (request.width, request.height);
            return Err(
                Error::config(format!("a picture of {width}x{height} cannot be painted")).hint(
                    format!("its sides must be multiples of {factor}, at most {MAX_SIDE}"),
                ),
            );
        }
        if !request.guidance.is_finite() {
            return Err(Error::config(format!(
                "a guidance of {} has no meaning",
                request.guidance
            )));
        }
        self.schedule(request)?;
        let Start::Picture(source) = &request.start else {
            return Ok(());
        };
        let size = source.pixels.size();
        if size.len() != 3
            || size[2] != 3
            || size.contains(&0)
            || source.pixels.kind() != Kind::Uint8
        {
            return Err(Error::model(format!(
                "a picture must be bytes [h, w, 3], got {:?} {size:?}",
                source.pixels.kind()
            )));
        }
        let Some((latents, part)) = &source.previous else {
            return Ok(());
        };
        let wanted = self.latent_size(request);
        if latents.size() != wanted[1..] {
            return Err(Error::model(format!(
                "the picture before has latents {:?}, this one {:?}",
                latents.size(),
                &wanted[1..]
            )));
        }
        if !(0. ..=1.).contains(part) {
            return Err(Error::config(format!(
                "the picture before can have a part of 0 to 1, not {part}"
            )));
        }
        Ok(())
    }

    /// The way from noise, or from a noisy picture, to the picture.
    pub(super) fn schedule(&self, request: &DiffusionRequest) -> Result<Box<dyn Scheduler>> {
        match self.consistent {
            true => self
                .scheduler
                .start_within(request.steps, request.strength()),
            false => self.scheduler.start(request.steps, request.strength()),
        }
    }

    /// `[1, c, h, w]`.
    pub(super) fn latent_size(&self, request: &DiffusionRequest) -> [i64; 4] {
        [
            1,
            self.channels,
            request.height / self.factor(),
            request.width / self.factor(),
        ]
    }
}
