//! The residual blocks of a UNet and the levels that they make up. The reference is Diffusers' `ResnetBlock2D`, `DownBlock2D`, `UpBlock2D`
//! and their kin with transformers, whose keys are read.

use tch::Tensor;

use super::config::UNetConfig;
use super::transformer::Transformer;
use crate::error::{Error, Result};
use crate::models::attention::Keys;
use crate::models::layers::{Conv2d, Geometry, GroupNorm, Linear};
use crate::models::weights::Scope;

/// What a step hands to every block.
pub(super) struct Step<'k, I: Iterator<Item = &'k Keys>> {
    /// For each residual block what the timestep adds to its channels: `[1, all channels]`, or a row for each item.
    pub shifts: Tensor,
    /// The prompt's keys, in the order in which the transformers stand.
    pub keys: I,
}

/// Gathers what the residual blocks make of the timestep, so that one product gives it to all of them.
pub(super) struct Shifts {
    width: i64,
    weights: Vec<Tensor>,
    biases: Vec<Tensor>,
    channels: i64,
}

impl Shifts {
    /// For an embedding of `width`.
    pub fn new(width: i64) -> Self {
        Self { width, weights: Vec::new(), biases: Vec::new(), channels: 0 }
    }

    /// Takes a block's projection and the bias of the convolution that it is added to; gives the place of its channels.
    fn push(&mut self, scope: &Scope<'_>, channels: i64) -> Result<i64> {
        let projection = scope / "time_emb_proj";
        self.weights.push(projection.take("weight", &[channels, self.width])?);
        let bias = projection.take_f32("bias", &[channels])?.f_add(&(scope / "conv1").take_f32("bias", &[channels])?)?;
        self.biases.push(scope.weights().place(&bias)?);
        self.channels += channels;
        Ok(self.channels - channels)
    }

    /// `[.., width]` to `[.., all channels]`.
    pub fn join(self) -> Result<Linear> {
        Ok(Linear::of(Tensor::f_cat(&self.weights, 0)?, Some(Tensor::f_cat(&self.biases, 0)?)))
    }
}

/// Two convolutions, with the timestep between, added to their input.
#[derive(Debug)]
pub(super) struct Residual {
    norms: [GroupNorm; 2],
    convolutions: [Conv2d; 2],
    shortcut: Option<Conv2d>,
    /// The place of its channels in a step's shifts.
    at: i64,
    channels: i64,
}

impl Residual {
    pub fn new(scope: &Scope<'_>, config: &UNetConfig, shape: [i64; 2], shifts: &mut Shifts) -> Result<Self> {
        let [input, output] = shape;
        let norm = |name: &str, channels| GroupNorm::new(&(scope / name), channels, config.groups, config.epsilon);
        let geometry = Geometry { input, output, kernel: 3, stride: 1 };
        let shortcut = match input == output {
            true => None,
            false => Some(Conv2d::plain(&(scope / "conv_shortcut"), Geometry { kernel: 1, ..geometry })?),
        };
        Ok(Self {
            norms: [norm("norm1", input)?, norm("norm2", output)?],
            convolutions: [
                Conv2d::plain(&(scope / "conv1"), geometry)?,
                Conv2d::plain(&(scope / "conv2"), Geometry { input: output, ..geometry })?,
            ],
            shortcut,
            at: shifts.push(scope, output)?,
            channels: output,
        })
    }

    fn forward(&self, x: &Tensor, shifts: &Tensor) -> Result<Tensor> {
        let ([first, second], [into, out]) = (&self.norms, &self.convolutions);
        let inside = first.forward(x)?.f_silu_()?;
        let shift = shifts.f_narrow(1, self.at, self.channels)?;
        let inside = match shifts.size2()?.0 {
            // One timestep for all: its shift is the convolution's bias, and costs nothing.
            1 => into.forward_biased(&inside, Some(&shift.f_view([self.channels])?))?,
            rows => into.forward_biased(&inside, None)?.f_add_(&shift.f_reshape([rows, self.channels, 1, 1])?)?,
        };
        let mut inside = out.forward(&second.forward(&inside)?.f_silu_()?)?;
        match &self.shortcut {
            Some(shortcut) => Ok(inside.f_add_(&shortcut.forward(x)?)?),
            None => Ok(inside.f_add_(x)?),
        }
    }
}

/// Residual blocks at one resolution, each with its transformer where the level has them.
#[derive(Debug)]
pub(super) struct Level {
    residuals: Vec<Residual>,
    transformers: Vec<Transformer>,
    /// Halves or doubles the resolution after them.
    sampler: Option<Conv2d>,
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
    pub fn down(root: &Scope<'_>, config: &UNetConfig, (level, input): (usize, i64), shifts: &mut Shifts) -> Result<Self> {
        let scope = root / "down_blocks" / level;
        let output = config.channels[level];
        let inputs = (0..config.layers[level]).map(|layer| if layer == 0 { input } else { output }).collect();
        let last = level + 1 == config.channels.len();
        let geometry = Geometry { input: output, output, kernel: 3, stride: 2 };
        let sampler = (!last).then(|| Conv2d::plain(&(&scope / "downsamplers.0.conv"), geometry)).transpose()?;
        let plan = Plan { level, inputs, transformers: config.down_transformers[level] };
        Ok(Self { sampler, ..Self::new(&scope, config, &plan, shifts)? })
    }

    /// The way up at `level`, from `input` channels.
    pub fn up(root: &Scope<'_>, config: &UNetConfig, (level, input): (usize, i64), shifts: &mut Shifts) -> Result<Self> {
        let number = config.channels.len() - 1 - level;
        let scope = root / "up_blocks" / number;
        let (output, finer) = (config.channels[level], config.channels[level.saturating_sub(1)]);
        let last = config.layers[level];
        // Each residual block reads what came up and what the way down left behind here: its own outputs, and the level above's last.
        let left = |layer| if layer == last { finer } else { output };
        let inputs = (0..=last).map(|layer| left(layer) + if layer == 0 { input } else { output }).collect();
        let geometry = Geometry { input: output, output, kernel: 3, stride: 1 };
        let sampler = (level > 0).then(|| Conv2d::plain(&(&scope / "upsamplers.0.conv"), geometry)).transpose()?;
        let plan = Plan { level, inputs, transformers: config.up_transformers[number] };
        Ok(Self { sampler, ..Self::new(&scope, config, &plan, shifts)? })
    }

    /// The middle: a transformer between two residual blocks.
    pub fn middle(root: &Scope<'_>, config: &UNetConfig, shifts: &mut Shifts) -> Result<Self> {
        let (scope, level) = (root / "mid_block", config.channels.len() - 1);
        let plan = Plan { level, inputs: vec![config.channels[level]; 2], transformers: false };
        let mut middle = Self::new(&scope, config, &plan, shifts)?;
        middle.transformers.push(Transformer::new(&(&scope / "attentions.0"), config, level)?);
        Ok(middle)
    }

    fn new(scope: &Scope<'_>, config: &UNetConfig, plan: &Plan, shifts: &mut Shifts) -> Result<Self> {
        let output = config.channels[plan.level];
        let mut level = Self { residuals: Vec::new(), transformers: Vec::new(), sampler: None };
        for (index, &input) in plan.inputs.iter().enumerate() {
            level.residuals.push(Residual::new(&(scope / "resnets" / index), config, [input, output], shifts)?);
            if plan.transformers {
                level.transformers.push(Transformer::new(&(scope / "attentions" / index), config, plan.level)?);
            }
        }
        Ok(level)
    }

    /// What its transformers ask of a prompt.
    pub fn keys(&self, prompt: &Tensor, keys: &mut Vec<Keys>) -> Result<()> {
        self.transformers.iter().try_for_each(|transformer| transformer.keys(prompt, keys))
    }

    /// The way down: leaves what each block made in `left`.
    pub fn descend<'k, I: Iterator<Item = &'k Keys>>(&self, mut x: Tensor, step: &mut Step<'k, I>, left: &mut Vec<Tensor>) -> Result<Tensor> {
        for (index, residual) in self.residuals.iter().enumerate() {
            x = residual.forward(&x, &step.shifts)?;
            if let Some(transformer) = self.transformers.get(index) {
                x = transformer.forward(&x, &mut step.keys)?;
            }
            left.push(x.shallow_clone());
        }
        if let Some(sampler) = &self.sampler {
            x = sampler.forward(&x)?;
            left.push(x.shallow_clone());
        }
        Ok(x)
    }

    /// The middle.
    pub fn turn<'k, I: Iterator<Item = &'k Keys>>(&self, mut x: Tensor, step: &mut Step<'k, I>) -> Result<Tensor> {
        for (index, residual) in self.residuals.iter().enumerate() {
            x = residual.forward(&x, &step.shifts)?;
            if index == 0 {
                for transformer in &self.transformers {
                    x = transformer.forward(&x, &mut step.keys)?;
                }
            }
        }
        Ok(x)
    }

    /// The way up: takes from `left` what the way down left at this resolution.
    pub fn ascend<'k, I: Iterator<Item = &'k Keys>>(&self, mut x: Tensor, step: &mut Step<'k, I>, left: &mut Vec<Tensor>) -> Result<Tensor> {
        for (index, residual) in self.residuals.iter().enumerate() {
            let beside = left.pop().ok_or_else(|| Error::bug("the way up is longer than the way down"))?;
            x = residual.forward(&Tensor::f_cat(&[x, beside], 1)?, &step.shifts)?;
            if let Some(transformer) = self.transformers.get(index) {
                x = transformer.forward(&x, &mut step.keys)?;
            }
        }
        if let Some(sampler) = &self.sampler {
            // To the size of what was left there, which for odd sizes is not the double.
            let (_, _, height, width) = left.last().ok_or_else(|| Error::bug("the way up is longer than the way down"))?.size4()?;
            x = sampler.forward(&x.f_upsample_nearest2d([height, width], None, None)?)?;
        }
        Ok(x)
    }
}
