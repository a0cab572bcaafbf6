//! The network that Stable Diffusion denoises latents with. Rombach et al., "High-Resolution Image
//! Synthesis with Latent Diffusion Models" (arXiv:2112.10752), Podell et al., "SDXL"
//! (arXiv:2307.01952); the reference is Diffusers' `UNet2DConditionModel`, whose config.json and
//! keys it reads. What the prompt is asked for in every step is computed once.

mod blocks;
mod config;
mod embeddings;
mod transformer;

pub use config::{AddedConditioning, SinusoidalEmbedding, UNetConfig};

use tch::{Device, Tensor};

use self::blocks::{Level, Step};
use self::embeddings::Embeddings;
use crate::error::{Error, Result};
use crate::models::attention::KeyValue;
use crate::models::diffusion::blocks::{conv3x3, norm_silu};
use crate::models::folder::ModelFolder;
use crate::models::layers::{Conv2d, GroupNorm};
use crate::models::offload::tensors;
use crate::models::weights::Weights;
use crate::tensor::{Precision, channels_last, guard};

tensors!(UNet {
    embeddings,
    into,
    down,
    middle,
    up,
    norm,
    out
});

/// The network with its weights.
#[derive(Debug)]
pub struct UNet {
    embeddings: Embeddings,
    into: Conv2d,
    down: Vec<Level>,
    middle: Level,
    /// The coarsest first.
    up: Vec<Level>,
    norm: GroupNorm,
    out: Conv2d,
    config: UNetConfig,
    device: Device,
    precision: Precision,
}

/// What latents are denoised towards; the same in every step.
#[derive(Debug, Default)]
pub struct Condition {
    /// What the transformers ask of the prompts: [`UNet::keys`].
    pub keys: Vec<KeyValue>,
    /// For SDXL, what prompt and size add to the timestep: [`UNet::added`].
    pub added: Option<Tensor>,
    /// For networks distilled with guidance (LCM), the embedded scale: [`UNet::guidance`].
    pub guidance: Option<Tensor>,
}

impl UNet {
    /// The network of a folder whose class is `UNet2DConditionModel`.
    ///
    /// # Errors
    /// Config, where the folder is another network's; model, where its config or weights do not
    /// fit.
    pub fn load(folder: &ModelFolder, device: Device, precision: Precision) -> Result<Self> {
        folder.expect("UNet2DConditionModel")?;
        Self::build(
            folder.weights(device, precision)?,
            UNetConfig::read(folder.config())?,
        )
    }

    /// The network of these weights. Its attentions are computed as the weights say.
    ///
    /// # Errors
    /// Model, where they do not fit.
    pub fn build(weights: Weights, config: UNetConfig) -> Result<Self> {
        let _frozen = guard();
        let root = weights.root();
        let (device, precision, levels) =
            (weights.device(), weights.precision(), config.channels.len());
        let (first, last) = (config.channels[0], config.channels[levels - 1]);
        let before = |level: usize| config.channels[level.saturating_sub(1)];
        let after = |level: usize| config.channels.get(level + 1).copied().unwrap_or(last);
        let down = (0..levels)
            .map(|level| Level::down(&root, &config, level, before(level)))
            .collect::<Result<_>>()?;
        let up = (0..levels)
            .rev()
            .map(|level| Level::up(&root, &config, level, after(level)))
            .collect::<Result<_>>()?;
        let network = Self {
            embeddings: Embeddings::load(&root, &config)?,
            into: conv3x3(&(&root / "conv_in"), config.in_channels, first)?,
            down,
            middle: Level::middle(&root, &config)?,
            up,
            norm: GroupNorm::load(
                &(&root / "conv_norm_out"),
                first,
                config.groups,
                config.epsilon,
            )?,
            out: conv3x3(&(&root / "conv_out"), first, config.out_channels)?,
            config,
            device,
            precision,
        };
        weights.finish()?;
        Ok(network)
    }

    /// Its sizes.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// Where it runs.
    pub fn device(&self) -> Device {
        self.device
    }

    /// What it computes in.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// What its transformers ask of prompts `[n, t, context]`, in any number format on any device:
    /// to be kept as long as prompts recur.
    ///
    /// # Errors
    /// Model, where the prompt has another width; overload, where memory is short.
    pub fn keys(&self, prompt: &Tensor) -> Result<Vec<KeyValue>> {
        let _frozen = guard();
        let prompt = self.place(prompt)?;
        let mut keys = Vec::new();
        for level in self.down.iter().chain([&self.middle]).chain(&self.up) {
            level.keys(&prompt, &mut keys)?;
        }
        Ok(keys)
    }

    /// For SDXL: what pooled prompts `[n, pooled]` and the picture's six numbers (its height and
    /// width before it was scaled, the top and left of its cut, its height and width) add to every
    /// timestep: `[n, width]`.
    ///
    /// # Errors
    /// Model, where the sizes do not fit; bug, where the network takes none.
    pub fn added(&self, pooled: &Tensor, numbers: [f64; 6]) -> Result<Tensor> {
        let _frozen = guard();
        self.embeddings.added(pooled, &numbers)
    }

    /// Whether a [`Condition`] needs what [`added`](Self::added) gives.
    pub fn has_added_conditioning(&self) -> bool {
        self.embeddings.has_added_conditioning()
    }

    /// For networks that take the guidance scale as an input (LCM): `scale` as they take it, `[1,
    /// width]`. None for others.
    ///
    /// # Errors
    /// Overload, where memory is short.
    pub fn guidance(&self, scale: f64) -> Result<Option<Tensor>> {
        let _frozen = guard();
        let Some(width) = self.config.guidance_width else {
            return Ok(None);
        };
        // The reference's sinusoids of a thousand times the scale less one, with sines first and
        // the frequencies of Vaswani et al.
        Ok(Some(
            SinusoidalEmbedding {
                flipped: false,
                shift: 1.,
            }
            .embed(&[(scale - 1.) * 1000.], width)?,
        ))
    }

    /// Noisy latents `[n, in_channels, h, w]` at `timestep` to what the network says of them, `[n,
    /// out_channels, h, w]`, in its precision.
    ///
    /// # Errors
    /// Model, where the shapes do not fit; overload, where memory is short.
    pub fn forward(
        &self,
        latents: &Tensor,
        timestep: f64,
        condition: &Condition,
    ) -> Result<Tensor> {
        let _frozen = guard();
        self.run(latents, timestep, condition, &mut |_, _| {})
    }

    /// As [`forward`](Self::forward); tells `watch` what each level made.
    fn run(
        &self,
        latents: &Tensor,
        timestep: f64,
        condition: &Condition,
        watch: &mut dyn FnMut(&str, &Tensor),
    ) -> Result<Tensor> {
        let size = latents.size();
        if size.len() != 4 || size[1] != self.config.in_channels {
            let channels = self.config.in_channels;
            return Err(Error::model(format!(
                "latents must be numbers [n, {channels}, h, w], got {size:?}"
            )));
        }
        let time = self.embeddings.forward(
            timestep,
            condition.guidance.as_ref(),
            condition.added.as_ref(),
        )?;
        let mut step = Step {
            time,
            keys: condition.keys.iter(),
        };
        let mut x = self.into.forward(&channels_last(&self.place(latents)?)?)?;
        let mut skips = vec![x.shallow_clone()];
        for level in &self.down {
            x = level.down_forward(x, &mut step, &mut skips)?;
            watch("down", &x);
        }
        x = self.middle.middle_forward(x, &mut step)?;
        watch("middle", &x);
        for level in &self.up {
            x = level.up_forward(x, &mut step, &mut skips)?;
            watch("up", &x);
        }
        if step.keys.next().is_some() {
            return Err(Error::bug("keys of another UNet's prompt"));
        }
        self.out.forward(&norm_silu(&self.norm, &x)?)
    }

    fn place(&self, tensor: &Tensor) -> Result<Tensor> {
        Ok(tensor
            .f_to_device(self.device)?
            .f_to_kind(self.precision.kind())?)
    }
}

#[cfg(test)]
pub(in crate::models) mod tests;
