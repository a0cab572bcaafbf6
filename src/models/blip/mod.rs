//! BLIP: captions of pictures, from nothing or going on from a beginning. Li et al., "BLIP:
//! Bootstrapping Language-Image Pre-training" (arXiv:2201.12086); the reference is transformers'
//! `BlipForConditionalGeneration`, whose checkpoint keys it reads.

mod text;
mod vision;

pub use text::BlipTextConfig;
pub use vision::BlipVisionConfig;

use super::caption_decoder::{CaptionDecoder, CaptionRequest};
use super::folder::ModelFolder;
use super::image_processor::ImageProcessor;
use super::network_spec::{Load, NetworkSpec, NetworkTask};
use super::text::{Generation, TextGenerator, Tokenizer};
use super::vision_tower::VisionTower;
use crate::error::Result;
use crate::tensor::{Device, Precision, Tensor, guard};

/// Its entry in the table of networks.
pub const NETWORK: NetworkSpec = NetworkSpec {
    classes: &[("BlipForConditionalGeneration", NetworkTask::CaptionPictures)],
    load: Load::Checked(|folder, device, precision| {
        Blip::load(folder, device, precision).map(drop)
    }),
};

/// The network with its tokenizer.
#[derive(Debug)]
pub struct Blip {
    vision: VisionTower,
    preprocess: ImageProcessor,
    captions: CaptionDecoder,
}

impl Blip {
    /// Reads a folder whose architecture is `BlipForConditionalGeneration`: config.json, weights,
    /// tokenizer.json, and where it is there preprocessor_config.json.
    ///
    /// # Errors
    /// Config, where the folder lacks a file or is another network's; model, where a file is not
    /// what it should be; overload, where memory is short.
    pub fn load(folder: &ModelFolder, device: Device, precision: Precision) -> Result<Self> {
        let _frozen = guard();
        NETWORK.expect(folder)?;
        let (vision, text) = (
            BlipVisionConfig::read(folder.config())?,
            BlipTextConfig::read(folder.config())?,
        );
        let exact = ImageProcessor {
            resize: Some(super::image_processor::Resize::Exact([vision.image; 2])),
            crop: None,
            ..ImageProcessor::clip(vision.image)
        };
        let preprocess = ImageProcessor::load(folder, exact)?;
        let weights = folder.weights(device, precision)?;
        let tower = vision::load(&(weights.root() / "vision_model"), &vision, &preprocess)?;
        let network = text::read(
            &(weights.root() / "text_decoder"),
            &text,
            vision.tower.width,
        )?;
        weights.finish()?;
        let writer = TextGenerator::new(Tokenizer::load(folder)?, text.ends);
        Ok(Self {
            vision: tower,
            preprocess,
            captions: CaptionDecoder::build(network, writer, text.start)?,
        })
    }

    /// Where it runs.
    pub fn device(&self) -> Device {
        self.captions.device()
    }

    /// Rows and columns of the frames that it sees without scaling them.
    pub fn size(&self) -> [i64; 2] {
        self.vision.size()
    }

    /// What it sees in frames on its device, bytes `[n, h, w, 3]` of any size: `[n, length,
    /// width]`.
    ///
    /// # Errors
    /// Model, where the input has another shape; overload, where memory is short.
    pub fn see(&self, frames: &Tensor) -> Result<Tensor> {
        let _frozen = guard();
        self.vision.states(&self.preprocess.fit(frames)?)
    }

    /// Refuses what [`write`](Self::write) would fail on, with all beside it.
    ///
    /// # Errors
    /// Those of [`CaptionDecoder::check`].
    pub fn check(&self, request: &CaptionRequest) -> Result<()> {
        self.captions.check(request)
    }

    /// CaptionDecoder of what it has [seen](Self::see), one request a picture: see
    /// [`CaptionDecoder::write`].
    ///
    /// # Errors
    /// As there.
    pub fn write(
        &self,
        seen: &Tensor,
        requests: &[&CaptionRequest],
        cancelled: &dyn Fn(usize) -> bool,
    ) -> Result<Vec<Vec<Generation>>> {
        self.captions.write(seen, requests, cancelled)
    }
}

#[cfg(test)]
pub(in crate::models) mod tests;
