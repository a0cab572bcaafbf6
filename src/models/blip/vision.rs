//! BLIP's image tower: a vision transformer, all of whose places are looked at.

use crate::error::Result;
use crate::models::config::Config;
use crate::models::image_processor::ImageProcessor;
use crate::models::layers::Activation;
use crate::models::transformer::{AttentionKeys, LayerKeys, TransformerConfig};
use crate::models::vision_tower::{Grid, VisionConfig, VisionSpec, VisionTower};
use crate::models::weights::Scope;

/// BLIP's tower as it differs from others: query, key and value are one product in the checkpoint,
/// too.
const SPEC: VisionSpec = VisionSpec {
    patches: "patch_embedding",
    patch_bias: true,
    class_token: Some("class_embedding"),
    registers: None,
    positions: "position_embedding",
    batched: true,
    grid: Grid::Fixed,
    pre_norm: None,
    layers: "encoder.layers",
    layer: LayerKeys {
        attention: AttentionKeys::Fused(["self_attn.qkv", "self_attn.projection"]),
        ..LayerKeys::CLIP
    },
    final_norm: "post_layernorm",
};

/// The tower's sizes; the default is the base model's.
#[derive(Debug, Clone, PartialEq)]
pub struct BlipVisionConfig {
    /// Its layers.
    pub tower: TransformerConfig,
    /// Rows and columns of pictures.
    pub image: i64,
    /// Rows and columns of a patch.
    pub patch: i64,
}

impl Default for BlipVisionConfig {
    fn default() -> Self {
        let tower = TransformerConfig {
            width: 768,
            heads: 12,
            layers: 12,
            intermediate: 3072,
            activation: Activation::Gelu,
            epsilon: 1e-5,
        };
        Self {
            tower,
            image: 384,
            patch: 16,
        }
    }
}

impl BlipVisionConfig {
    /// From the `vision_config` of a whole model's config.json: the fields of
    /// [`TransformerConfig::read`], `image_size` and `patch_size`; what is missing is the
    /// default's.
    ///
    /// # Errors
    /// Model, where a field is not what it must be.
    pub fn read(config: &Config) -> Result<Self> {
        let (default, section) = (Self::default(), config.section("vision_config")?);
        let read = Self {
            tower: TransformerConfig::read(&section, &default.tower, "gelu")?,
            image: section.integer_or("image_size", default.image)?,
            patch: section.integer_or("patch_size", default.patch)?,
        };
        if read.patch == 0 || read.image < read.patch {
            return Err(section.error("`patch_size` must be above 0 and at most `image_size`"));
        }
        Ok(read)
    }
}

/// The tower under `scope`, all of whose places are looked at.
///
/// # Errors
/// Model, where the weights do not fit.
pub(super) fn load(
    scope: &Scope<'_>,
    config: &BlipVisionConfig,
    processor: &ImageProcessor,
) -> Result<VisionTower> {
    let tower = VisionConfig {
        layers: config.tower.clone(),
        image: config.image,
        patch: config.patch,
    };
    VisionTower::load(scope, &tower, &SPEC, processor)
}
