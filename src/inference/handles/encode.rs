//! Models that make vectors.

use std::sync::Arc;

use crate::inference::loader::{ModelInfo, ModelLoader};
use crate::inference::networks::{ClipEncoder, Encoded, EncoderInput, EncoderOutput, FrameEncoder};
use crate::inference::{Requester, WorkerPool, ZeroShot};

use crate::error::{Error, Result};
use crate::models::networks;
use crate::models::opus_encoder::OpusEncoder;
use crate::models::picture_encoder::Scoring;
use crate::packet::{Frame, ModelTag};

/// Makes vectors.
#[derive(Debug, Clone)]
pub struct EncodeModel {
    workers: Encoder,
    labels: Option<Arc<[Arc<str>]>>,
    unit: bool,
    info: ModelInfo,
}

#[derive(Debug, Clone)]
enum Encoder {
    Frames(WorkerPool<FrameEncoder>),
    Clips(WorkerPool<ClipEncoder>),
}

impl EncodeModel {
    pub(in crate::inference) async fn load_for_pictures(loader: &ModelLoader<'_>) -> Result<Self> {
        let spec = networks::frame_encoder(&loader.folder)?;
        let labels = (spec.class_names)(&loader.folder)?;
        let workers = Encoder::Frames(loader.pool(FrameEncoder::open).await?);
        Ok(Self {
            workers,
            labels,
            unit: spec.unit_length,
            info: loader.info(),
        })
    }

    pub(in crate::inference) async fn load_for_clips(loader: &ModelLoader<'_>) -> Result<Self> {
        let workers = loader
            .pool(|folder, device, precision| {
                OpusEncoder::load(folder, device, precision).map(ClipEncoder)
            })
            .await?;
        Ok(Self {
            workers: Encoder::Clips(workers),
            labels: None,
            unit: false,
            info: loader.info(),
        })
    }

    /// The vector of a frame, or of a window of frames of one size.
    ///
    /// # Errors
    /// Those of [`WorkerPool::ask`].
    pub async fn ask(&self, frames: Vec<Arc<Frame>>, requester: Requester) -> Result<Encoded> {
        match &self.workers {
            Encoder::Frames(workers) => {
                match workers.ask(EncoderInput::Frames(frames), requester).await? {
                    EncoderOutput::Frame(encoded) => Ok(encoded),
                    EncoderOutput::Texts(..) => Err(Error::bug("a frame was answered as texts")),
                }
            }
            Encoder::Clips(workers) => workers.ask(frames, requester).await,
        }
    }

    /// Labels for its pictures: the vectors of their texts, `template` with each in the place of
    /// its `{}`.
    ///
    /// # Errors
    /// Config, where the model knows no texts, or there are no labels or no place for them; those
    /// of [`WorkerPool::ask`].
    pub async fn zero_shot(
        &self,
        labels: Arc<[Arc<str>]>,
        template: &str,
        requester: Requester,
    ) -> Result<ZeroShot> {
        let (vectors, scoring) = self
            .read(ZeroShot::texts(&labels, template)?, requester)
            .await?;
        Ok(ZeroShot::new(labels, vectors, scoring))
    }

    /// The vectors of texts in the space of its pictures, each of length 1.
    ///
    /// # Errors
    /// Config, where the model knows no texts; those of [`WorkerPool::ask`].
    pub async fn texts(&self, texts: Vec<String>, requester: Requester) -> Result<Vec<Vec<f32>>> {
        Ok(self.read(texts, requester).await?.0)
    }

    async fn read(
        &self,
        texts: Vec<String>,
        requester: Requester,
    ) -> Result<(Vec<Vec<f32>>, Scoring)> {
        let Encoder::Frames(workers) = &self.workers else {
            let message = format!("{} knows clips only, no texts", self.info.tag.id);
            return Err(Error::config(message).hint(format!(
                "a {} knows texts",
                networks::TEXT_ENCODERS.join(" or a ")
            )));
        };
        match workers.ask(EncoderInput::Texts(texts), requester).await? {
            EncoderOutput::Texts(vectors, scoring) => Ok((vectors, scoring)),
            EncoderOutput::Frame(_) => Err(Error::bug("texts were answered as a frame")),
        }
    }

    /// Whether its vectors have length 1.
    pub fn is_unit(&self) -> bool {
        self.unit
    }

    /// Whether it takes windows of frames, not single ones.
    pub fn is_windowed(&self) -> bool {
        matches!(self.workers, Encoder::Clips(_))
    }

    /// The names of its classes, where it has classes.
    pub fn labels(&self) -> Option<&Arc<[Arc<str>]>> {
        self.labels.as_ref()
    }

    /// The class of its device, `cpu` or `cuda`: answers differ between them in the last digits.
    pub fn device(&self) -> &str {
        &self.info.device
    }

    /// What records say of it.
    pub fn tag(&self) -> &Arc<ModelTag> {
        &self.info.tag
    }
}
