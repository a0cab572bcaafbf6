//! CLIP's image tower: a vision transformer whose first place, which is no patch, stands for the
//! picture.

use tch::Tensor;

use crate::error::Result;
use crate::models::config::Config;
use crate::models::image_processor::ImageProcessor;
use crate::models::layers::{Activation, LayerNorm, Linear};
use crate::models::patch_embedding::{PatchEmbedding, PatchWeights};
use crate::models::transformer::{TransformerConfig, TransformerLayer, layers};
use crate::models::weights::Scope;

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
    /// fields of [`TransformerConfig::read`], `image_size`, `patch_size` and `projection_dim`; what
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
    pub(super) patches: PatchEmbedding,
    pub(super) norm_before: LayerNorm,
    pub(super) layers: Vec<TransformerLayer>,
    last: TransformerLayer,
    norm_after: LayerNorm,
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
        let (scope, width, tower) = (root / "vision_model", config.tower.width, &config.tower);
        let embeddings = &scope / "embeddings";
        root.weights().allow_surplus("embeddings.position_ids");
        let patch = config.patch;
        let count = (config.image / patch) * (config.image / patch);
        let positions =
            (&embeddings / "position_embedding").take_f32("weight", &[count + 1, width])?;
        let class = embeddings.take_f32("class_embedding", &[width])?;
        let parts = PatchWeights {
            weight: (&embeddings / "patch_embedding")
                .take_f32("weight", &[width, 3, patch, patch])?,
            bias: None,
            before: Some(positions.f_narrow(0, 0, 1)?.f_add(&class)?),
            positions: positions.f_narrow(0, 1, count)?,
        };
        let mut layers = layers(&(&scope / "encoder" / "layers"), tower)?;
        let last = layers
            .pop()
            .ok_or_else(|| crate::error::Error::model("an image tower without layers"))?;
        Ok(Self {
            patches: PatchEmbedding::new(root.weights(), &parts, preprocess)?,
            // The checkpoint's own spelling.
            norm_before: LayerNorm::load(&(&scope / "pre_layrnorm"), width, tower.epsilon)?,
            layers,
            last,
            norm_after: LayerNorm::load(&(&scope / "post_layernorm"), width, tower.epsilon)?,
            projection: Linear::load_biased(
                &(root / "visual_projection"),
                width,
                config.projection,
                false,
            )?,
        })
    }

    /// Rows and columns of the frames that it takes.
    pub fn size(&self) -> [i64; 2] {
        self.patches.size()
    }

    /// Bytes `[n, h, w, 3]` of [`size`](Self::size) to vectors `[n, projection]`, not of length 1,
    /// in the model's precision.
    ///
    /// # Errors
    /// Model, where the input has another shape; overload, where memory is short.
    pub fn forward(&self, frames: &Tensor) -> Result<Tensor> {
        let mut x = self.norm_before.forward(&self.patches.forward(frames)?)?;
        for layer in &self.layers {
            x = layer.forward(&x, false)?;
        }
        self.projection
            .forward(&self.norm_after.forward(&self.last.forward_one(&x, 0)?)?)
    }
}
