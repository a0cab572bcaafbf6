//! DINOv2: vectors for pictures, learnt without labels. Oquab et al., "DINOv2: Learning Robust
//! Visual Features without Supervision" (arXiv:2304.07193), and Darcet et al., "Vision Transformers
//! Need Registers" (arXiv:2309.16588); the reference is transformers' `modeling_dinov2.py` and
//! `modeling_dinov2_with_registers.py`, whose checkpoint keys it reads.

use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use super::attention::Biases;
use super::classes;
use super::config::Config;
use super::folder::ModelFolder;
use super::image_processor::ImageProcessor;
use super::layers::{Activation, Linear};
use super::network_spec::{FrameEncoderSpec, Load, NetworkSpec, NetworkTask};
use super::picture_encoder::{Features, PictureEncoder};
use super::transformer::{AttentionKeys, LayerKeys, TransformerConfig};
use super::vision_tower::{Grid, VisionConfig, VisionSpec, VisionTower};
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::tensor::Precision;

/// Its entry in the table of networks.
pub const NETWORK: NetworkSpec = NetworkSpec {
    classes: &[
        ("Dinov2ForImageClassification", NetworkTask::EncodeFrames),
        ("Dinov2Model", NetworkTask::EncodeFrames),
        (
            "Dinov2WithRegistersForImageClassification",
            NetworkTask::EncodeFrames,
        ),
        ("Dinov2WithRegistersModel", NetworkTask::EncodeFrames),
    ],
    load: Load::FrameEncoder(FrameEncoderSpec {
        load: |folder, device, precision| Ok(Box::new(Dinov2::load(folder, device, precision)?)),
        class_names,
        unit_length: false,
    }),
};

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
        if NETWORK.task(architecture).is_none() {
            return Err(Error::config(format!(
                "a Dinov2Model is needed here, it is a {architecture}"
            )));
        }
        let registers = architecture.contains("WithRegisters");
        let classifier = architecture.ends_with("ForImageClassification");
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

/// The names of its classes, where it has a classifier, without its weights.
fn class_names(folder: &ModelFolder) -> Result<Option<Arc<[Arc<str>]>>> {
    let config = Dinov2Config::read(folder.config(), folder.architecture()?)?;
    config
        .classes
        .map(|count| classes::names(folder.config(), count))
        .transpose()
}

/// The network with its weights.
#[derive(Debug)]
pub struct Dinov2 {
    vision: VisionTower,
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
        let preprocess = ImageProcessor::load(folder, ImageProcessor::dinov2())?;
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
        let width = config.tower.width;
        let scope = match (config.classes, config.registers) {
            (None, _) => root.clone(),
            (Some(_), None) => &root / "dinov2",
            (Some(_), Some(_)) => &root / "dinov2_with_registers",
        };
        // Of pre-training, where patches are hidden.
        weights.allow_surplus("embeddings.mask_token");
        let tower = VisionConfig {
            layers: config.tower.clone(),
            image: config.image,
            patch: config.patch,
        };
        let network = Self {
            before: 1 + config.registers.unwrap_or(0),
            vision: VisionTower::load(&scope, &tower, &spec(config), &preprocess)?,
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
}

impl PictureEncoder for Dinov2 {
    fn device(&self) -> Device {
        self.device
    }

    fn size(&self) -> [i64; 2] {
        self.vision.size()
    }

    fn encode(&self, frames: &Tensor) -> Result<Features> {
        let _frozen = crate::tensor::guard();
        let frames = self.preprocess.fit(frames)?;
        let Some(classifier) = &self.classifier else {
            return Ok(Features {
                embedding: self.vision.class_state(&frames)?.f_to_kind(Kind::Float)?,
                probabilities: None,
            });
        };
        let states = self.vision.states(&frames)?.f_to_kind(Kind::Float)?;
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

/// DINOv2's tower as it differs from others: positions for pictures of any size, registers where
/// there are some, and factors that scale what its layers add.
fn spec(config: &Dinov2Config) -> VisionSpec {
    let projections = [
        "attention.attention.query",
        "attention.attention.key",
        "attention.attention.value",
        "attention.output.dense",
    ];
    let biases = Biases {
        query: config.qkv_bias,
        key: config.qkv_bias,
        value: config.qkv_bias,
        out: true,
    };
    VisionSpec {
        patches: "patch_embeddings.projection",
        patch_bias: true,
        class_token: Some("cls_token"),
        registers: config.registers.map(|count| ("register_tokens", count)),
        positions: "position_embeddings",
        batched: true,
        grid: Grid::Interpolated {
            antialias: config.registers.is_some(),
        },
        pre_norm: None,
        layers: "encoder.layer",
        layer: LayerKeys {
            norm1: "norm1",
            attention: AttentionKeys::Separate(projections, biases),
            norm2: "norm2",
            mlp: if config.gated {
                ["mlp.weights_in", "mlp.weights_out"]
            } else {
                ["mlp.fc1", "mlp.fc2"]
            },
            gated: config.gated,
            layer_scale: Some(["layer_scale1.lambda1", "layer_scale2.lambda1"]),
        },
        final_norm: "layernorm",
    }
}

#[cfg(test)]
pub(in crate::models) mod tests;
