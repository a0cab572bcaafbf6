//! The autoencoder's two halves: levels of residual blocks, halving or doubling the picture, and a
//! middle with attention. The reference is diffusers' `vae.py`.

use tch::Tensor;

use super::config::AutoencoderKlConfig;
use crate::error::Result;
use crate::models::diffusion::blocks::{
    PixelAttention, ResnetBlock2D, ResnetShape, conv3x3, norm_silu,
};
use crate::models::diffusion::resampling::{Border, Downsample2D, Upsample2D};
use crate::models::layers::{Conv2d, GroupNorm};
use crate::models::offload::tensors;
use crate::models::weights::Scope;

tensors!(Encoder {
    conv_in,
    levels,
    middle,
    output
});
tensors!(Decoder {
    conv_in,
    middle,
    levels,
    output
});
tensors!(Level<Downsample2D> { resnets, sampler });
tensors!(Level<Upsample2D> { resnets, sampler });
tensors!(Middle { resnets, attention });
tensors!(Output { norm, conv });

/// Added to variances.
const EPSILON: f64 = 1e-6;

fn resnet(
    scope: &Scope<'_>,
    input: i64,
    output: i64,
    config: &AutoencoderKlConfig,
) -> Result<ResnetBlock2D> {
    ResnetBlock2D::load(
        scope,
        ResnetShape {
            input,
            output,
            time: None,
            groups: config.norm_num_groups,
            epsilon: EPSILON,
        },
    )
}

/// Two residual blocks, attention between them.
#[derive(Debug)]
pub(super) struct Middle {
    pub(super) resnets: [ResnetBlock2D; 2],
    pub(super) attention: Option<PixelAttention>,
}

impl Middle {
    pub(super) fn load(
        scope: &Scope<'_>,
        channels: i64,
        config: &AutoencoderKlConfig,
    ) -> Result<Self> {
        let resnets = scope / "resnets";
        let attention = match config.mid_block_add_attention {
            true => Some(PixelAttention::load(
                &(scope / "attentions" / 0),
                channels,
                config.norm_num_groups,
                EPSILON,
            )?),
            false => None,
        };
        Ok(Self {
            resnets: [
                resnet(&(&resnets / 0), channels, channels, config)?,
                resnet(&(&resnets / 1), channels, channels, config)?,
            ],
            attention,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = self.resnets[0].forward(x, None)?;
        if let Some(attention) = &self.attention {
            x = attention.forward(&x)?;
        }
        self.resnets[1].forward(&x, None)
    }
}

/// The norm and the convolution that end encoder and decoder.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) norm: GroupNorm,
    pub(super) conv: Conv2d,
}

impl Output {
    pub(super) fn load(
        scope: &Scope<'_>,
        input: i64,
        output: i64,
        config: &AutoencoderKlConfig,
    ) -> Result<Self> {
        let norm = GroupNorm::load(
            &(scope / "conv_norm_out"),
            input,
            config.norm_num_groups,
            EPSILON,
        )?;
        Ok(Self {
            norm,
            conv: conv3x3(&(scope / "conv_out"), input, output)?,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.conv.forward(&norm_silu(&self.norm, x)?)
    }
}

/// Residual blocks, and what halves or doubles the picture after them.
#[derive(Debug)]
pub(super) struct Level<S> {
    pub(super) resnets: Vec<ResnetBlock2D>,
    pub(super) sampler: Option<S>,
}

impl<S> Level<S> {
    pub(super) fn forward(
        &self,
        x: &Tensor,
        sample: impl Fn(&S, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let mut x = x.shallow_clone();
        for resnet in &self.resnets {
            x = resnet.forward(&x, None)?;
        }
        self.sampler
            .as_ref()
            .map_or(Ok(x.shallow_clone()), |sampler| sample(sampler, &x))
    }
}

/// From pictures `[n, in channels, h, w]` to mean and logarithm of the variance, `[n, 2 * latent
/// channels, h / factor, w / factor]`.
#[derive(Debug)]
pub(super) struct Encoder {
    pub(super) conv_in: Conv2d,
    pub(super) levels: Vec<Level<Downsample2D>>,
    pub(super) middle: Middle,
    pub(super) output: Output,
}

impl Encoder {
    pub(super) fn load(scope: &Scope<'_>, config: &AutoencoderKlConfig) -> Result<Self> {
        let channels = &config.block_out_channels;
        let mut input = channels[0];
        let conv_in = conv3x3(&(scope / "conv_in"), config.in_channels, input)?;
        let mut levels = Vec::new();
        for (number, &output) in channels.iter().enumerate() {
            let scope = scope / "down_blocks" / number;
            let mut resnets = Vec::new();
            for layer in 0..config.layers_per_block {
                resnets.push(resnet(
                    &(&scope / "resnets" / layer),
                    input,
                    output,
                    config,
                )?);
                input = output;
            }
            let sampler = match number + 1 < channels.len() {
                true => Some(Downsample2D::load(
                    &(&scope / "downsamplers" / 0),
                    output,
                    Border::Behind,
                )?),
                false => None,
            };
            levels.push(Level { resnets, sampler });
        }
        let middle = Middle::load(&(scope / "mid_block"), input, config)?;
        Ok(Self {
            conv_in,
            levels,
            middle,
            output: Output::load(scope, input, 2 * config.latent_channels, config)?,
        })
    }

    pub(super) fn forward(&self, pictures: &Tensor) -> Result<Tensor> {
        let mut x = self.conv_in.forward(pictures)?;
        for level in &self.levels {
            x = level.forward(&x, Downsample2D::forward)?;
        }
        self.output.forward(&self.middle.forward(&x)?)
    }
}

/// From latents `[n, latent channels, h, w]` to pictures `[n, out channels, factor h, factor w]`.
#[derive(Debug)]
pub(super) struct Decoder {
    pub(super) conv_in: Conv2d,
    pub(super) middle: Middle,
    pub(super) levels: Vec<Level<Upsample2D>>,
    pub(super) output: Output,
}

impl Decoder {
    pub(super) fn load(scope: &Scope<'_>, config: &AutoencoderKlConfig) -> Result<Self> {
        let channels = &config.block_out_channels;
        let mut input = channels[channels.len() - 1];
        let conv_in = conv3x3(&(scope / "conv_in"), config.latent_channels, input)?;
        let middle = Middle::load(&(scope / "mid_block"), input, config)?;
        let mut levels = Vec::new();
        for (number, &output) in channels.iter().rev().enumerate() {
            let scope = scope / "up_blocks" / number;
            let mut resnets = Vec::new();
            for layer in 0..=config.layers_per_block {
                resnets.push(resnet(
                    &(&scope / "resnets" / layer),
                    input,
                    output,
                    config,
                )?);
                input = output;
            }
            let sampler = match number + 1 < channels.len() {
                true => Some(Upsample2D::load(
                    &(&scope / "upsamplers" / 0 / "conv"),
                    output,
                    true,
                )?),
                false => None,
            };
            levels.push(Level { resnets, sampler });
        }
        Ok(Self {
            conv_in,
            middle,
            levels,
            output: Output::load(scope, input, config.out_channels, config)?,
        })
    }

    pub(super) fn forward(&self, latents: &Tensor) -> Result<Tensor> {
        let mut x = self.middle.forward(&self.conv_in.forward(latents)?)?;
        for level in &self.levels {
            x = level.forward(&x, Upsample2D::forward)?;
        }
        self.output.forward(&x)
    }
}
