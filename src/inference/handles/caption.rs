//! The handles of models that write captions: from a prompt, about a picture, or about a video.

use std::sync::Arc;

use crate::inference::loader::{ModelInfo, ModelLoader};
use crate::inference::networks::text::{LanguageModel, PictureCaptions, VideoCaptions};
use crate::inference::{Requester, WorkerPool};

use crate::error::Result;
use crate::models::blip::Blip;
use crate::models::caption_decoder::CaptionRequest;
use crate::models::networks;
use crate::models::opus_captions;
use crate::models::text::{Generation, TextRequest};
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
    workers: WorkerPool<LanguageModel>,
    info: ModelInfo,
}

/// Writes about pictures.
#[derive(Debug, Clone)]
pub struct PictureCaptioner {
    workers: WorkerPool<PictureCaptions>,
    info: ModelInfo,
}

/// Writes about videos.
#[derive(Debug, Clone)]
pub struct VideoCaptioner {
    workers: WorkerPool<VideoCaptions>,
    info: ModelInfo,
}

impl Captioner {
    pub(in crate::inference) async fn load_for_prompts(loader: &ModelLoader<'_>) -> Result<Self> {
        let workers = loader
            .pool(|folder, device, precision| {
                networks::load_causal_lm(folder, device, precision).map(LanguageModel)
            })
            .await?;
        Ok(Self::Text(TextModel {
            workers,
            info: loader.info(),
        }))
    }

    pub(in crate::inference) async fn load_for_pictures(loader: &ModelLoader<'_>) -> Result<Self> {
        let workers = loader
            .pool(|folder, device, precision| {
                Blip::load(folder, device, precision).map(PictureCaptions)
            })
            .await?;
        Ok(Self::Picture(PictureCaptioner {
            workers,
            info: loader.info(),
        }))
    }

    pub(in crate::inference) async fn load_for_videos(loader: &ModelLoader<'_>) -> Result<Self> {
        let workers = loader
            .pool(|folder, device, precision| {
                opus_captions::load(folder, device, precision).map(VideoCaptions)
            })
            .await?;
        Ok(Self::Video(VideoCaptioner {
            workers,
            info: loader.info(),
        }))
    }

    /// The class of its device, `cpu` or `cuda`.
    pub fn device(&self) -> &str {
        &self.info().device
    }

    /// What records say of it.
    pub fn tag(&self) -> &Arc<ModelTag> {
        &self.info().tag
    }

    fn info(&self) -> &ModelInfo {
        match self {
            Self::Text(model) => &model.info,
            Self::Picture(model) => &model.info,
            Self::Video(model) => &model.info,
        }
    }
}

impl TextModel {
    /// The texts for a prompt: one, or its variants.
    ///
    /// # Errors
    /// Those of [`WorkerPool::ask`].
    pub async fn ask(&self, request: TextRequest, requester: Requester) -> Result<Vec<Generation>> {
        self.workers.ask(request, requester).await
    }
}

impl PictureCaptioner {
    /// The captions of a picture: one, or its variants.
    ///
    /// # Errors
    /// Those of [`WorkerPool::ask`].
    pub async fn ask(
        &self,
        frame: Arc<Frame>,
        request: CaptionRequest,
        requester: Requester,
    ) -> Result<Vec<Generation>> {
        self.workers.ask((frame, request), requester).await
    }
}

impl VideoCaptioner {
    /// The captions of a video, given its vectors in their order: one, or its variants.
    ///
    /// # Errors
    /// Those of [`WorkerPool::ask`].
    pub async fn ask(
        &self,
        vectors: Vec<Vec<f32>>,
        request: CaptionRequest,
        requester: Requester,
    ) -> Result<Vec<Generation>> {
        self.workers.ask((vectors, request), requester).await
    }
}
