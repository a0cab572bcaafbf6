//! From requests to pictures: latents are drawn or encoded, denoised side by side, and decoded.
//! Each picture has its own schedule and its own noise, so that one can leave the batch between two
//! steps.

use std::rc::Rc;

use tch::{Kind, Tensor};

use super::prompts::{Prompt, Said, side_by_side};
use super::request::{Painting, Request, Source, Start};
use super::{Family, Pipeline, batch};
use crate::error::{Error, Result};
use crate::models::diffusion::noise::Generator;
use crate::models::diffusion::pixels;
use crate::models::diffusion::schedulers::Scheduler;
use crate::models::diffusion::unet::{Condition, UNet};
use crate::tensor::{Device, Precision, resize};

/// A picture under way.
struct Canvas {
    /// Its place among the requests.
    index: usize,
    scheduler: Box<dyn Scheduler>,
    noise: Generator,
    /// `[1, c, h, w]`, f32.
    latents: Tensor,
    /// What it shows, after what it does not show where it is guided.
    said: Vec<Rc<Prompt>>,
}

/// What pictures that are denoised together have in common.
struct Together {
    /// Height and width in pixels.
    size: [i64; 2],
    guidance: f64,
    /// Whether each picture is asked about twice, with its prompt and with its negative one.
    guided: bool,
}

impl Pipeline {
    /// Pictures that go together, in their order; none where one was cancelled.
    pub(super) fn paint_together(
        &mut self,
        requests: &[&Request],
        cancelled: &dyn Fn(usize) -> bool,
    ) -> Result<Vec<Option<Painting>>> {
        let first = requests
            .first()
            .ok_or_else(|| Error::bug("a batch of no pictures"))?;
        let guided = first.guidance > 1. && !self.distilled;
        let together = Together {
            size: [first.height, first.width],
            guidance: first.guidance,
            guided,
        };
        let mut said: Vec<Said> = Vec::new();
        for request in requests {
            if guided {
                said.push(self.unsaid(request));
            }
            said.push(Said::Text(request.prompt.clone()));
        }
        let fresh = self.prompts.encode(&said)?;
        let mut canvases = self.begin(requests)?;
        let (prompts, family) = (&mut self.prompts, self.family);
        self.unet.with(|unet| {
            let read = prompts.read(&said, fresh, unet)?;
            let each = read.len() / canvases.len();
            canvases
                .iter_mut()
                .zip(read.chunks(each))
                .for_each(|(canvas, said)| canvas.said = said.to_vec());
            denoise(&mut canvases, &together, (unet, family), cancelled)
        })?;
        self.finish(canvases, requests.len())
    }

    fn unsaid(&self, request: &Request) -> Said {
        match &request.negative_prompt {
            Some(text) => Said::Text(text.clone()),
            None if self.zeros => Said::Nothing,
            None => Said::Text(String::new()),
        }
    }

    /// The latents that denoising begins with.
    fn begin(&mut self, requests: &[&Request]) -> Result<Vec<Canvas>> {
        let mut canvases = Vec::with_capacity(requests.len());
        for (index, request) in requests.iter().enumerate() {
            let scheduler = self.schedule(request)?;
            let (noise, latents) = (
                Generator::seeded(request.seed),
                Tensor::f_empty([0], (Kind::Float, self.device))?,
            );
            canvases.push(Canvas {
                index,
                scheduler,
                noise,
                latents,
                said: Vec::new(),
            });
        }
        let sources: Vec<&Source> = requests
            .iter()
            .filter_map(|request| request.start.source())
            .collect();
        let encoded = if sources.is_empty() {
            None
        } else {
            Some(self.encode(&sources, requests, &mut canvases)?)
        };
        for (at, (canvas, request)) in canvases.iter_mut().zip(requests).enumerate() {
            let noise = canvas
                .noise
                .normal(&self.latent_size(request), self.device)?;
            canvas.latents = match &encoded {
                Some(encoded) => canvas
                    .scheduler
                    .add_noise(&encoded.f_narrow(0, at as i64, 1)?, &noise)?,
                None => noise.f_mul_scalar(canvas.scheduler.init_noise_sigma())?,
            };
        }
        Ok(canvases)
    }

    /// The latents of the pictures that others are made from, with those of the pictures before in
    /// them: `[n, c, h, w]`, f32.
    fn encode(
        &mut self,
        sources: &[&Source],
        requests: &[&Request],
        canvases: &mut [Canvas],
    ) -> Result<Tensor> {
        let (device, size) = (self.device, self.latent_size(requests[0]));
        let [height, width] = [requests[0].height, requests[0].width];
        let mut pictures = Vec::with_capacity(sources.len());
        for source in sources {
            let picture = pixels::from_bytes(
                &source.pixels.f_to_device(device)?.f_unsqueeze(0)?,
                Precision::F32,
            )?;
            pictures.push(resize(&picture, height, width)?);
        }
        let pictures = batch(&pictures)?;
        let mut draw = || {
            batch(
                &canvases
                    .iter_mut()
                    .map(|canvas| canvas.noise.normal(&size, device))
                    .collect::<Result<Vec<_>>>()?,
            )
        };
        let latents = self.vae.with(|vae| vae.to_latents(&pictures, &mut draw))?;
        for (at, source) in sources.iter().enumerate() {
            if let Some((before, part)) = &source.previous {
                mix_in(&latents.f_get(at as i64)?, before, *part)?;
            }
        }
        Ok(latents)
    }

    /// The pictures of latents that are done.
    fn finish(&mut self, canvases: Vec<Canvas>, count: usize) -> Result<Vec<Option<Painting>>> {
        let mut paintings: Vec<Option<Painting>> = (0..count).map(|_| None).collect();
        if canvases.is_empty() {
            return Ok(paintings);
        }
        let latents = batch(canvases.iter().map(|canvas| &canvas.latents))?;
        let pictures = self.vae.with(|vae| vae.to_pictures(&latents))?;
        let (pixels, latents) = (
            pixels::to_bytes(&pictures)?.f_to_device(Device::Cpu)?,
            latents.f_to_device(Device::Cpu)?,
        );
        for (at, canvas) in canvases.iter().enumerate() {
            // Copies, so that one picture does not hold the memory of all.
            let one = |all: &Tensor| -> Result<Tensor> {
                {
                    let one = all.f_get(at as i64)?;
                    let mut copy = one.f_empty_like()?;
                    copy.f_copy_(&one)?;
                    Ok(copy)
                }
            };
            paintings[canvas.index] = Some(Painting {
                pixels: one(&pixels)?,
                latents: one(&latents)?,
            });
        }
        Ok(paintings)
    }
}

impl Start {
    fn source(&self) -> Option<&Source> {
        match self {
            Self::Noise => None,
            Self::Picture(source) => Some(source),
        }
    }
}

/// Changes `latents` to what lies between them and `before`: at 0 themselves, at 1 those.
fn mix_in(latents: &Tensor, before: &Tensor, part: f64) -> Result<()> {
    let before = before
        .f_to_device(latents.device())?
        .f_to_kind(latents.kind())?;
    let mut place = latents.shallow_clone();
    Ok(place.f_copy_(&latents.f_lerp(&before, part)?)?)
}

/// Walks every schedule to its end; canvases that are cancelled leave.
fn denoise(
    canvases: &mut Vec<Canvas>,
    together: &Together,
    (unet, family): (&UNet, Family),
    cancelled: &dyn Fn(usize) -> bool,
) -> Result<()> {
    let mut condition = None;
    let steps = canvases
        .first()
        .map_or(0, |canvas| canvas.scheduler.timesteps().len());
    for step in 0..steps {
        let before = canvases.len();
        canvases.retain(|canvas| !cancelled(canvas.index));
        if canvases.is_empty() {
            return Ok(());
        }
        if canvases.len() < before {
            condition = None;
        }
        let condition = match &mut condition {
            Some(condition) => condition,
            none => none.insert(condition_of(canvases, together, unet, family)?),
        };
        let inputs = canvases
            .iter()
            .map(|canvas| canvas.scheduler.scale_model_input(&canvas.latents))
            .collect::<Result<Vec<_>>>()?;
        let inputs = batch(&inputs)?;
        let inputs = if together.guided {
            Tensor::f_cat(&[&inputs, &inputs], 0)?
        } else {
            inputs
        };
        let outputs = unet
            .forward(&inputs, canvases[0].scheduler.timesteps()[step], condition)?
            .f_to_kind(Kind::Float)?;
        let outputs = if together.guided {
            guide(&outputs, together.guidance)?
        } else {
            outputs
        };
        for (at, canvas) in canvases.iter_mut().enumerate() {
            let (size, device) = (canvas.latents.size(), canvas.latents.device());
            let noise = &mut canvas.noise;
            let output = outputs.f_narrow(0, at as i64, 1)?;
            canvas.latents = canvas.scheduler.step(&output, &canvas.latents, &mut || {
                noise.normal(&size, device)
            })?;
        }
    }
    Ok(())
}

/// From what was not wanted, past what was, `scale` times the way.
fn guide(outputs: &Tensor, scale: f64) -> Result<Tensor> {
    let half = outputs.size()[0] / 2;
    let (unwanted, wanted) = (
        outputs.f_narrow(0, 0, half)?,
        outputs.f_narrow(0, half, half)?,
    );
    Ok(unwanted.f_lerp(&wanted, scale)?)
}

/// What the network is told in every step: all negative prompts, then all prompts.
fn condition_of(
    canvases: &[Canvas],
    together: &Together,
    unet: &UNet,
    family: Family,
) -> Result<Condition> {
    let each = canvases.first().map_or(0, |canvas| canvas.said.len());
    let said: Vec<&Rc<Prompt>> = (0..each)
        .flat_map(|turn| canvases.iter().map(move |canvas| &canvas.said[turn]))
        .collect();
    let added = match family {
        Family::Sd => None,
        Family::Xl => {
            let pooled = said.iter().filter_map(|prompt| prompt.pooled.as_ref());
            let [height, width] = together.size.map(|side| side as f64);
            Some(unet.added(&batch(pooled)?, [height, width, 0., 0., height, width])?)
        }
    };
    Ok(Condition {
        keys: side_by_side(&said)?,
        added,
        guidance: unet.guidance(together.guidance)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_before_is_mixed_in_by_its_part() {
        let both = Tensor::from_slice(&[1f32, 2., 3., 4.]).view([2, 2]);
        mix_in(&both.get(1), &Tensor::from_slice(&[5f32, 0.]), 0.25).unwrap();
        assert_eq!(
            Vec::<f32>::try_from(both.view(-1)).unwrap(),
            [1., 2., 3.5, 3.]
        );
    }

    #[test]
    fn guidance_goes_past_what_is_wanted() {
        let outputs = Tensor::from_slice(&[1f32, 10., 2., 8.]).view([2, 2]);
        assert_eq!(
            Vec::<f32>::try_from(guide(&outputs, 3.).unwrap().view(-1)).unwrap(),
            [4., 4.]
        );
    }
}
