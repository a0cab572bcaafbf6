//! From requests to pictures: latents are drawn or encoded, denoised side by side, and decoded.
//! Each picture has its own schedule and its own noise, so that one can leave the batch between two
//! steps.

use std::rc::Rc;

use tch::{Kind, Tensor};

use super::family::Family;
use super::prompts::{Prompt, PromptInput, concatenated};
use super::request::{DiffusionRequest, GeneratedPicture, Source, Start};
use super::{Pipeline, batch};
use crate::error::{Error, Result};
use crate::models::diffusion::noise::Generator;
use crate::models::diffusion::pixels;
use crate::models::diffusion::schedulers::Scheduler;
use crate::models::diffusion::unet::{Condition, UNet};
use crate::tensor::{Device, Precision, resize};

/// A picture under way.
struct Sample {
    /// Its index among the requests.
    index: usize,
    scheduler: Box<dyn Scheduler>,
    noise: Generator,
    /// `[1, c, h, w]`, f32.
    latents: Tensor,
    /// What it shows, after what it does not show where it is guided.
    prompts: Vec<Rc<Prompt>>,
}

/// What pictures that are denoised together have in common.
struct BatchParams {
    /// Height and width in pixels.
    size: [i64; 2],
    guidance: f64,
    /// Whether each picture is asked about twice, with its prompt and with its negative one.
    guided: bool,
}

impl Pipeline {
    /// Pictures of one batch, in their order; none where one was cancelled.
    pub(super) fn generate_batch(
        &mut self,
        requests: &[&DiffusionRequest],
        cancelled: &dyn Fn(usize) -> bool,
    ) -> Result<Vec<Option<GeneratedPicture>>> {
        let first = requests
            .first()
            .ok_or_else(|| Error::bug("a batch of no pictures"))?;
        let guided = first.guidance > 1. && !self.distilled;
        let params = BatchParams {
            size: [first.height, first.width],
            guidance: first.guidance,
            guided,
        };
        let mut inputs: Vec<PromptInput> = Vec::new();
        for request in requests {
            if guided {
                inputs.push(self.negative_input(request));
            }
            inputs.push(PromptInput::Text(request.prompt.clone()));
        }
        let uncached = self.prompts.encode(&inputs)?;
        let mut samples = self.prepare_latents(requests)?;
        let (prompts, family) = (&mut self.prompts, self.family);
        self.unet.with(|unet| {
            let read = prompts.read(&inputs, uncached, unet)?;
            let each = read.len() / samples.len();
            samples
                .iter_mut()
                .zip(read.chunks(each))
                .for_each(|(sample, prompts)| sample.prompts = prompts.to_vec());
            denoise(&mut samples, &params, (unet, family), cancelled)
        })?;
        self.decode_latents(samples, requests.len())
    }

    fn negative_input(&self, request: &DiffusionRequest) -> PromptInput {
        match &request.negative_prompt {
            Some(text) => PromptInput::Text(text.clone()),
            None if self.zeros => PromptInput::Zeros,
            None => PromptInput::Text(String::new()),
        }
    }

    /// The latents that denoising begins with.
    fn prepare_latents(&mut self, requests: &[&DiffusionRequest]) -> Result<Vec<Sample>> {
        let mut samples = Vec::with_capacity(requests.len());
        for (index, request) in requests.iter().enumerate() {
            let scheduler = self.schedule(request)?;
            let (noise, latents) = (
                Generator::seeded(request.seed),
                Tensor::f_empty([0], (Kind::Float, self.device))?,
            );
            samples.push(Sample {
                index,
                scheduler,
                noise,
                latents,
                prompts: Vec::new(),
            });
        }
        let sources: Vec<&Source> = requests
            .iter()
            .filter_map(|request| request.start.source())
            .collect();
        let encoded = if sources.is_empty() {
            None
        } else {
            Some(self.encode_pictures(&sources, requests, &mut samples)?)
        };
        for (at, (sample, request)) in samples.iter_mut().zip(requests).enumerate() {
            let noise = sample
                .noise
                .normal(&self.latent_size(request), self.device)?;
            sample.latents = match &encoded {
                Some(encoded) => sample
                    .scheduler
                    .add_noise(&encoded.f_narrow(0, at as i64, 1)?, &noise)?,
                None => noise.f_mul_scalar(sample.scheduler.init_noise_sigma())?,
            };
        }
        Ok(samples)
    }

    /// The latents of the pictures that others are made from, with those of the pictures before in
    /// them: `[n, c, h, w]`, f32.
    fn encode_pictures(
        &mut self,
        sources: &[&Source],
        requests: &[&DiffusionRequest],
        samples: &mut [Sample],
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
                &samples
                    .iter_mut()
                    .map(|sample| sample.noise.normal(&size, device))
                    .collect::<Result<Vec<_>>>()?,
            )
        };
        let latents = self.vae.with(|vae| vae.to_latents(&pictures, &mut draw))?;
        for (at, source) in sources.iter().enumerate() {
            if let Some((before, part)) = &source.previous {
                blend_latents(&latents.f_get(at as i64)?, before, *part)?;
            }
        }
        Ok(latents)
    }

    /// The pictures of latents that are done.
    fn decode_latents(
        &mut self,
        samples: Vec<Sample>,
        count: usize,
    ) -> Result<Vec<Option<GeneratedPicture>>> {
        let mut generated: Vec<Option<GeneratedPicture>> = (0..count).map(|_| None).collect();
        if samples.is_empty() {
            return Ok(generated);
        }
        let latents = batch(samples.iter().map(|sample| &sample.latents))?;
        let pictures = self.vae.with(|vae| vae.to_pictures(&latents))?;
        let (pixels, latents) = (
            pixels::to_bytes(&pictures)?.f_to_device(Device::Cpu)?,
            latents.f_to_device(Device::Cpu)?,
        );
        for (at, sample) in samples.iter().enumerate() {
            // Copies, so that one picture does not hold the memory of all.
            let one = |all: &Tensor| -> Result<Tensor> {
                {
                    let one = all.f_get(at as i64)?;
                    let mut copy = one.f_empty_like()?;
                    copy.f_copy_(&one)?;
                    Ok(copy)
                }
            };
            generated[sample.index] = Some(GeneratedPicture {
                pixels: one(&pixels)?,
                latents: one(&latents)?,
            });
        }
        Ok(generated)
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
fn blend_latents(latents: &Tensor, before: &Tensor, part: f64) -> Result<()> {
    let before = before
        .f_to_device(latents.device())?
        .f_to_kind(latents.kind())?;
    let mut target = latents.shallow_clone();
    Ok(target.f_copy_(&latents.f_lerp(&before, part)?)?)
}

/// Walks every schedule to its end; samples that are cancelled leave.
fn denoise(
    samples: &mut Vec<Sample>,
    params: &BatchParams,
    (unet, family): (&UNet, Family),
    cancelled: &dyn Fn(usize) -> bool,
) -> Result<()> {
    let mut condition = None;
    let steps = samples
        .first()
        .map_or(0, |sample| sample.scheduler.timesteps().len());
    for step in 0..steps {
        let before = samples.len();
        samples.retain(|sample| !cancelled(sample.index));
        if samples.is_empty() {
            return Ok(());
        }
        if samples.len() < before {
            condition = None;
        }
        let condition = match &mut condition {
            Some(condition) => condition,
            none => none.insert(build_condition(samples, params, unet, family)?),
        };
        let inputs = samples
            .iter()
            .map(|sample| sample.scheduler.scale_model_input(&sample.latents))
            .collect::<Result<Vec<_>>>()?;
        let inputs = batch(&inputs)?;
        let inputs = if params.guided {
            Tensor::f_cat(&[&inputs, &inputs], 0)?
        } else {
            inputs
        };
        let outputs = unet
            .forward(&inputs, samples[0].scheduler.timesteps()[step], condition)?
            .f_to_kind(Kind::Float)?;
        let outputs = if params.guided {
            apply_guidance(&outputs, params.guidance)?
        } else {
            outputs
        };
        for (at, sample) in samples.iter_mut().enumerate() {
            let (size, device) = (sample.latents.size(), sample.latents.device());
            let noise = &mut sample.noise;
            let output = outputs.f_narrow(0, at as i64, 1)?;
            sample.latents = sample.scheduler.step(&output, &sample.latents, &mut || {
                noise.normal(&size, device)
            })?;
        }
    }
    Ok(())
}

/// From what was not wanted, past what was, `scale` times the way.
fn apply_guidance(outputs: &Tensor, scale: f64) -> Result<Tensor> {
    let half = outputs.size()[0] / 2;
    let (unwanted, wanted) = (
        outputs.f_narrow(0, 0, half)?,
        outputs.f_narrow(0, half, half)?,
    );
    Ok(unwanted.f_lerp(&wanted, scale)?)
}

/// What conditions the network in every step: all negative prompts, then all prompts.
fn build_condition(
    samples: &[Sample],
    params: &BatchParams,
    unet: &UNet,
    family: Family,
) -> Result<Condition> {
    let each = samples.first().map_or(0, |sample| sample.prompts.len());
    let ordered: Vec<&Rc<Prompt>> = (0..each)
        .flat_map(|turn| samples.iter().map(move |sample| &sample.prompts[turn]))
        .collect();
    let added = match family {
        Family::Sd => None,
        Family::Xl => {
            let pooled = ordered.iter().filter_map(|prompt| prompt.pooled.as_ref());
            let [height, width] = params.size.map(|side| side as f64);
            Some(unet.added(&batch(pooled)?, [height, width, 0., 0., height, width])?)
        }
    };
    Ok(Condition {
        keys: concatenated(&ordered)?,
        added,
        guidance: unet.guidance(params.guidance)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_before_is_mixed_in_by_its_part() {
        let both = Tensor::from_slice(&[1f32, 2., 3., 4.]).view([2, 2]);
        blend_latents(&both.get(1), &Tensor::from_slice(&[5f32, 0.]), 0.25).unwrap();
        assert_eq!(
            Vec::<f32>::try_from(both.view(-1)).unwrap(),
            [1., 2., 3.5, 3.]
        );
    }

    #[test]
    fn guidance_goes_past_what_is_wanted() {
        let outputs = Tensor::from_slice(&[1f32, 10., 2., 8.]).view([2, 2]);
        assert_eq!(
            Vec::<f32>::try_from(apply_guidance(&outputs, 3.).unwrap().view(-1)).unwrap(),
            [4., 4.]
        );
    }
}
