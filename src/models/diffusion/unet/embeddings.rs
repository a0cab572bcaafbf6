//! What a UNet takes beside the latents: the timestep, and for some the guidance scale, the
//! pooled prompt and the picture's size.

use tch::{Device, Kind, Tensor};

use super::config::{AddedConditioning, SinusoidalEmbedding, UNetConfig};
use crate::error::{Error, Result};
use crate::models::layers::Linear;
use crate::models::offload::tensors;
use crate::models::weights::Scope;

/// Wavelengths run from 2 pi to this many times that.
const PERIOD: f64 = 10_000.;

impl SinusoidalEmbedding {
    /// Each number as `width` sines and cosines: `[n, width]`, f32, on the CPU. Vaswani et al.,
    /// "Attention Is All You Need".
    ///
    /// # Errors
    /// Overload, where memory is short.
    pub fn embed(self, numbers: &[f64], width: i64) -> Result<Tensor> {
        let half = width / 2;
        let options = (Kind::Float, Device::Cpu);
        let exponents = Tensor::f_arange(half, options)?
            .f_mul_scalar(-PERIOD.ln())?
            .f_div_scalar(half as f64 - self.shift)?;
        let numbers: Vec<f32> = numbers.iter().map(|&number| number as f32).collect();
        let angles = Tensor::f_from_slice(&numbers)?
            .f_unsqueeze(1)?
            .f_mul(&exponents.f_exp()?)?;
        let (sines, cosines) = (angles.f_sin()?, angles.f_cos()?);
        Ok(Tensor::f_cat(
            &if self.flipped {
                [cosines, sines]
            } else {
                [sines, cosines]
            },
            1,
        )?)
    }
}

/// Two linear layers with SiLU between.
#[derive(Debug)]
struct Mlp {
    into: Linear,
    out: Linear,
}

impl Mlp {
    fn load(scope: &Scope<'_>, input: i64, width: i64) -> Result<Self> {
        Ok(Self {
            into: Linear::load(&(scope / "linear_1"), input, width)?,
            out: Linear::load(&(scope / "linear_2"), width, width)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.out.forward(&self.into.forward(x)?.f_silu_()?)
    }
}

/// SDXL's added conditioning.
#[derive(Debug)]
struct AddedEmbedding {
    layers: Mlp,
    sizes: AddedConditioning,
}

tensors!(Mlp { into, out });
tensors!(AddedEmbedding { layers });
tensors!(Embeddings {
    time,
    guidance,
    added
});

/// Everything that is added up to the embedding of a step.
#[derive(Debug)]
pub(super) struct Embeddings {
    time: Mlp,
    guidance: Option<Linear>,
    added: Option<AddedEmbedding>,
    sinusoids: SinusoidalEmbedding,
    width: i64,
    /// Where and in which number format.
    options: (Kind, Device),
}

impl Embeddings {
    /// `time_embedding` and `add_embedding` under `root`.
    pub fn load(root: &Scope<'_>, config: &UNetConfig) -> Result<Self> {
        let (width, inner) = (config.channels[0], config.time_width());
        let scope = root / "time_embedding";
        let guidance = config
            .guidance_width
            .map(|input| Linear::load_biased(&(&scope / "cond_proj"), input, width, false))
            .transpose()?;
        let added = config.added_conditioning.map(|sizes| -> Result<_> {
            Ok(AddedEmbedding {
                layers: Mlp::load(&(root / "add_embedding"), sizes.width, inner)?,
                sizes,
            })
        });
        let options = (root.weights().precision().kind(), root.weights().device());
        Ok(Self {
            time: Mlp::load(&scope, width, inner)?,
            guidance,
            added: added.transpose()?,
            sinusoids: config.sinusoids,
            width,
            options,
        })
    }

    /// The embedding of a step, through SiLU: `[1, width]`, or a row for each item where those
    /// differ.
    pub fn forward(
        &self,
        timestep: f64,
        guidance: Option<&Tensor>,
        added: Option<&Tensor>,
    ) -> Result<Tensor> {
        let mut sinusoids = self.place(&self.sinusoids.embed(&[timestep], self.width)?)?;
        if let Some(guidance) = guidance {
            let layer = self
                .guidance
                .as_ref()
                .ok_or_else(|| Error::bug("this UNet takes no guidance scale"))?;
            sinusoids = sinusoids.f_add(&layer.forward(&self.place(guidance)?)?)?;
        }
        let mut embedding = self.time.forward(&sinusoids)?;
        match (&self.added, added) {
            (Some(_), Some(added)) => embedding = embedding.f_add(added)?,
            (None, None) => {}
            _ => {
                return Err(Error::bug(
                    "a UNet takes added conditioning exactly where its config.json says so",
                ));
            }
        }
        Ok(embedding.f_silu_()?)
    }

    /// SDXL's added conditioning: pooled prompts `[n, pooled]` and six numbers for all, or for
    /// each, to `[n, time_width]`.
    pub fn added(&self, pooled: &Tensor, numbers: &[f64]) -> Result<Tensor> {
        let Some(AddedEmbedding {
            layers,
            sizes: added_conditioning,
        }) = &self.added
        else {
            return Err(Error::bug("this UNet takes no pooled prompt"));
        };
        let rows = pooled.size2()?.0;
        let sinusoids = self.place(
            &self
                .sinusoids
                .embed(numbers, added_conditioning.number_width)?,
        )?;
        let sinusoids = sinusoids
            .f_view([-1, numbers.len() as i64 * added_conditioning.number_width])?
            .f_expand([rows, -1], false)?;
        let both = Tensor::f_cat(&[self.place(pooled)?, sinusoids], 1)?;
        if both.size2()?.1 != added_conditioning.width {
            return Err(Error::model(format!(
                "a pooled prompt and {} numbers make a vector of {}, the UNet wants {}",
                numbers.len(),
                both.size2()?.1,
                added_conditioning.width
            ))
            .hint("unet/config.json and text_encoder_2/config.json must be of the same model"));
        }
        layers.forward(&both)
    }

    /// Whether SDXL's added conditioning is wanted.
    pub fn has_added_conditioning(&self) -> bool {
        self.added.is_some()
    }

    fn place(&self, tensor: &Tensor) -> Result<Tensor> {
        Ok(tensor
            .f_to_device(self.options.1)?
            .f_to_kind(self.options.0)?)
    }
}
