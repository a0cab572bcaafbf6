//! What config.json says of the autoencoder, under diffusers' names.

use crate::error::Result;
use crate::models::config::Config;

/// Sizes of the network, as config.json has them; the default is Stable Diffusion 1.5's.
#[derive(Debug, Clone, PartialEq)]
pub struct AutoencoderKlConfig {
    /// Channels of the pictures that go in.
    pub in_channels: i64,
    /// Channels of the pictures that come out.
    pub out_channels: i64,
    /// Channels after each halving, the first before any.
    pub block_out_channels: Vec<i64>,
    /// Residual blocks before each halving; one more before each doubling.
    pub layers_per_block: i64,
    /// Channels of the latents.
    pub latent_channels: i64,
    /// Groups of every norm.
    pub norm_num_groups: i64,
    /// Side of the pictures that it was trained on, and of a tile.
    pub sample_size: i64,
    /// Latents times this have a deviation near 1.
    pub scaling_factor: f64,
    /// Taken from latents before they are scaled.
    pub shift_factor: f64,
    /// It overflows in f16, and must run in f32 there.
    pub force_upcast: bool,
    /// A 1x1 convolution follows the encoder.
    pub use_quant_conv: bool,
    /// A 1x1 convolution precedes the decoder.
    pub use_post_quant_conv: bool,
    /// There is attention in the middle of encoder and decoder.
    pub mid_block_add_attention: bool,
}

impl Default for AutoencoderKlConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            block_out_channels: vec![128, 256, 512, 512],
            layers_per_block: 2,
            latent_channels: 4,
            norm_num_groups: 32,
            sample_size: 512,
            scaling_factor: 0.18215,
            shift_factor: 0.,
            force_upcast: true,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
        }
    }
}

impl AutoencoderKlConfig {
    /// From config.json; what is missing is what diffusers' class takes for it.
    ///
    /// # Errors
    /// Model, where a field is not what it must be, or asks for what is not read here.
    pub fn read(config: &Config) -> Result<Self> {
        let read = Self {
            in_channels: config.integer_or("in_channels", 3)?,
            out_channels: config.integer_or("out_channels", 3)?,
            block_out_channels: config.integers_or("block_out_channels", &[64])?,
            layers_per_block: config.integer_or("layers_per_block", 1)?,
            latent_channels: config.integer_or("latent_channels", 4)?,
            norm_num_groups: config.integer_or("norm_num_groups", 32)?,
            sample_size: config.integer_or("sample_size", 32)?,
            scaling_factor: config.number_or("scaling_factor", 0.18215)?,
            shift_factor: config.number_or("shift_factor", 0.)?,
            force_upcast: config.boolean_or("force_upcast", true)?,
            use_quant_conv: config.boolean_or("use_quant_conv", true)?,
            use_post_quant_conv: config.boolean_or("use_post_quant_conv", true)?,
            mid_block_add_attention: config.boolean_or("mid_block_add_attention", true)?,
        };
        for (field, block) in [
            ("down_block_types", "DownEncoderBlock2D"),
            ("up_block_types", "UpDecoderBlock2D"),
        ] {
            let blocks = match config.field(field) {
                Some(names) => names
                    .as_array()
                    .filter(|names| names.iter().all(|name| name == block))
                    .map(Vec::len),
                None => Some(1),
            };
            if blocks != Some(read.block_out_channels.len()) {
                return Err(config.error(format_args!(
                    "`{field}` must be a list of {block}, as long as `block_out_channels`"
                )));
            }
        }
        if config.string_or("act_fn", "silu")? != "silu" {
            return Err(config.error("`act_fn` must be silu"));
        }
        if let Some(field) = ["latents_mean", "latents_std"]
            .into_iter()
            .find(|field| config.field(field).is_some())
        {
            return Err(config.error(format_args!("`{field}` is not supported")));
        }
        read.check().map_err(|what| config.error(what))?;
        Ok(read)
    }

    fn check(&self) -> Result<(), &'static str> {
        let sizes = [
            self.in_channels,
            self.out_channels,
            self.latent_channels,
            self.layers_per_block,
            self.norm_num_groups,
        ];
        match () {
            () if sizes.contains(&0) || self.block_out_channels.is_empty() => {
                Err("every size must be above 0")
            }
            () if self
                .block_out_channels
                .iter()
                .any(|channels| *channels == 0 || channels % self.norm_num_groups != 0) =>
            {
                Err("`block_out_channels` must be multiples of `norm_num_groups`")
            }
            () if self.sample_size < 4 * self.factor() => {
                Err("`sample_size` must be at least four latents wide")
            }
            () if self.scaling_factor <= 0. => Err("`scaling_factor` must be above 0"),
            () => Ok(()),
        }
    }

    /// Pixels of a picture's side to one of its latents'.
    pub fn factor(&self) -> i64 {
        1 << (self.block_out_channels.len() - 1)
    }
}
