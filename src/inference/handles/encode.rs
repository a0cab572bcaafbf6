//! Models that make vectors.

use std::sync::Arc;

use super::super::networks::{ClipEncoder, Encoded, EncoderInput, EncoderOutput, FrameEncoder};
use super::super::start::Start;
use super::super::{Asker, Pool, ZeroShot};
use super::Card;
use crate::error::{Error, Result};
use crate::models::opus_encoder::OpusEncoder;
use crate::models::picture_encoder::Scoring;
use crate::packet::{Frame, ModelTag};

/// Makes vectors.
#[derive(Debug, Clone)]
pub struct EncodeModel {
    workers: Encoder,
    labels: Option<Arc<[Arc<str>]>>,
    unit: bool,
    card: Card,
}

#[derive(Debug, Clone)]
enum Encoder {
    Frames(Pool<FrameEncoder>),
    Clips(Pool<ClipEncoder>),
}

impl EncodeModel {
    pub(in super::super) async fn of_pictures(start: &Start<'_>) -> Result<Self> {
        let (labels, unit) = (
            FrameEncoder::classes(&start.folder)?,
            FrameEncoder::are_unit(start.folder.architecture()?),
        );
        let workers = Encoder::Frames(start.pool(FrameEncoder::open).await?);
        Ok(Self {
            workers,
            labels,
            unit,
            card: start.card(),
        })
    }

    pub(in super::super) async fn of_clips(start: &Start<'_>) -> Result<Self> {
        let workers = start
            .pool(|folder, device, precision| {
                OpusEncoder::load(folder, device, precision).map(ClipEncoder)
            })
            .await?;
        Ok(Self {
            workers: Encoder::Clips(workers),
            labels: None,
            unit: false,
            card: start.card(),
        })
    }

    /// The vector of a frame, or of a window of frames of one size.
    ///
    /// # Errors
    /// Those of [`Pool::ask`].
    pub async fn ask(&self, frames: Vec<Arc<Frame>>, asker: Asker) -> Result<Encoded> {
        match &self.workers {
            Encoder::Frames(workers) => {
                match workers.ask(EncoderInput::Frames(frames), asker).await? {
                    EncoderOutput::Frame(encoded) => Ok(encoded),
                    EncoderOutput::Texts(..) => Err(Error::bug("a frame was answered as texts")),
                }
            }
            Encoder::Clips(workers) => workers.ask(frames, asker).await,
        }
    }

    /// Labels for its pictures: the vectors of their texts, `template` with each in the place of
    /// its `{}`.
    ///
    /// # Errors
    /// Config, where the model knows no texts, or there are no labels or no place for them; those
    /// of [`Pool::ask`].
    pub async fn zero_shot(
        &self,
        labels: Arc<[Arc<str>]>,
        template: &str,
        asker: Asker,
    ) -> Result<ZeroShot> {
        let (vectors, scoring) = self
            .read(ZeroShot::texts(&labels, template)?, asker)
            .await?;
        Ok(ZeroShot::new(labels, vectors, scoring))
    }

    /// The vectors of texts in the space of its pictures, each of length 1.
    ///
    /// # Errors
    /// Config, where the model knows no texts; those of [`Pool::ask`].
    pub async fn texts(&self, texts: Vec<String>, asker: Asker) -> Result<Vec<Vec<f32>>> {
        Ok(self.read(texts, asker).await?.0)
    }

    async fn read(&self, texts: Vec<String>, asker: Asker) -> Result<(Vec<Vec<f32>>, Scoring)> {
        let Encoder::Frames(workers) = &self.workers else {
            let message = format!("{} knows clips only, no texts", self.card.tag.id);
            return Err(Error::config(message).hint("a CLIPModel or a SiglipModel knows texts"));
        };
        match workers.ask(EncoderInput::Texts(texts), asker).await? {
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
        &self.card.device
    }

    /// What records say of it.
    pub fn tag(&self) -> &Arc<ModelTag> {
        &self.card.tag
    }
}
