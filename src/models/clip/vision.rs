//! CLIP's image tower: a vision transformer whose first place, which is no patch, stands for the
//! picture.

use tch::Tensor;

use crate::error::Result;
use crate::models::config::Config;
use crate::models::image_processor::ImageProcessor;
use crate::models::layers::{Activation, Linear};
use crate::models::transformer::{LayerKeys, TransformerConfig};
use crate::models::vision_tower::{Grid, VisionConfig, VisionSpec, VisionTower};
use crate::models::weights::Scope;

/// CLIP's tower as it differs from others: a class token, patches without a bias, a layer norm
/// before the layers (under the checkpoint's own spelling).
const SPEC: VisionSpec = VisionSpec {
    patches: "patch_embedding",
    patch_bias: false,
    class_token: Some("class_embedding"),
    registers: None,
    positions: "position_embedding.weight",
    batched: false,
    grid: Grid::Fixed,
    pre_norm: Some("pre_layrnorm"),
    layers: "encoder.layers",
    layer: LayerKeys::CLIP,
    final_norm: "post_layernorm",
};

/// The tower's sizes; the default is ViT-B/32's.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipVisionConfig {
    /// Its layers.
    pub tower: TransformerConfig,
    /// Rows and columns of pictures.
    pub image: i64,
    /// Rows and columns of a patch.
    pub patch: i64,
    /// Width of the projection.
    pub projection: i64,
}

impl Default for ClipVisionConfig {
    fn default() -> Self {
        let tower = TransformerConfig {
            width: 768,
            heads: 12,
            layers: 12,
            intermediate: 3072,
            activation: Activation::QuickGelu,
            epsilon: 1e-5,
        };
        Self {
            tower,
            image: 224,
            patch: 32,
            projection: 512,
        }
    }
}

impl ClipVisionConfig {
    /// From the config.json of an image tower, or from the `vision_config` of a whole model's: the
    /// fields of `TransformerConfig::read`, `image_size`, `patch_size` and `projection_dim`; what
    /// is missing is the default's.
    ///
    /// # Errors
    /// Model, where a field is not what it must be.
    pub fn read(config: &Config) -> Result<Self> {
        let default = Self::default();
        let whole = config.field("vision_config").is_some();
        let section = if whole {
            config.section("vision_config")?
        } else {
            config.clone()
        };
        let read = Self {
            tower: TransformerConfig::read(&section, &default.tower, "quick_gelu")?,
            image: section.integer_or("image_size", default.image)?,
            patch: section.integer_or("patch_size", default.patch)?,
            projection: if whole { config } else { &section }
                .integer_or("projection_dim", default.projection)?,
        };
        if read.patch == 0
            || read.image < read.patch
            || read.projection == 0
            || read.tower.layers == 0
        {
            return Err(section.error(
                "`patch_size` must be above 0 and at most `image_size`, the other sizes above 0",
            ));
        }
        Ok(read)
    }
}

/// The tower with its weights.
#[derive(Debug)]
pub struct ClipVision {
    pub(super) tower: VisionTower,
    projection: Linear,
}

impl ClipVision {
    /// The tower as a part of a model: `vision_model` and `visual_projection` under `root`.
    ///
    /// # Errors
    /// Model, where the weights do not fit.
    pub fn load_part(
        root: &Scope<'_>,
        config: &ClipVisionConfig,
        preprocess: &ImageProcessor,
    ) -> Result<Self> {
        let tower = VisionConfig {
            layers: config.tower.clone(),
            image: config.image,
            patch: config.patch,
        };
        Ok(Self {
            tower: VisionTower::load(&(root / "vision_model"), &tower, &SPEC, preprocess)?,
            projection: Linear::load_biased(
                &(root / "visual_projection"),
                config.tower.width,
                config.projection,
                false,
            )?,
        })
    }

    /// Rows and columns of the frames that it takes.
    pub fn size(&self) -> [i64; 2] {
        self.tower.size()
    }

    /// Bytes `[n, h, w, 3]` of [`size`](Self::size) to vectors `[n, projection]`, not of length 1,
    /// in the model's precision.
    ///
    /// # Errors
    /// Model, where the input has another shape; overload, where memory is short.
    pub fn forward(&self, frames: &Tensor) -> Result<Tensor> {
        self.projection.forward(&self.tower.class_state(frames)?)
    }
}
