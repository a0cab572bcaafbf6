//! DINOv2: vectors for pictures, learnt without labels. Oquab et al., "DINOv2: Learning Robust
//! Visual Features without Supervision" (arXiv:2304.07193), and Darcet et al., "Vision Transformers
//! Need Registers" (arXiv:2309.16588); the reference is transformers' `modeling_dinov2.py` and
//! `modeling_dinov2_with_registers.py`, whose checkpoint keys it reads.

use tch::{Device, Kind, Tensor};

use super::attention::{Attention, AttentionConfig, Biases};
use super::classes;
use super::config::Config;
use super::folder::ModelFolder;
use super::image_processor::ImageProcessor;
use super::layers::{Activation, LayerNorm, Linear};
use super::patch_embedding::{PatchEmbedding, PatchWeights, interpolate_positions};
use super::picture_encoder::{Features, PictureEncoder};
use super::transformer::{Mlp, TransformerConfig, TransformerLayer};
use super::weights::{Scope, Weights};
use crate::error::{Error, Result};
use crate::tensor::Precision;

/// The network's sizes; the default is base's.
#[derive(Debug, Clone, PartialEq)]
pub struct Dinov2Config {
    /// Its layers.
    pub tower: TransformerConfig,
    /// Rows and columns of the pictures that positions were learnt for.
    pub image: i64,
    /// Rows and columns of a patch.
    pub patch: i64,
    /// Whether query, key and value have biases.
    pub qkv_bias: bool,
    /// Whether the first half of the feed-forward part gates the second.
    pub gated: bool,
    /// Registers: vectors beside the patches that stand for nothing. None for the network without
    /// them, which also reads positions of another grid in another way.
    pub registers: Option<i64>,
    /// Classes, where it has a classifier.
    pub classes: Option<i64>,
}

impl Dinov2Config {
    /// From config.json of `architecture`: the fields of [`TransformerConfig::read`] with
    /// `mlp_ratio` for the intermediate size, `image_size`, `patch_size`, `qkv_bias`,
    /// `use_swiglu_ffn`, `num_register_tokens`, `num_labels`; what is missing is base's.
    ///
    /// # Errors
    /// Config, where it is another network's; model, where a field is not what it must be.
    pub fn read(config: &Config, architecture: &str) -> Result<Self> {
        let (registers, classifier) = match architecture {
            "Dinov2Model" => (false, false),
            "Dinov2ForImageClassification" => (false, true),
            "Dinov2WithRegistersModel" => (true, false),
            "Dinov2WithRegistersForImageClassification" => (true, true),
            other => {
                return Err(Error::config(format!(
                    "a Dinov2Model is needed here, it is a {other}"
                )));
            }
        };
        let width = config.integer_or("hidden_size", 768)?;
        let wide = (width as f64 * config.number_or("mlp_ratio", 4.)?) as i64;
        let gated = config.boolean_or("use_swiglu_ffn", false)?;
        // Two thirds of it, as the gate takes a third part; a multiple of 8.
        let intermediate = if gated {
            (wide * 2 / 3 + 7) / 8 * 8
        } else {
            wide
        };
        let default = TransformerConfig {
            width,
            heads: 12,
            layers: 12,
            intermediate,
            activation: Activation::Gelu,
            epsilon: 1e-6,
        };
        let read = Self {
            tower: TransformerConfig {
                intermediate,
                ..TransformerConfig::read(config, &default, "gelu")?
            },
            image: config.integer_or("image_size", 224)?,
            patch: config.integer_or("patch_size", 14)?,
            qkv_bias: config.boolean_or("qkv_bias", true)?,
            gated,
            registers: registers
                .then(|| config.integer_or("num_register_tokens", 4))
                .transpose()?,
            classes: classifier.then(|| classes::count(config, 2)).transpose()?,
        };
        if read.patch == 0
            || read.image < read.patch
            || read.tower.layers == 0
            || read.classes == Some(0)
        {
            return Err(config.error(
                "`patch_size` must be above 0 and at most `image_size`, the other sizes above 0",
            ));
        }
        Ok(read)
    }
}

/// The network with its weights.
#[derive(Debug)]
pub struct Dinov2 {
    patches: PatchEmbedding,
    layers: Vec<TransformerLayer>,
    norm: LayerNorm,
    classifier: Option<Linear>,
    /// Places before the patches.
    before: i64,
    preprocess: ImageProcessor,
    device: Device,
}

impl Dinov2 {
    /// The network of a folder whose architecture is `Dinov2Model`, `Dinov2ForImageClassification`,
    /// or either `WithRegisters`.
    ///
    /// # Errors
    /// Config, where the folder is another network's; model, where its config or weights do not
    /// fit.
    pub fn load(folder: &ModelFolder, device: Device, precision: Precision) -> Result<Self> {
        let config = Dinov2Config::read(folder.config(), folder.architecture()?)?;
        let preprocess = ImageProcessor::open(folder, ImageProcessor::dinov2())?;
        Self::build(folder.weights(device, precision)?, &config, preprocess)
    }

    /// The network of these weights, for pictures as `preprocess` makes them, of any size.
    ///
    /// # Errors
    /// Model, where the weights do not fit.
    pub fn build(
        weights: Weights,
        config: &Dinov2Config,
        preprocess: ImageProcessor,
    ) -> Result<Self> {
        let _frozen = crate::tensor::guard();
        let (root, device) = (weights.root(), weights.device());
        let (scope, width) = match (config.classes, config.registers) {
            (None, _) => (root.clone(), config.tower.width),
            (Some(_), None) => (&root / "dinov2", config.tower.width),
            (Some(_), Some(_)) => (&root / "dinov2_with_registers", config.tower.width),
        };
        // Of pre-training, where patches are hidden.
        weights.allow_surplus("embeddings.mask_token");
        let parts = parts(&(&scope / "embeddings"), config, &preprocess)?;
        let layers = (0..config.tower.layers)
            .map(|index| layer(&(&scope / "encoder" / "layer" / index), config));
        let network = Self {
            before: 1 + config.registers.unwrap_or(0),
            patches: PatchEmbedding::new(&weights, &parts, &preprocess)?,
            layers: layers.collect::<Result<_>>()?,
            norm: LayerNorm::load(&(&scope / "layernorm"), width, config.tower.epsilon)?,
            // The classifier decides, and is small: f32 in every precision.
            classifier: config
                .classes
                .map(|classes| Linear::load_f32(&(&root / "classifier"), 2 * width, classes))
                .transpose()?,
            preprocess,
            device,
        };
        weights.finish()?;
        Ok(network)
    }

    /// Frames of the network's size to what the layers make of every place, `[n, t, width]`,
    /// through the final layer norm.
    fn states(&self, frames: &Tensor) -> Result<Tensor> {
        let mut x = self.patches.forward(frames)?;
        for layer in &self.layers {
            x = layer.forward(&x, false)?;
        }
        self.norm.forward(&x)
    }

    /// The same of the first place alone, `[n, width]`.
    fn first(&self, frames: &Tensor) -> Result<Tensor> {
        let mut x = self.patches.forward(frames)?;
        let (last, layers) = self
            .layers
            .split_last()
            .ok_or_else(|| Error::bug("a tower without layers"))?;
        for layer in layers {
            x = layer.forward(&x, false)?;
        }
        self.norm.forward(&last.forward_one(&x, 0)?)
    }
}

impl PictureEncoder for Dinov2 {
    fn device(&self) -> Device {
        self.device
    }

    fn size(&self) -> [i64; 2] {
        self.patches.size()
    }

    fn encode(&self, frames: &Tensor) -> Result<Features> {
        let _frozen = crate::tensor::guard();
        let frames = self.preprocess.fit(frames)?;
        let Some(classifier) = &self.classifier else {
            return Ok(Features {
                embedding: self.first(&frames)?.f_to_kind(Kind::Float)?,
                probabilities: None,
            });
        };
        let states = self.states(&frames)?.f_to_kind(Kind::Float)?;
        let embedding = states.f_select(1, 0)?;
        let patches = states.f_narrow(1, self.before, states.size()[1] - self.before)?;
        let seen = Tensor::f_cat(
            &[
                &embedding,
                &patches.f_mean_dim([1].as_slice(), false, None)?,
            ],
            1,
        )?;
        let probabilities = classifier.forward(&seen)?.f_softmax(-1, Kind::Float)?;
        Ok(Features {
            embedding,
            probabilities: Some(probabilities),
        })
    }
}

/// What stands before the patches, their convolution, and their positions at the grid of the
/// pictures that are read.
fn parts(
    scope: &Scope<'_>,
    config: &Dinov2Config,
    preprocess: &ImageProcessor,
) -> Result<PatchWeights> {
    let (width, patch) = (config.tower.width, config.patch);
    let count = (config.image / patch) * (config.image / patch);
    let positions = scope
        .take_f32("position_embeddings", &[1, count + 1, width])?
        .f_select(0, 0)?;
    let class = scope
        .take_f32("cls_token", &[1, 1, width])?
        .f_select(0, 0)?
        .f_add(&positions.f_narrow(0, 0, 1)?)?;
    let before = match config.registers {
        // Registers have no positions.
        Some(registers) => Tensor::f_cat(
            &[
                class,
                scope
                    .take_f32("register_tokens", &[1, registers, width])?
                    .f_select(0, 0)?,
            ],
            0,
        )?,
        None => class,
    };
    let grid = preprocess
        .size()
        .unwrap_or([config.image; 2])
        .map(|pixels| pixels / patch);
    let conv = scope / "patch_embeddings" / "projection";
    Ok(PatchWeights {
        weight: conv.take_f32("weight", &[width, 3, patch, patch])?,
        bias: Some(conv.take_f32("bias", &[width])?),
        positions: interpolate_positions(
            &positions.f_narrow(0, 1, count)?,
            grid,
            config.registers.is_some(),
        )?,
        before: Some(before),
    })
}

/// A layer under DINOv2's names, with the factors that scale what it adds folded in.
fn layer(scope: &Scope<'_>, config: &Dinov2Config) -> Result<TransformerLayer> {
    let (tower, width) = (&config.tower, config.tower.width);
    let scale = |name: &str| (scope / name).take_f32("lambda1", &[width]);
    let (attended, fed) = (scale("layer_scale1")?, scale("layer_scale2")?);
    let names = [
        "attention.query",
        "attention.key",
        "attention.value",
        "output.dense",
    ];
    let biases = Biases {
        query: config.qkv_bias,
        key: config.qkv_bias,
        value: config.qkv_bias,
        out: true,
    };
    let heads = AttentionConfig::self_attention(width, tower.heads);
    let (mlp, inner) = (scope / "mlp", tower.intermediate);
    let mlp = if config.gated {
        let into = Linear::load(&(&mlp / "weights_in"), width, 2 * inner)?;
        Mlp::gated(
            into,
            Linear::load_scaled(&(&mlp / "weights_out"), inner, width, &fed, &fed)?,
        )?
    } else {
        let into = Linear::load(&(&mlp / "fc1"), width, inner)?;
        Mlp::of(
            into,
            tower.activation,
            Linear::load_scaled(&(&mlp / "fc2"), inner, width, &fed, &fed)?,
        )?
    };
    TransformerLayer::of(
        LayerNorm::load(&(scope / "norm1"), width, tower.epsilon)?,
        Attention::load_self_scaled(&(scope / "attention"), names, heads, biases, &attended)?,
        LayerNorm::load(&(scope / "norm2"), width, tower.epsilon)?,
        mlp,
    )
}

#[cfg(test)]
pub(in crate::models) mod tests;
