//! BLIP's image tower: a vision transformer, all of whose places are looked at.

use tch::Tensor;

use crate::error::Result;
use crate::models::attention::{Attention, AttentionConfig};
use crate::models::config::Config;
use crate::models::image_processor::ImageProcessor;
use crate::models::layers::{Activation, LayerNorm, Linear};
use crate::models::patch_embedding::{PatchEmbedding, PatchWeights};
use crate::models::transformer::{Mlp, TransformerConfig, TransformerLayer};
use crate::models::weights::Scope;

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

/// The tower with its weights.
#[derive(Debug)]
pub struct BlipVision {
    pub(super) patches: PatchEmbedding,
    pub(super) layers: Vec<TransformerLayer>,
    norm: LayerNorm,
}

impl BlipVision {
    /// The tower as a part of a model: `vision_model` under `root`.
    ///
    /// # Errors
    /// Model, where the weights do not fit.
    pub fn load_part(
        root: &Scope<'_>,
        config: &BlipVisionConfig,
        preprocess: &ImageProcessor,
    ) -> Result<Self> {
        let (scope, tower) = (root / "vision_model", &config.tower);
        let (embeddings, width) = (&scope / "embeddings", tower.width);
        let count = (config.image / config.patch) * (config.image / config.patch);
        let positions = embeddings
            .take_f32("position_embedding", &[1, count + 1, width])?
            .f_squeeze_dim(0)?;
        let class = embeddings
            .take_f32("class_embedding", &[1, 1, width])?
            .f_view([1, width])?;
        let convolution = &embeddings / "patch_embedding";
        let parts = PatchWeights {
            weight: convolution.take_f32("weight", &[width, 3, config.patch, config.patch])?,
            bias: Some(convolution.take_f32("bias", &[width])?),
            before: Some(positions.f_narrow(0, 0, 1)?.f_add(&class)?),
            positions: positions.f_narrow(0, 1, count)?,
        };
        let layers = &scope / "encoder" / "layers";
        Ok(Self {
            patches: PatchEmbedding::new(root.weights(), &parts, preprocess)?,
            layers: (0..tower.layers)
                .map(|index| layer(&(&layers / index), tower))
                .collect::<Result<_>>()?,
            norm: LayerNorm::load(&(&scope / "post_layernorm"), width, tower.epsilon)?,
        })
    }

    /// Rows and columns of the frames that it takes.
    pub fn size(&self) -> [i64; 2] {
        self.patches.size()
    }

    /// Bytes `[n, h, w, 3]` of [`size`](Self::size) to `[n, 1 + patches, width]`, in the model's
    /// precision.
    ///
    /// # Errors
    /// Model, where the input has another shape; overload, where memory is short.
    pub fn forward(&self, frames: &Tensor) -> Result<Tensor> {
        let mut x = self.patches.forward(frames)?;
        for layer in &self.layers {
            x = layer.forward(&x, false)?;
        }
        self.norm.forward(&x)
    }
}

/// A layer whose query, key and value are one product in the checkpoint, too.
fn layer(scope: &Scope<'_>, tower: &TransformerConfig) -> Result<TransformerLayer> {
    let (attention, width) = (scope / "self_attn", tower.width);
    let (fused, out) = (
        Linear::load(&(&attention / "qkv"), width, 3 * width)?,
        Linear::load(&(&attention / "projection"), width, width)?,
    );
    TransformerLayer::of(
        LayerNorm::load(&(scope / "layer_norm1"), width, tower.epsilon)?,
        Attention::fused(
            fused,
            out,
            AttentionConfig::self_attention(width, tower.heads),
            scope.weights().attention(),
        ),
        LayerNorm::load(&(scope / "layer_norm2"), width, tower.epsilon)?,
        Mlp::new(&(scope / "mlp"), tower)?,
    )
}
