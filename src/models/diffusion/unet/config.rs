//! The sizes of a UNet from its config.json, in Diffusers' words. What another member of the family
//! would need is refused by its name.

use serde_json::Value;

use crate::error::Result;
use crate::models::config::Config;

/// The network's sizes. Lists have an entry for each resolution, the finest first but where they
/// say otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct UNetConfig {
    /// Rows and columns of the latents that it was trained on.
    pub sample_size: i64,
    /// Channels of the latents.
    pub in_channels: i64,
    /// Channels of the answer.
    pub out_channels: i64,
    /// Channels at each resolution.
    pub channels: Vec<i64>,
    /// Whether the way down has transformers at each resolution.
    pub down_transformers: Vec<bool>,
    /// Whether the way up has transformers at each resolution, the coarsest first.
    pub up_transformers: Vec<bool>,
    /// Residual blocks at each resolution on the way down; the way up has one more.
    pub layers: Vec<i64>,
    /// Blocks of each transformer at each resolution.
    pub depths: Vec<i64>,
    /// Heads of each attention at each resolution.
    pub heads: Vec<i64>,
    /// Width of the prompt's states.
    pub context: i64,
    /// Whether transformers are entered and left by linear layers over pixels; else by 1x1
    /// convolutions, which are the same but for the shape of their weights.
    pub linear_projection: bool,
    /// Whether the scores of sliced attention are computed in f32 whatever the precision; the fused
    /// kernel always does.
    pub upcast_attention: bool,
    /// Groups of every group norm.
    pub groups: i64,
    /// What residual blocks' norms add to variances.
    pub epsilon: f64,
    /// How timesteps become sinusoids.
    pub sinusoids: SinusoidalEmbedding,
    /// Width of the embedded guidance scale, for networks that were distilled with guidance (LCM).
    pub guidance_width: Option<i64>,
    /// What is added to the timestep's embedding, for SDXL.
    pub added_conditioning: Option<AddedConditioning>,
}

/// How numbers become sinusoids.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SinusoidalEmbedding {
    /// Cosines before sines.
    pub flipped: bool,
    /// Shift of the frequencies.
    pub shift: f64,
}

/// SDXL's added conditioning: the pooled prompt and six numbers about the picture's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddedConditioning {
    /// Width of each number's sinusoids.
    pub number_width: i64,
    /// Width of the pooled prompt and all sinusoids.
    pub width: i64,
}

/// What a field must be.
#[derive(Debug, Clone, Copy)]
enum Must {
    Null,
    False,
    Number(f64),
    Word(&'static str),
}

/// Fields that must stand as here, or be missing: others belong to networks that this one is not.
const FIXED: [(&str, Must); 23] = [
    ("mid_block_type", Must::Word("UNetMidBlock2DCrossAttn")),
    ("act_fn", Must::Word("silu")),
    ("reverse_transformer_layers_per_block", Must::Null),
    ("center_input_sample", Must::False),
    ("only_cross_attention", Must::False),
    ("downsample_padding", Must::Number(1.)),
    ("mid_block_scale_factor", Must::Number(1.)),
    ("dual_cross_attention", Must::False),
    ("class_embed_type", Must::Null),
    ("num_class_embeds", Must::Null),
    ("class_embeddings_concat", Must::False),
    ("encoder_hid_dim_type", Must::Null),
    ("encoder_hid_dim", Must::Null),
    ("resnet_time_scale_shift", Must::Word("default")),
    ("resnet_skip_time_act", Must::False),
    ("resnet_out_scale_factor", Must::Number(1.)),
    ("time_embedding_type", Must::Word("positional")),
    ("time_embedding_act_fn", Must::Null),
    ("timestep_post_act", Must::Null),
    ("conv_in_kernel", Must::Number(3.)),
    ("conv_out_kernel", Must::Number(3.)),
    ("attention_type", Must::Word("default")),
    ("cross_attention_norm", Must::Null),
];

impl UNetConfig {
    /// Reads the config.json of a `UNet2DConditionModel`; what is missing is Diffusers' default.
    ///
    /// # Errors
    /// Model, where a field is not what it must be, or asks for something that is not here.
    pub fn read(config: &Config) -> Result<Self> {
        for (key, value) in FIXED {
            expect(config, key, value)?;
        }
        let channels = config.integers_or("block_out_channels", &[320, 640, 1280, 1280])?;
        let levels = channels.len();
        // A field that was named wrongly when Diffusers began, and stayed so: it is the number of
        // heads, not their width.
        let heads = each(config, "attention_head_dim", 8, levels)?;
        let read = Self {
            sample_size: config.integer_or("sample_size", 64)?,
            in_channels: config.integer_or("in_channels", 4)?,
            out_channels: config.integer_or("out_channels", 4)?,
            down_transformers: blocks(
                config,
                "down_block_types",
                ["DownBlock2D", "CrossAttnDownBlock2D"],
                levels,
            )?,
            up_transformers: blocks(
                config,
                "up_block_types",
                ["UpBlock2D", "CrossAttnUpBlock2D"],
                levels,
            )?,
            layers: each(config, "layers_per_block", 2, levels)?,
            depths: each(config, "transformer_layers_per_block", 1, levels)?,
            heads,
            context: config.integer_or("cross_attention_dim", 1280)?,
            linear_projection: config.boolean_or("use_linear_projection", false)?,
            upcast_attention: config.boolean_or("upcast_attention", false)?,
            groups: config.integer_or("norm_num_groups", 32)?,
            epsilon: config.number_or("norm_eps", 1e-5)?,
            sinusoids: SinusoidalEmbedding {
                flipped: config.boolean_or("flip_sin_to_cos", true)?,
                shift: config.number_or("freq_shift", 0.)?,
            },
            guidance_width: config
                .field("time_cond_proj_dim")
                .map(|_| config.integer("time_cond_proj_dim"))
                .transpose()?,
            added_conditioning: added_conditioning(config)?,
            channels,
        };
        read.check(config)?;
        Ok(read)
    }

    /// Width of the timestep's embedding.
    pub fn time_width(&self) -> i64 {
        4 * self.channels[0]
    }

    fn check(&self, config: &Config) -> Result<()> {
        let sizes = [&self.channels, &self.layers, &self.depths, &self.heads]
            .into_iter()
            .flatten();
        if self.channels.is_empty()
            || self.groups == 0
            || sizes
                .chain([&self.in_channels, &self.out_channels])
                .any(|&size| size == 0)
        {
            return Err(config.error("all sizes must be above 0"));
        }
        let even = |(&channels, &heads): (&i64, &i64)| {
            channels % self.groups == 0 && channels % heads == 0
        };
        if !self.channels.iter().zip(&self.heads).all(even) || self.channels[0] % 2 != 0 {
            return Err(config.error(
                "`block_out_channels` must be multiples of `norm_num_groups` and of the heads",
            ));
        }
        Ok(())
    }
}

fn expect(config: &Config, key: &str, must: Must) -> Result<()> {
    let Some(found) = config.field(key) else {
        return Ok(());
    };
    let (fits, wanted) = match must {
        Must::Null => (false, "null".to_owned()),
        Must::False => (found == false, "false".to_owned()),
        Must::Number(number) => (found.as_f64() == Some(number), number.to_string()),
        Must::Word(word) => (found == word, word.to_owned()),
    };
    if fits {
        Ok(())
    } else {
        Err(config.error(format_args!(
            "`{key}` must be {wanted}, it is {found}, which no UNet here has"
        )))
    }
}

/// A number for each resolution: a list of them, or one for all.
fn each(config: &Config, key: &str, default: i64, levels: usize) -> Result<Vec<i64>> {
    let listed = match config.field(key) {
        Some(Value::Array(_)) => config.integers(key)?,
        _ => vec![config.integer_or(key, default)?; levels],
    };
    if listed.len() != levels {
        return Err(config.error(format_args!(
            "`{key}` must have {levels} entries, as `block_out_channels` has, it has {}",
            listed.len()
        )));
    }
    Ok(listed)
}

/// Whether each resolution's block is the second of `names`: the one with transformers. Diffusers'
/// default has them everywhere but at the coarsest.
fn blocks(config: &Config, key: &str, names: [&str; 2], levels: usize) -> Result<Vec<bool>> {
    let up = names[0].starts_with("Up");
    let default: Vec<bool> = (0..levels)
        .map(|level| if up { level > 0 } else { level + 1 < levels })
        .collect();
    let Some(field) = config.field(key) else {
        return Ok(default);
    };
    let listed = field
        .as_array()
        .ok_or_else(|| config.error(format_args!("`{key}` must be a list of block types")))?;
    if listed.len() != levels {
        return Err(config.error(format_args!(
            "`{key}` must have {levels} entries, as `block_out_channels` has, it has {}",
            listed.len()
        )));
    }
    let known = |block: &Value| match block.as_str() {
        Some(name) if name == names[0] => Ok(false),
        Some(name) if name == names[1] => Ok(true),
        _ => Err(config.error(format_args!(
            "`{key}` names {block}; the blocks here are {} and {}",
            names[0], names[1]
        ))),
    };
    listed.iter().map(known).collect()
}

fn added_conditioning(config: &Config) -> Result<Option<AddedConditioning>> {
    match config.string_or("addition_embed_type", "")? {
        "" => Ok(None),
        "text_time" => {
            let number_width = config.integer("addition_time_embed_dim")?;
            let width = config.integer("projection_class_embeddings_input_dim")?;
            if number_width == 0 || number_width % 2 != 0 || width <= 6 * number_width {
                return Err(config.error(
                    "`projection_class_embeddings_input_dim` must be above six times \
                     `addition_time_embed_dim`",
                ));
            }
            Ok(Some(AddedConditioning {
                number_width,
                width,
            }))
        }
        other => Err(config.error(format_args!(
            "`addition_embed_type` must be text_time or null, it is {other}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Result<UNetConfig> {
        UNetConfig::read(&Config::of(value))
    }

    #[test]
    fn an_empty_config_is_diffusers_default() {
        let read = read(json!({})).unwrap();
        assert_eq!(
            (read.channels, read.context, read.groups),
            (vec![320, 640, 1280, 1280], 1280, 32)
        );
        assert_eq!(read.down_transformers, [true, true, true, false]);
        assert_eq!(read.up_transformers, [false, true, true, true]);
        assert_eq!(
            (read.heads, read.layers, read.depths),
            (vec![8; 4], vec![2; 4], vec![1; 4])
        );
        assert_eq!(
            (read.sinusoids, read.added_conditioning, read.guidance_width),
            (
                SinusoidalEmbedding {
                    flipped: true,
                    shift: 0.
                },
                None,
                None
            )
        );
    }

    #[test]
    fn heads_and_depths_come_as_lists_too() {
        let xl = json!({
            "block_out_channels": [320, 640, 1280], "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], "attention_head_dim": [5, 10, 20],
            "transformer_layers_per_block": [1, 2, 10], "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816, "mid_block_scale_factor": 1, "time_cond_proj_dim": 256
        });
        let read = read(xl).unwrap();
        assert_eq!((read.heads, read.depths), (vec![5, 10, 20], vec![1, 2, 10]));
        assert_eq!(
            read.added_conditioning,
            Some(AddedConditioning {
                number_width: 256,
                width: 2816
            })
        );
        assert_eq!(read.guidance_width, Some(256));
    }

    #[test]
    fn what_is_not_here_is_refused_by_its_name() {
        for (config, word) in [
            (
                json!({"down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"]}),
                "AttnDownBlock2D",
            ),
            (
                json!({"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}),
                "UNetMidBlock2DSimpleCrossAttn",
            ),
            (json!({"class_embed_type": "timestep"}), "class_embed_type"),
            (json!({"addition_embed_type": "image"}), "image"),
            (json!({"up_block_types": ["UpBlock2D"]}), "4 entries"),
            (json!({"attention_head_dim": [8, 8]}), "attention_head_dim"),
            (json!({"attention_head_dim": 7}), "heads"),
            (json!({"norm_num_groups": 0}), "above 0"),
        ] {
            let error = read(config.clone()).unwrap_err();
            assert!(error.message().contains(word), "{config}: {error}");
        }
    }
}
