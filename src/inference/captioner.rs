//! The handles of models that write captions: from a prompt, about a picture, or about a video.

use std::sync::Arc;

use super::networks::captioner::{Pictures, Text, Videos};
use super::{Asker, Card, Worker};
use crate::error::Result;
use crate::models::captions::CaptionRequest;
use crate::models::text::{Generation, Request};
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
    pub(super) worker: Worker<Text>,
    pub(super) card: Card,
}

/// Writes about pictures.
#[derive(Debug, Clone)]
pub struct PictureCaptioner {
    pub(super) worker: Worker<Pictures>,
    pub(super) card: Card,
}

/// Writes about videos.
#[derive(Debug, Clone)]
pub struct VideoCaptioner {
    pub(super) worker: Worker<Videos>,
    pub(super) card: Card,
}

impl Captioner {
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
    /// Those of [`Worker::ask`].
    pub async fn ask(&self, request: Request, asker: Asker) -> Result<Vec<Generation>> {
        self.worker.ask(request, asker).await
    }
}

impl PictureCaptioner {
    /// The captions of a picture: one, or its variants.
    ///
    /// # Errors
    /// Those of [`Worker::ask`].
    pub async fn ask(&self, frame: Arc<Frame>, request: CaptionRequest, asker: Asker) -> Result<Vec<Generation>> {
        self.worker.ask((frame, request), asker).await
    }
}

impl VideoCaptioner {
    /// The captions of a video, given its vectors in their order: one, or its variants.
    ///
    /// # Errors
    /// Those of [`Worker::ask`].
    pub async fn ask(&self, vectors: Vec<Vec<f32>>, request: CaptionRequest, asker: Asker) -> Result<Vec<Generation>> {
        self.worker.ask((vectors, request), asker).await
    }
}
