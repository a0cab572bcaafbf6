//! ResNet for pictures: a vector and ImageNet classes for each frame. He et al., "Deep Residual
//! Learning for Image Recognition" (arXiv:1512.03385); the reference is torchvision's `resnet.py`
//! (v1.5: a bottleneck's stride is in its 3x3 convolution), whose checkpoint keys it reads, with a
//! config.json as transformers' `ResNetConfig` has it.

use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use super::classes;
use super::config::Config;
use super::folder::ModelFolder;
use super::layers::{Conv2d, ConvConfig, Linear};
use super::network_spec::{FrameEncoderSpec, Load, NetworkSpec, NetworkTask};
use super::picture_encoder::{Features, PictureEncoder};
use super::weights::{Scope, Weights};
use crate::error::Result;
use crate::tensor::{Precision, channels_last, normalise, resize};

/// Its entry in the table of networks.
pub const NETWORK: NetworkSpec = NetworkSpec {
    classes: &[("ResNetForImageClassification", NetworkTask::EncodeFrames)],
    load: Load::FrameEncoder(FrameEncoderSpec {
        load: |folder, device, precision| Ok(Box::new(ResNet::load(folder, device, precision)?)),
        class_names: |folder| class_names(folder).map(Some),
        unit_length: false,
    }),
};

/// Rows and columns of the pictures that it was trained on; views of this size need no scaling
/// here.
pub const SIZE: i64 = 224;

/// Mean and deviation of ImageNet's pixels, which inputs are normalised by.
const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const STD: [f64; 3] = [0.229, 0.224, 0.225];

/// A bottleneck's last convolution has this many times the channels of its first.
const EXPANSION: i64 = 4;

/// Which block a ResNet is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerType {
    /// Two 3x3 convolutions (18 and 34 layers).
    Basic,
    /// 1x1, 3x3, 1x1 (50 layers and more).
    Bottleneck,
}

/// The network's sizes; the default is ResNet-18 on ImageNet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResNetConfig {
    /// Blocks a stage.
    pub depths: Vec<i64>,
    /// Channels after each stage.
    pub hidden_sizes: Vec<i64>,
    /// The block.
    pub layer_type: LayerType,
    /// Channels after the stem.
    pub embedding_size: i64,
    /// Classes.
    pub num_labels: i64,
}

impl Default for ResNetConfig {
    fn default() -> Self {
        let (depths, hidden_sizes) = (vec![2, 2, 2, 2], vec![64, 128, 256, 512]);
        Self {
            depths,
            hidden_sizes,
            layer_type: LayerType::Basic,
            embedding_size: 64,
            num_labels: 1000,
        }
    }
}

impl ResNetConfig {
    /// From config.json: `depths`, `hidden_sizes`, `layer_type` (`basic` or `bottleneck`),
    /// `embedding_size`, `num_labels`; what is missing is the default's.
    ///
    /// # Errors
    /// Model, where a field is not what it must be.
    pub fn read(config: &Config) -> Result<Self> {
        let default = Self::default();
        let layer_type = match config.string_or("layer_type", "basic")? {
            "basic" => LayerType::Basic,
            "bottleneck" => LayerType::Bottleneck,
            other => {
                return Err(config.error(format_args!(
                    "`layer_type` must be basic or bottleneck, it is {other}"
                )));
            }
        };
        let read = Self {
            depths: config.integers_or("depths", &default.depths)?,
            hidden_sizes: config.integers_or("hidden_sizes", &default.hidden_sizes)?,
            layer_type,
            embedding_size: config.integer_or("embedding_size", default.embedding_size)?,
            num_labels: classes::count(config, default.num_labels)?,
        };
        let whole = read
            .depths
            .iter()
            .chain(&read.hidden_sizes)
            .all(|&size| size > 0);
        if read.depths.len() != read.hidden_sizes.len()
            || read.depths.is_empty()
            || !whole
            || read.num_labels == 0
        {
            return Err(config.error(
                "`depths` and `hidden_sizes` must be equally long lists of sizes above 0, \
                 `num_labels` above 0",
            ));
        }
        if read.layer_type == LayerType::Bottleneck
            && read.hidden_sizes.iter().any(|size| size % EXPANSION != 0)
        {
            return Err(config.error(format_args!(
                "`hidden_sizes` of a bottleneck must be multiples of {EXPANSION}"
            )));
        }
        Ok(read)
    }
}

/// The network with its weights.
#[derive(Debug)]
pub struct ResNet {
    stem: Conv2d,
    blocks: Vec<Block>,
    fc: Linear,
    labels: Arc<[Arc<str>]>,
    dim: i64,
    device: Device,
    precision: Precision,
}

/// The class names of a folder's config.json, without loading its weights.
///
/// # Errors
/// Model, where config.json does not fit.
fn class_names(folder: &ModelFolder) -> Result<Arc<[Arc<str>]>> {
    classes::names(
        folder.config(),
        ResNetConfig::read(folder.config())?.num_labels,
    )
}

impl ResNet {
    /// The network of a folder whose architecture is `ResNetForImageClassification`.
    ///
    /// # Errors
    /// Config, where the folder is another network's; model, where its config or weights do not
    /// fit.
    pub fn load(folder: &ModelFolder, device: Device, precision: Precision) -> Result<Self> {
        NETWORK.expect(folder)?;
        let config = ResNetConfig::read(folder.config())?;
        let labels = classes::names(folder.config(), config.num_labels)?;
        Ok(Self {
            labels,
            ..Self::build(folder.weights(device, precision)?, &config)?
        })
    }

    /// The network of these weights; classes are named `class_0` and so on.
    ///
    /// # Errors
    /// Model, where the weights do not fit.
    pub fn build(weights: Weights, config: &ResNetConfig) -> Result<Self> {
        let _guard = crate::tensor::guard();
        let (device, precision) = (weights.device(), weights.precision());
        let root = weights.root();
        let mut input = config.embedding_size;
        let geometry = ConvConfig {
            input: 3,
            output: input,
            kernel: 7,
            stride: 2,
        };
        let stem = Conv2d::load_folded(&(&root / "conv1"), false, &(&root / "bn1"), geometry)?;
        let mut blocks = Vec::new();
        for (stage, (&depth, &output)) in config.depths.iter().zip(&config.hidden_sizes).enumerate()
        {
            for index in 0..depth {
                let stride = if index == 0 && stage > 0 { 2 } else { 1 };
                let scope = &root / format!("layer{}", stage + 1) / index;
                blocks.push(Block::load(
                    &scope,
                    config.layer_type,
                    Shape {
                        input,
                        output,
                        stride,
                    },
                )?);
                input = output;
            }
        }
        // The classifier decides, and is small: f32 in every precision.
        let fc = Linear::load_f32(&(&root / "fc"), input, config.num_labels)?;
        let labels = classes::numbered(config.num_labels);
        weights.finish()?;
        Ok(Self {
            stem,
            blocks,
            fc,
            labels,
            dim: input,
            device,
            precision,
        })
    }

    /// Where it runs.
    pub fn device(&self) -> Device {
        self.device
    }

    /// What it computes in.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Length of a frame's vector.
    pub fn dim(&self) -> i64 {
        self.dim
    }

    /// The classes' names, shared: the first lemma of `id2label`.
    pub fn labels(&self) -> Arc<[Arc<str>]> {
        Arc::clone(&self.labels)
    }

    /// Frames on its device, bytes `[n, h, w, 3]`, to vectors (the mean over the last stage's
    /// pixels, before the classifier) and classes. Frames of any size are taken as they are; it was
    /// trained on [`SIZE`] x [`SIZE`].
    ///
    /// # Errors
    /// Model, where the input has another shape; overload, where memory is short.
    pub fn forward(&self, frames: &Tensor) -> Result<Features> {
        let _guard = crate::tensor::guard();
        self.forward_normalised(&normalise(frames, MEAN, STD, self.precision)?)
    }

    /// As [`forward`](Self::forward), with frames scaled to [`SIZE`] x [`SIZE`] first.
    ///
    /// # Errors
    /// As there.
    pub fn forward_resized(&self, frames: &Tensor) -> Result<Features> {
        let _guard = crate::tensor::guard();
        let pictures = normalise(frames, MEAN, STD, Precision::F32)?;
        let resized = resize(&pictures, SIZE, SIZE)?.f_to_kind(self.precision.kind())?;
        self.forward_normalised(&channels_last(&resized)?)
    }

    fn forward_normalised(&self, pictures: &Tensor) -> Result<Features> {
        // ReLU grows with its input, so it may follow the maximum that it stood before.
        let mut x = self
            .stem
            .forward(pictures)?
            .f_max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false)?
            .f_relu_()?;
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        let embedding = x.f_mean_dim([2, 3].as_slice(), false, Kind::Float)?;
        let probabilities = self.fc.forward(&embedding)?.f_softmax(-1, Kind::Float)?;
        Ok(Features {
            embedding,
            probabilities: Some(probabilities),
        })
    }
}

impl PictureEncoder for ResNet {
    fn device(&self) -> Device {
        self.device
    }

    fn size(&self) -> [i64; 2] {
        [SIZE; 2]
    }

    fn encode(&self, frames: &Tensor) -> Result<Features> {
        if frames.size().get(1..3) == Some(&[SIZE; 2]) {
            self.forward(frames)
        } else {
            self.forward_resized(frames)
        }
    }
}

/// Channels into and out of a block, and the step of its stride.
#[derive(Debug, Clone, Copy)]
struct Shape {
    input: i64,
    output: i64,
    stride: i64,
}

#[derive(Debug)]
struct Block {
    convolutions: Vec<Conv2d>,
    downsample: Option<Conv2d>,
}

impl LayerType {
    /// The convolutions of a block, in their order.
    fn convolutions(self, shape: Shape) -> Vec<ConvConfig> {
        let Shape {
            input,
            output,
            stride,
        } = shape;
        let convolution = |input, output, kernel, stride| ConvConfig {
            input,
            output,
            kernel,
            stride,
        };
        match self {
            LayerType::Basic => vec![
                convolution(input, output, 3, stride),
                convolution(output, output, 3, 1),
            ],
            LayerType::Bottleneck => {
                let inner = output / EXPANSION;
                vec![
                    convolution(input, inner, 1, 1),
                    convolution(inner, inner, 3, stride),
                    convolution(inner, output, 1, 1),
                ]
            }
        }
    }
}

impl Block {
    fn load(scope: &Scope<'_>, kind: LayerType, shape: Shape) -> Result<Self> {
        let Shape {
            input,
            output,
            stride,
        } = shape;
        let mut convolutions = Vec::new();
        for (number, geometry) in (1..).zip(kind.convolutions(shape)) {
            let (conv, norm) = (
                scope / format!("conv{number}"),
                scope / format!("bn{number}"),
            );
            convolutions.push(Conv2d::load_folded(&conv, false, &norm, geometry)?);
        }
        let downsample = if stride != 1 || input != output {
            let place = scope / "downsample";
            Some(Conv2d::load_folded(
                &(&place / 0),
                false,
                &(&place / 1),
                ConvConfig {
                    input,
                    output,
                    kernel: 1,
                    stride,
                },
            )?)
        } else {
            None
        };
        Ok(Self {
            convolutions,
            downsample,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let shortcut = match &self.downsample {
            Some(convolution) => convolution.forward(x)?,
            None => x.shallow_clone(),
        };
        let mut inside = x.shallow_clone();
        for (index, convolution) in self.convolutions.iter().enumerate() {
            inside = convolution.forward(&inside)?;
            if index + 1 < self.convolutions.len() {
                inside = inside.f_relu_()?;
            }
        }
        Ok(inside.f_add_(&shortcut)?.f_relu_()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn config_is_read_and_refused() {
        assert_eq!(
            ResNetConfig::read(&Config::of(json!({}))).unwrap(),
            ResNetConfig::default()
        );
        let tiny = json!({"layer_type": "bottleneck", "depths": [1], "hidden_sizes": [8], "embedding_size": 4, "num_labels": 3});
        assert_eq!(
            ResNetConfig::read(&Config::of(tiny)).unwrap().layer_type,
            LayerType::Bottleneck
        );
        for config in [
            json!({"layer_type": "wide"}),
            json!({"depths": [1]}),
            json!({"depths": [0, 1, 1, 1]}),
            json!({"num_labels": 0}),
        ] {
            assert!(
                ResNetConfig::read(&Config::of(config.clone())).is_err(),
                "{config}"
            );
        }
    }
}
