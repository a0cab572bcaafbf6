//! Encoders of pictures as a worker's model: a frame becomes its vector, and texts vectors of the same space where the network knows texts.

use std::sync::Arc;

use tch::Tensor;

use super::{Encoded, in_groups, rows};
use crate::error::{Error, Result};
use crate::inference::Model;
use crate::models::clip::Clip;
use crate::models::dinov2::{Dinov2, Dinov2Config};
use crate::models::encoder::{PictureEncoder, Scoring};
use crate::models::resnet::{self, ResNet};
use crate::models::siglip::Siglip;
use crate::models::{ModelFolder, classes};
use crate::packet::Frame;
use crate::tensor::{Device, Precision, frames_to_tensor};

/// The networks that make vectors of pictures, by the classes that their config.json names.
pub(in crate::inference) const PICTURES: &[&str] = &[
    "CLIPModel",
    "CLIPVisionModelWithProjection",
    "Dinov2ForImageClassification",
    "Dinov2Model",
    "Dinov2WithRegistersForImageClassification",
    "Dinov2WithRegistersModel",
    "ResNetForImageClassification",
    "SiglipModel",
];

/// A network that makes vectors of pictures.
pub(in crate::inference) struct Pictures(Box<dyn PictureEncoder>);

/// What it is asked.
pub(in crate::inference) enum Asked {
    /// A frame, in a window of one.
    Frames(Vec<Arc<Frame>>),
    /// Texts.
    Texts(Vec<String>),
}

/// What it answers.
#[derive(Debug)]
pub(in crate::inference) enum Told {
    /// Of a frame.
    Frame(Encoded),
    /// Of texts: a vector of length 1 each, and how they are scored.
    Texts(Vec<Vec<f32>>, Scoring),
}

impl Pictures {
    /// The network of a folder whose architecture is one of [`PICTURES`].
    pub fn open(folder: &ModelFolder, device: Device, precision: Precision) -> Result<Self> {
        let network: Box<dyn PictureEncoder> = match folder.architecture()? {
            "ResNetForImageClassification" => Box::new(ResNet::open(folder, device, precision)?),
            "CLIPModel" | "CLIPVisionModelWithProjection" => Box::new(Clip::open(folder, device, precision)?),
            "SiglipModel" => Box::new(Siglip::open(folder, device, precision)?),
            _ => Box::new(Dinov2::open(folder, device, precision)?),
        };
        Ok(Self(network))
    }

    /// The names of its classes, where it has classes, without loading its weights.
    pub fn classes(folder: &ModelFolder) -> Result<Option<Arc<[Arc<str>]>>> {
        match folder.architecture()? {
            "ResNetForImageClassification" => resnet::class_names(folder).map(Some),
            "CLIPModel" | "CLIPVisionModelWithProjection" | "SiglipModel" => Ok(None),
            other => {
                let count = Dinov2Config::read(folder.config(), other)?.classes;
                count.map(|count| classes::names(folder.config(), count)).transpose()
            }
        }
    }

    /// Whether its vectors have length 1, as those of networks that know texts have.
    pub fn are_unit(architecture: &str) -> bool {
        architecture.starts_with("CLIP") || architecture.starts_with("Siglip")
    }
}

impl Model for Pictures {
    type Item = Asked;
    type Answer = Told;

    fn run(&mut self, items: &[&Asked], _cancelled: &dyn Fn(usize) -> bool) -> Result<Vec<Result<Told>>> {
        let frames: Vec<&Vec<Arc<Frame>>> =
            items.iter().filter_map(|item| if let Asked::Frames(frames) = item { Some(frames) } else { None }).collect();
        let encoded = in_groups(
            &frames,
            |frame| frame.len(),
            |group, _| {
                let frames: Vec<&Frame> = group.iter().flat_map(|item| item.iter()).map(Arc::as_ref).collect();
                let features = self.0.encode(&frames_to_tensor(&frames, self.0.device())?)?;
                let vectors = rows(&features.embedding)?;
                let Some(probabilities) = features.probabilities else {
                    return Ok(vectors.into_iter().map(|vector| Encoded { vector, probabilities: Vec::new() }).collect());
                };
                let both = vectors.into_iter().zip(rows(&probabilities)?);
                Ok(both.map(|(vector, probabilities)| Encoded { vector, probabilities }).collect())
            },
        )?;
        let mut encoded = encoded.into_iter();
        let answer = |item: &&Asked| match item {
            Asked::Frames(_) => encoded.next().unwrap_or_else(|| Err(Error::bug("a frame is missing from its batch"))).map(Told::Frame),
            Asked::Texts(texts) => {
                let texts = self.0.texts(texts)?;
                Ok(Told::Texts(rows(&texts.vectors)?, texts.scoring))
            }
        };
        Ok(items.iter().map(answer).collect())
    }

    fn warm_up(&mut self) -> Result<()> {
        let [height, width] = self.0.size();
        let frame = Tensor::f_zeros([1, height, width, 3], (tch::Kind::Uint8, self.0.device()))?;
        self.0.encode(&frame).map(drop)
    }
}
