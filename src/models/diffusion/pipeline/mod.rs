//! Whole pipelines of the Stable Diffusion family, from folders in Diffusers' layout: a prompt, and
//! perhaps a picture, to a picture. Rombach et al., "High-Resolution Image Synthesis with Latent
//! Diffusion Models" (arXiv:2112.10752); the reference is Diffusers' `StableDiffusionPipeline` and
//! its kin, whose pictures seeds give here too.

mod check;
mod denoise;
mod family;
mod prompts;
mod request;
#[cfg(test)]
mod tests;

pub use request::{DiffusionRequest, GeneratedPicture, Source, Start};

use tch::{Device, Tensor};

use self::family::Family;
use self::prompts::{Placement, Prompts};
use super::autoencoder::Autoencoder;
use super::schedulers::SchedulerConfig;
use super::unet::UNet;
use super::vae_options::VaeOptions;
use crate::error::{Error, Result};
use crate::models::config::Config;
use crate::models::folder::ModelFolder;
use crate::models::network_spec::{Load, NetworkSpec, NetworkTask};
use crate::models::offload::Offloaded;
use crate::tensor::{Precision, guard};

/// Its entry in the table of networks. Diffusers' names say what a folder was saved from; here each
/// makes pictures from noise and from pictures.
pub const NETWORK: NetworkSpec = NetworkSpec {
    classes: &[
        ("StableDiffusionPipeline", NetworkTask::GeneratePictures),
        (
            "StableDiffusionImg2ImgPipeline",
            NetworkTask::GeneratePictures,
        ),
        ("StableDiffusionXLPipeline", NetworkTask::GeneratePictures),
        (
            "StableDiffusionXLImg2ImgPipeline",
            NetworkTask::GeneratePictures,
        ),
        (
            "LatentConsistencyModelPipeline",
            NetworkTask::GeneratePictures,
        ),
        (
            "LatentConsistencyModelImg2ImgPipeline",
            NetworkTask::GeneratePictures,
        ),
    ],
    load: Load::Checked(|folder, device, precision| {
        Pipeline::load(folder, device, precision, DiffusionOptions::default()).map(drop)
    }),
};

/// How memory is saved, beside the way that the folder's attentions are computed in.
#[derive(Debug, Clone, Copy, Default)]
pub struct DiffusionOptions {
    /// What the autoencoder does with many or large pictures.
    pub vae: VaeOptions,
    /// Whether parts lie on the CPU until they are used. Without effect on a CPU.
    pub offload: bool,
}

/// A pipeline with its weights.
#[derive(Debug)]
pub struct Pipeline {
    prompts: Prompts,
    unet: Offloaded<UNet>,
    vae: Offloaded<Autoencoder>,
    scheduler: SchedulerConfig,
    family: Family,
    /// Whether it is a latent consistency model, which walks all steps whatever the strength.
    consistent: bool,
    /// Whether guidance is in its weights, so that no step asks twice.
    distilled: bool,
    /// Whether no negative prompt is nothing at all, not the empty text.
    zeros: bool,
    factor: i64,
    channels: i64,
    size: i64,
    device: Device,
    precision: Precision,
}

impl Pipeline {
    /// The pipeline of a folder whose class is one of [`NETWORK`]'s.
    ///
    /// # Errors
    /// Config, where the folder is another's or lacks a part; model, where a part's config or
    /// weights do not fit; overload, where memory is short.
    pub fn load(
        folder: &ModelFolder,
        device: Device,
        precision: Precision,
        options: DiffusionOptions,
    ) -> Result<Self> {
        let _frozen = guard();
        let class = folder.architecture()?;
        if NETWORK.task(class).is_none() {
            let known: Vec<&str> = NETWORK.classes.iter().map(|(name, _)| *name).collect();
            return Err(Error::config(format!(
                "{}: no pipeline here is called {class}",
                folder.path().display()
            ))
            .hint(format!("one of {}", known.join(", "))));
        }
        let family = if class.contains("XL") {
            Family::Xl
        } else {
            Family::Sd
        };
        let index = folder.config();
        if index.boolean_or("requires_aesthetics_score", false)? {
            return Err(index.error(
                "`requires_aesthetics_score` marks SDXL's refiner, which is not read here",
            ));
        }
        let placement = Placement {
            device,
            precision,
            offload: options.offload,
        };
        let part = folder.part("unet")?;
        let unet = UNet::load(&part, device, precision)?;
        if unet.has_added_conditioning() != (family == Family::Xl) {
            return Err(part.config().error(format_args!(
                "`addition_embed_type` is not what a {class} needs"
            )));
        }
        let consistent = is_latent_consistency(class);
        let distilled = consistent || unet.config().guidance_width.is_some();
        let size = unet.config().sample_size;
        // Each part is put aside before the next is loaded: with `offload` only one is on the
        // device at a time.
        let unet = Offloaded::build(unet, device, placement.offload)?;
        let vae = folder.part("vae")?;
        let weights = vae.weights(device, Autoencoder::precision_for(vae.config(), precision)?)?;
        let vae = Autoencoder::build(weights, vae.config(), options.vae)?;
        let (factor, channels) = (vae.factor(), vae.latent_channels());
        if unet.network().config().in_channels != channels
            || unet.network().config().out_channels != channels
        {
            return Err(part.config().error(format_args!(
                "`in_channels` and `out_channels` must be the autoencoder's {channels}"
            )));
        }
        let vae = Offloaded::build(vae, device, placement.offload)?;
        Ok(Self {
            prompts: Prompts::load(folder, family, placement)?,
            unet,
            vae,
            scheduler: SchedulerConfig::read(&Config::read(
                &folder.path().join("scheduler/scheduler_config.json"),
            )?)?,
            family,
            consistent,
            distilled,
            zeros: family == Family::Xl
                && index.boolean_or("force_zeros_for_empty_prompt", true)?,
            factor,
            channels,
            size: size * factor,
            device,
            precision,
        })
    }

    /// Where it runs.
    pub fn device(&self) -> Device {
        self.device
    }

    /// What it computes in.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Pixels of a picture's side to one of its latents': sides must be multiples of it.
    pub fn factor(&self) -> i64 {
        self.factor
    }

    /// Pixels of a side of the pictures that it was trained on.
    pub fn size(&self) -> i64 {
        self.size
    }

    /// Gives back the prompts that it keeps.
    pub fn clear_prompt_cache(&mut self) {
        self.prompts.clear();
    }

    /// Generates pictures, in the order of the requests; those that [batch with one
    /// another](Self::check) in one batch. `cancelled` is asked with a request's index between
    /// steps; a cancelled picture is left, and the others go on without it. A picture does not
    /// depend on what else is in the batch, but for the rounding of sums.
    ///
    /// # Errors
    /// An error of one request, as [`check`](Self::check) tells it or overload where it was
    /// cancelled, is in its place. Of all: overload, where memory is short; model, where parts do
    /// not fit one another.
    pub fn generate(
        &mut self,
        requests: &[&DiffusionRequest],
        cancelled: &dyn Fn(usize) -> bool,
    ) -> Result<Vec<Result<GeneratedPicture>>> {
        let _frozen = guard();
        let mut answers: Vec<Option<Result<GeneratedPicture>>> = requests
            .iter()
            .map(|request| self.check(request).err().map(Err))
            .collect();
        while let Some(first) = answers.iter().position(Option::is_none) {
            let group: Vec<usize> = (first..requests.len())
                .filter(|&at| answers[at].is_none() && requests[at].batches_with(requests[first]))
                .collect();
            let picked: Vec<&DiffusionRequest> = group.iter().map(|&at| requests[at]).collect();
            for (at, painted) in group
                .iter()
                .zip(self.generate_batch(&picked, &|index| cancelled(group[index]))?)
            {
                answers[*at] = Some(
                    painted.ok_or_else(|| Error::overload("nobody waits for the picture any more")),
                );
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }
}

/// Whether a pipeline of this class is a latent consistency model: all its steps are done whatever
/// the strength.
pub fn is_latent_consistency(class: &str) -> bool {
    class.starts_with("LatentConsistency")
}

/// `[1, c, h, w]` each as one batch.
fn batch<'t>(tensors: impl IntoIterator<Item = &'t Tensor>) -> Result<Tensor> {
    let tensors: Vec<&Tensor> = tensors.into_iter().collect();
    Ok(if let [one] = tensors.as_slice() {
        one.shallow_clone()
    } else {
        Tensor::f_cat(&tensors, 0)?
    })
}
