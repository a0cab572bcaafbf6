//! The image tower of CLIP, SigLIP, DINOv2 and BLIP: a vision transformer (Dosovitskiy et al., "An
//! Image is Worth 16x16 Words", arXiv:2010.11929). Each network gives its differences as a
//! [`VisionSpec`], and makes its own of what the tower gives.

use tch::Tensor;

use super::image_processor::ImageProcessor;
use super::layers::LayerNorm;
use super::patch_embedding::{PatchEmbedding, PatchWeights, interpolate_positions};
use super::transformer::{LayerKeys, PreNormLayer, TransformerConfig, load_layers};
use super::weights::Scope;
use crate::error::{Error, Result};

/// A tower's sizes.
#[derive(Debug, Clone, PartialEq)]
pub struct VisionConfig {
    /// Its layers.
    pub layers: TransformerConfig,
    /// Rows and columns of the pictures that its positions were learnt for.
    pub image: i64,
    /// Rows and columns of a patch.
    pub patch: i64,
}

/// What is not the same in all towers. Keys are those of the checkpoint.
#[derive(Debug, Clone, Copy)]
pub struct VisionSpec {
    /// Of the convolution over patches.
    pub patches: &'static str,
    /// Whether it has a bias.
    pub patch_bias: bool,
    /// Of the class token, which stands before the patches; none where there is none.
    pub class_token: Option<&'static str>,
    /// Of the registers, `[1, count, width]`, and how many: places after the class token that stand
    /// for nothing (Darcet et al., arXiv:2309.16588).
    pub registers: Option<(&'static str, i64)>,
    /// Of the table of positions, the class token's first.
    pub positions: &'static str,
    /// Whether class token and positions lie under one or two dimensions of size 1, as parameters
    /// that were made to be added to a batch: `[1, 1, width]` and `[1, count, width]`.
    pub batched: bool,
    /// How positions are read at another grid than theirs.
    pub grid: Grid,
    /// Of the layer norm before the layers; none where there is none.
    pub pre_norm: Option<&'static str>,
    /// Of the list of layers.
    pub layers: &'static str,
    /// Of the weights in a layer.
    pub layer: LayerKeys,
    /// Of the layer norm after the layers.
    pub final_norm: &'static str,
}

/// How positions are read for pictures of another size than they were learnt for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grid {
    /// They are not: such pictures are refused.
    Fixed,
    /// By cubics.
    Interpolated {
        /// Whether what is finer than the new grid is smoothed away first.
        antialias: bool,
    },
}

/// The tower with its weights.
#[derive(Debug)]
pub struct VisionTower {
    pub(super) patches: PatchEmbedding,
    pub(super) pre_norm: Option<LayerNorm>,
    pub(super) layers: Vec<PreNormLayer>,
    pub(super) final_norm: LayerNorm,
}

impl VisionTower {
    /// The tower under `scope`, for pictures as `processor` makes them.
    ///
    /// # Errors
    /// Model, where the weights do not fit; overload, where memory is short.
    pub fn load(
        scope: &Scope<'_>,
        config: &VisionConfig,
        spec: &VisionSpec,
        processor: &ImageProcessor,
    ) -> Result<Self> {
        let (width, epsilon) = (config.layers.width, config.layers.epsilon);
        let norm = |key: &str| LayerNorm::load(&(scope / key), width, epsilon);
        // Older checkpoints store 0, 1, 2 and so on.
        scope.weights().allow_surplus("embeddings.position_ids");
        let weights = patch_weights(&(scope / "embeddings"), config, spec, processor)?;
        Ok(Self {
            patches: PatchEmbedding::build(scope.weights(), &weights, processor)?,
            pre_norm: spec.pre_norm.map(norm).transpose()?,
            layers: load_layers(&(scope / spec.layers), &config.layers, &spec.layer)?,
            final_norm: norm(spec.final_norm)?,
        })
    }

    /// Rows and columns of the frames that it takes.
    pub fn size(&self) -> [i64; 2] {
        self.patches.size()
    }

    /// Bytes `[n, h, w, 3]` of [`size`](Self::size) to what the layers make of every place, through
    /// the final layer norm: `[n, t, width]` in the model's precision.
    ///
    /// # Errors
    /// Model, where the input has another shape; overload, where memory is short.
    pub fn states(&self, frames: &Tensor) -> Result<Tensor> {
        self.final_norm
            .forward(&through(&self.layers, self.embed(frames)?)?)
    }

    /// The same of the first place alone, `[n, width]`: of the last layer nothing else is computed.
    ///
    /// # Errors
    /// As for [`states`](Self::states).
    pub fn class_state(&self, frames: &Tensor) -> Result<Tensor> {
        let (last, layers) = self
            .layers
            .split_last()
            .ok_or_else(|| Error::bug("an image tower without layers"))?;
        let x = through(layers, self.embed(frames)?)?;
        self.final_norm.forward(&last.forward_one(&x, 0)?)
    }

    fn embed(&self, frames: &Tensor) -> Result<Tensor> {
        let x = self.patches.forward(frames)?;
        match &self.pre_norm {
            Some(norm) => norm.forward(&x),
            None => Ok(x),
        }
    }
}

fn through(layers: &[PreNormLayer], mut x: Tensor) -> Result<Tensor> {
    for layer in layers {
        x = layer.forward(&x, false)?;
    }
    Ok(x)
}

/// The convolution over patches, what stands before them, and their positions at the grid of the
/// pictures that are read.
fn patch_weights(
    scope: &Scope<'_>,
    config: &VisionConfig,
    spec: &VisionSpec,
    processor: &ImageProcessor,
) -> Result<PatchWeights> {
    let (width, patch) = (config.layers.width, config.patch);
    let count = (config.image / patch) * (config.image / patch);
    let first = i64::from(spec.class_token.is_some());
    let table = |key: &str, rows: i64| -> Result<Tensor> {
        let shape = [1, rows, width];
        Ok(scope.take_f32(key, &shape)?.f_select(0, 0)?)
    };
    let positions = if spec.batched {
        table(spec.positions, first + count)?
    } else {
        scope.take_f32(spec.positions, &[first + count, width])?
    };
    let mut prefix = Vec::new();
    if let Some(key) = spec.class_token {
        let class = if spec.batched {
            table(key, 1)?
        } else {
            scope.take_f32(key, &[width])?.f_view([1, width])?
        };
        prefix.push(class.f_add(&positions.f_narrow(0, 0, 1)?)?);
    }
    if let Some((key, registers)) = spec.registers {
        // Registers have no positions.
        prefix.push(table(key, registers)?);
    }
    let conv = scope / spec.patches;
    let patches = positions.f_narrow(0, first, count)?;
    let grid = processor
        .size()
        .unwrap_or([config.image; 2])
        .map(|pixels| pixels / patch);
    Ok(PatchWeights {
        weight: conv.take_f32("weight", &[width, 3, patch, patch])?,
        bias: match spec.patch_bias {
            true => Some(conv.take_f32("bias", &[width])?),
            false => None,
        },
        positions: match spec.grid {
            Grid::Fixed => patches,
            Grid::Interpolated { antialias } => interpolate_positions(&patches, grid, antialias)?,
        },
        before: match prefix.is_empty() {
            true => None,
            false => Some(Tensor::f_cat(&prefix, 0)?),
        },
    })
}
