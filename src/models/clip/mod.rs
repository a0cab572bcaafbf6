//! CLIP: pictures and texts as vectors of one space. Radford et al., "Learning Transferable Visual
//! Models From Natural Language Supervision" (arXiv:2103.00020); the reference is transformers'
//! `modeling_clip.py`, whose checkpoint keys it reads.

mod text;
mod tokenizer;
mod vision;

pub use text::{ClipText, ClipTextConfig, TextStates};
pub use tokenizer::ClipTokenizer;
pub use vision::{ClipVision, ClipVisionConfig};

use tch::{Device, Tensor};

use super::folder::ModelFolder;
use super::image_processor::ImageProcessor;
use super::network_spec::{FrameEncoderSpec, Load, NetworkSpec, NetworkTask};
use super::picture_encoder::{Features, PictureEncoder, Scoring, TextFeatures, l2_normalized};
use super::text::Tokenizer;
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::tensor::Precision;

/// Its entry in the table of networks.
pub const NETWORK: NetworkSpec = NetworkSpec {
    classes: &[
        ("CLIPModel", NetworkTask::EncodeFramesAndTexts),
        ("CLIPVisionModelWithProjection", NetworkTask::EncodeFrames),
    ],
    load: Load::FrameEncoder(FrameEncoderSpec {
        load: |folder, device, precision| Ok(Box::new(Clip::load(folder, device, precision)?)),
        class_names: |_| Ok(None),
        unit_length: true,
    }),
};

/// Texts that are read at once.
const TEXTS_A_PASS: usize = 64;

/// The network with its weights.
#[derive(Debug)]
pub struct Clip {
    vision: ClipVision,
    preprocess: ImageProcessor,
    text: Option<TextTower>,
    device: Device,
}

/// The half that reads texts.
#[derive(Debug)]
struct TextTower {
    tower: ClipText,
    scale: f64,
    /// None where the folder has none: pictures can be encoded without.
    tokenizer: Option<Tokenizer>,
}

impl Clip {
    /// The network of a folder whose architecture is `CLIPModel`, or
    /// `CLIPVisionModelWithProjection`, which reads no texts.
    ///
    /// # Errors
    /// Config, where the folder is another network's; model, where its config or weights do not
    /// fit.
    pub fn load(folder: &ModelFolder, device: Device, precision: Precision) -> Result<Self> {
        let task = NETWORK.expect(folder)?;
        let vision = ClipVisionConfig::read(folder.config())?;
        let preprocess = ImageProcessor::load(folder, ImageProcessor::clip(vision.image))?;
        let weights = folder.weights(device, precision)?;
        if task == NetworkTask::EncodeFrames {
            return Self::build(weights, &vision, None, preprocess);
        }
        let mut clip = Self::build(
            weights,
            &vision,
            Some(&ClipTextConfig::read(folder.config())?),
            preprocess,
        )?;
        if let Some(text) = &mut clip.text {
            text.tokenizer = folder
                .file("tokenizer.json")
                .map(|_| Tokenizer::load(folder))
                .transpose()?;
        }
        Ok(clip)
    }

    /// The network of these weights, with a text tower or without; it has no tokenizer.
    ///
    /// # Errors
    /// Model, where they do not fit.
    pub fn build(
        weights: Weights,
        vision: &ClipVisionConfig,
        text: Option<&ClipTextConfig>,
        preprocess: ImageProcessor,
    ) -> Result<Self> {
        let _frozen = crate::tensor::guard();
        let (root, device) = (weights.root(), weights.device());
        let tower = ClipVision::load_part(&root, vision, &preprocess)?;
        let text = match text {
            Some(config) => {
                let scale = root
                    .take_f32("logit_scale", &[])?
                    .f_exp()?
                    .f_double_value(&[])?;
                Some(TextTower {
                    tower: ClipText::load_part(&root, config, true)?,
                    scale,
                    tokenizer: None,
                })
            }
            None => None,
        };
        weights.finish()?;
        Ok(Self {
            vision: tower,
            preprocess,
            text,
            device,
        })
    }

    /// The vectors of texts of tokens `[n, t]`, as [`ClipText::forward`] takes them: `[n,
    /// projection]`, f32, of length 1.
    ///
    /// # Errors
    /// Those of [`ClipText::forward`]; config, where the network reads no texts.
    pub fn text_vectors(&self, tokens: &Tensor) -> Result<Tensor> {
        let _frozen = crate::tensor::guard();
        let projected = self.text()?.tower.forward(tokens, &[])?.projected;
        l2_normalized(
            &projected.ok_or_else(|| Error::bug("a text tower of CLIP without a projection"))?,
        )
    }

    fn text(&self) -> Result<&TextTower> {
        self.text.as_ref().ok_or_else(|| {
            Error::config("a CLIPVisionModelWithProjection reads no texts")
                .hint("labels need a CLIPModel")
        })
    }
}

impl PictureEncoder for Clip {
    fn device(&self) -> Device {
        self.device
    }

    fn size(&self) -> [i64; 2] {
        self.vision.size()
    }

    fn encode(&self, frames: &Tensor) -> Result<Features> {
        let _frozen = crate::tensor::guard();
        let embedding = l2_normalized(&self.vision.forward(&self.preprocess.fit(frames)?)?)?;
        Ok(Features {
            embedding,
            probabilities: None,
        })
    }

    fn texts(&self, texts: &[String]) -> Result<TextFeatures> {
        let tower = self.text()?;
        let tokenizer = tower.tokenizer.as_ref();
        let tokenizer = tokenizer.ok_or_else(|| {
            Error::config("the model's folder has no tokenizer.json, which labels need")
        })?;
        let limit = tower.tower.config().positions as usize;
        let mut vectors = Vec::new();
        for texts in texts.chunks(TEXTS_A_PASS) {
            let rows = texts
                .iter()
                .map(|text| tokenizer.encode_within(text, limit))
                .collect::<Result<Vec<_>>>()?;
            vectors.push(self.text_vectors(&padded(rows)?)?);
        }
        Ok(TextFeatures {
            vectors: Tensor::f_cat(&vectors, 0)?,
            scoring: Scoring::Softmax { scale: tower.scale },
        })
    }
}

/// TextFeatures as `[n, t]`, each filled up with its own last token, which ends it: what comes
/// after the end changes nothing.
fn padded(mut rows: Vec<Vec<u32>>) -> Result<Tensor> {
    let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
    for row in &mut rows {
        let end = row.last().copied().ok_or_else(|| {
            Error::model("the tokenizer makes nothing of a text, not even its end")
        })?;
        row.resize(longest, end);
    }
    let tokens: Vec<i64> = rows
        .iter()
        .flatten()
        .map(|&token| i64::from(token))
        .collect();
    Ok(Tensor::f_from_slice(&tokens)?.f_view([rows.len() as i64, longest as i64])?)
}

#[cfg(test)]
pub(in crate::models) mod tests;
