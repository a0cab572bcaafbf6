//! The handles of models that write captions: from a prompt, about a picture, or about a video.

use std::sync::Arc;

use super::super::networks::text::{LanguageModel, PictureCaptions, VideoCaptions};
use super::super::start::Start;
use super::super::{Asker, Pool};
use super::Card;
use crate::error::Result;
use crate::models::blip::Blip;
use crate::models::caption_decoder::CaptionRequest;
use crate::models::opus_captions;
use crate::models::text::{CausalLm, Generation, TextRequest};
use crate::packet::{Frame, ModelTag};

/// A model that writes captions, by what it is given.
#[derive(Debug, Clone)]
pub enum Captioner {
    /// A prompt.
    Text(TextModel),
    /// A picture.
    Picture(PictureCaptioner),
    /// The vectors of a video.
    Video(VideoCaptioner),
}

/// Writes text.
#[derive(Debug, Clone)]
pub struct TextModel {
    workers: Pool<LanguageModel>,
    card: Card,
}

/// Writes about pictures.
#[derive(Debug, Clone)]
pub struct PictureCaptioner {
    workers: Pool<PictureCaptions>,
    card: Card,
}

/// Writes about videos.
#[derive(Debug, Clone)]
pub struct VideoCaptioner {
    workers: Pool<VideoCaptions>,
    card: Card,
}

impl Captioner {
    pub(in super::super) async fn of_prompts(start: &Start<'_>) -> Result<Self> {
        let workers = start
            .pool(|folder, device, precision| {
                CausalLm::load(folder, device, precision).map(LanguageModel)
            })
            .await?;
        Ok(Self::Text(TextModel {
            workers,
            card: start.card(),
        }))
    }

    pub(in super::super) async fn of_pictures(start: &Start<'_>) -> Result<Self> {
        let workers = start
            .pool(|folder, device, precision| {
                Blip::load(folder, device, precision).map(PictureCaptions)
            })
            .await?;
        Ok(Self::Picture(PictureCaptioner {
            workers,
            card: start.card(),
        }))
    }

    pub(in super::super) async fn of_videos(start: &Start<'_>) -> Result<Self> {
        let workers = start
            .pool(|folder, device, precision| {
                opus_captions::load(folder, device, precision).map(VideoCaptions)
            })
            .await?;
        Ok(Self::Video(VideoCaptioner {
            workers,
            card: start.card(),
        }))
    }

    /// The class of its device, `cpu` or `cuda`.
    pub fn device(&self) -> &str {
        &self.card().device
    }

    /// What records say of it.
    pub fn tag(&self) -> &Arc<ModelTag> {
        &self.card().tag
    }

    fn card(&self) -> &Card {
        match self {
            Self::Text(model) => &model.card,
            Self::Picture(model) => &model.card,
            Self::Video(model) => &model.card,
        }
    }
}

impl TextModel {
    /// The texts for a prompt: one, or its variants.
    ///
    /// # Errors
    /// Those of [`Pool::ask`].
    pub async fn ask(&self, request: TextRequest, asker: Asker) -> Result<Vec<Generation>> {
        self.workers.ask(request, asker).await
    }
}

impl PictureCaptioner {
    /// The captions of a picture: one, or its variants.
    ///
    /// # Errors
    /// Those of [`Pool::ask`].
    pub async fn ask(
        &self,
        frame: Arc<Frame>,
        request: CaptionRequest,
        asker: Asker,
    ) -> Result<Vec<Generation>> {
        self.workers.ask((frame, request), asker).await
    }
}

impl VideoCaptioner {
    /// The captions of a video, given its vectors in their order: one, or its variants.
    ///
    /// # Errors
    /// Those of [`Pool::ask`].
    pub async fn ask(
        &self,
        vectors: Vec<Vec<f32>>,
        request: CaptionRequest,
        asker: Asker,
    ) -> Result<Vec<Generation>> {
        self.workers.ask((vectors, request), asker).await
    }
}
