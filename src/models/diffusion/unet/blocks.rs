//! The levels of a UNet: residual blocks at one resolution, each with its transformer where the
//! level has them. The reference is Diffusers' `DownBlock2D`, `UpBlock2D`,
//! `UNetMidBlock2DCrossAttn` and their kin with transformers, whose keys are read.

use tch::Tensor;

use super::config::UNetConfig;
use super::transformer::Transformer;
use crate::error::{Error, Result};
use crate::models::attention::KeyValue;
use crate::models::diffusion::blocks::{ResnetBlock2D, ResnetShape};
use crate::models::diffusion::resampling::{Border, Downsample2D, Upsample2D};
use crate::models::offload::{Tensors, tensors};
use crate::models::weights::Scope;

/// What a step hands to every block.
pub(super) struct Step<'k, I: Iterator<Item = &'k KeyValue>> {
    /// The embedding of the step, through SiLU: `[1, width]`, or a row for each item.
    pub time: Tensor,
    /// The prompt's keys, in the order in which the transformers stand.
    pub keys: I,
}

/// Halves or doubles the resolution after a level.
#[derive(Debug)]
enum Sampler {
    Identity,
    Down(Downsample2D),
    Up(Upsample2D),
}

/// Residual blocks at one resolution.
#[derive(Debug)]
pub(super) struct Level {
    residuals: Vec<ResnetBlock2D>,
    transformers: Vec<Transformer>,
    sampler: Sampler,
}

tensors!(Level {
    residuals,
    transformers,
    sampler
});

impl Tensors for Sampler {
    fn each(&mut self, act: &mut dyn FnMut(&mut Tensor) -> Result<()>) -> Result<()> {
        match self {
            Self::Identity => Ok(()),
            Self::Down(sampler) => sampler.each(act),
            Self::Up(sampler) => sampler.each(act),
        }
    }
}

/// What a level is made of.
struct Plan {
    level: usize,
    /// Channels into each of its residual blocks.
    inputs: Vec<i64>,
    transformers: bool,
}

impl Level {
    /// The way down at `level`, from `input` channels.
    pub fn down(root: &Scope<'_>, config: &UNetConfig, level: usize, input: i64) -> Result<Self> {
        let scope = root / "down_blocks" / level;
        let output = config.channels[level];
        let inputs = (0..config.layers[level])
            .map(|layer| if layer == 0 { input } else { output })
            .collect();
        let sampler = match level + 1 < config.channels.len() {
            true => Sampler::Down(Downsample2D::load(
                &(&scope / "downsamplers.0"),
                output,
                Border::Around,
            )?),
            false => Sampler::Identity,
        };
        let plan = Plan {
            level,
            inputs,
            transformers: config.down_transformers[level],
        };
        Ok(Self {
            sampler,
            ..Self::load(&scope, config, &plan)?
        })
    }

    /// The way up at `level`, from `input` channels.
    pub fn up(root: &Scope<'_>, config: &UNetConfig, level: usize, input: i64) -> Result<Self> {
        let number = config.channels.len() - 1 - level;
        let scope = root / "up_blocks" / number;
        let (output, finer) = (
            config.channels[level],
            config.channels[level.saturating_sub(1)],
        );
        let last = config.layers[level];
        // Each residual block reads what came up and what the way down left behind here: its own
        // outputs, and the level above's last.
        let skipped = |layer| if layer == last { finer } else { output };
        let inputs = (0..=last)
            .map(|layer| skipped(layer) + if layer == 0 { input } else { output })
            .collect();
        let sampler = match level > 0 {
            true => Sampler::Up(Upsample2D::load(
                &(&scope / "upsamplers.0.conv"),
                output,
                true,
            )?),
            false => Sampler::Identity,
        };
        let plan = Plan {
            level,
            inputs,
            transformers: config.up_transformers[number],
        };
        Ok(Self {
            sampler,
            ..Self::load(&scope, config, &plan)?
        })
    }

    /// The middle: a transformer between two residual blocks.
    pub fn middle(root: &Scope<'_>, config: &UNetConfig) -> Result<Self> {
        let (scope, level) = (root / "mid_block", config.channels.len() - 1);
        let plan = Plan {
            level,
            inputs: vec![config.channels[level]; 2],
            transformers: false,
        };
        let mut middle = Self::load(&scope, config, &plan)?;
        middle.transformers.push(Transformer::load(
            &(&scope / "attentions.0"),
            config,
            level,
        )?);
        Ok(middle)
    }

    fn load(scope: &Scope<'_>, config: &UNetConfig, plan: &Plan) -> Result<Self> {
        let (output, time) = (config.channels[plan.level], Some(config.time_width()));
        let mut level = Self {
            residuals: Vec::new(),
            transformers: Vec::new(),
            sampler: Sampler::Identity,
        };
        for (index, &input) in plan.inputs.iter().enumerate() {
            let shape = ResnetShape {
                input,
                output,
                time,
                groups: config.groups,
                epsilon: config.epsilon,
            };
            level
                .residuals
                .push(ResnetBlock2D::load(&(scope / "resnets" / index), shape)?);
            if plan.transformers {
                level.transformers.push(Transformer::load(
                    &(scope / "attentions" / index),
                    config,
                    plan.level,
                )?);
            }
        }
        Ok(level)
    }

    /// What its transformers ask of a prompt.
    pub fn keys(&self, prompt: &Tensor, keys: &mut Vec<KeyValue>) -> Result<()> {
        self.transformers
            .iter()
            .try_for_each(|transformer| transformer.keys(prompt, keys))
    }

    /// The way down: leaves what each block made in `skips`.
    pub fn down_forward<'k, I: Iterator<Item = &'k KeyValue>>(
        &self,
        mut x: Tensor,
        step: &mut Step<'k, I>,
        skips: &mut Vec<Tensor>,
    ) -> Result<Tensor> {
        for (index, residual) in self.residuals.iter().enumerate() {
            x = residual.forward(&x, Some(&step.time))?;
            if let Some(transformer) = self.transformers.get(index) {
                x = transformer.forward(&x, &mut step.keys)?;
            }
            skips.push(x.shallow_clone());
        }
        if let Sampler::Down(sampler) = &self.sampler {
            x = sampler.forward(&x)?;
            skips.push(x.shallow_clone());
        }
        Ok(x)
    }

    /// The middle.
    pub fn middle_forward<'k, I: Iterator<Item = &'k KeyValue>>(
        &self,
        mut x: Tensor,
        step: &mut Step<'k, I>,
    ) -> Result<Tensor> {
        for (index, residual) in self.residuals.iter().enumerate() {
            x = residual.forward(&x, Some(&step.time))?;
            if let Some(transformer) = self.transformers.get(index) {
                x = transformer.forward(&x, &mut step.keys)?;
            }
        }
        Ok(x)
    }

    /// The way up: takes from `skips` what the way down left at this resolution.
    pub fn up_forward<'k, I: Iterator<Item = &'k KeyValue>>(
        &self,
        mut x: Tensor,
        step: &mut Step<'k, I>,
        skips: &mut Vec<Tensor>,
    ) -> Result<Tensor> {
        for (index, residual) in self.residuals.iter().enumerate() {
            let beside = skips
                .pop()
                .ok_or_else(|| Error::bug("the way up is longer than the way down"))?;
            x = residual.forward(&Tensor::f_cat(&[x, beside], 1)?, Some(&step.time))?;
            if let Some(transformer) = self.transformers.get(index) {
                x = transformer.forward(&x, &mut step.keys)?;
            }
        }
        if let Sampler::Up(sampler) = &self.sampler {
            // To the size of what was left there, which for odd sizes is not the double.
            let (_, _, height, width) = skips
                .last()
                .ok_or_else(|| Error::bug("the way up is longer than the way down"))?
                .size4()?;
            x = sampler.forward_to(&x, height, width)?;
        }
        Ok(x)
    }
}
