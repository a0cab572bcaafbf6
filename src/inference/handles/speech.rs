//! The handles of models that work on sound: one writes down what is said, one finds where
//! anybody speaks.

use std::sync::Arc;

use crate::inference::loader::{ModelInfo, ModelLoader};
use crate::inference::networks::speech::{Heard, SpeechDetector, Transcriber};
use crate::inference::{Requester, WorkerPool};

use crate::error::Result;
use crate::models::silero_vad::{SileroVad, VadState};
use crate::models::whisper::{Capabilities, Transcription, TranscriptionRequest, Whisper};
use crate::packet::ModelTag;

/// Writes speech down.
#[derive(Debug, Clone)]
pub struct SpeechModel {
    workers: WorkerPool<Transcriber>,
    capabilities: Arc<Capabilities>,
    info: ModelInfo,
}

/// Hears whether anybody speaks.
#[derive(Debug, Clone)]
pub struct VadModel {
    workers: WorkerPool<SpeechDetector>,
    info: ModelInfo,
}

impl SpeechModel {
    pub(in crate::inference) async fn load(loader: &ModelLoader<'_>) -> Result<Self> {
        let capabilities = Arc::new(Capabilities::read(&loader.folder)?);
        let workers = loader
            .pool(|folder, device, precision| {
                Whisper::load(folder, device, precision).map(Transcriber)
            })
            .await?;
        Ok(Self {
            workers,
            capabilities,
            info: loader.info(),
        })
    }

    /// What is said in a window of sound.
    ///
    /// # Errors
    /// Those of [`WorkerPool::ask`].
    pub async fn ask(
        &self,
        request: TranscriptionRequest,
        requester: Requester,
    ) -> Result<Transcription> {
        self.workers.ask(request, requester).await
    }

    /// What may be asked of it.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// The class of its device, `cpu` or `cuda`.
    pub fn device(&self) -> &str {
        &self.info.device
    }

    /// What records say of it.
    pub fn tag(&self) -> &Arc<ModelTag> {
        &self.info.tag
    }
}

impl VadModel {
    pub(in crate::inference) async fn load(loader: &ModelLoader<'_>) -> Result<Self> {
        let workers = loader
            .pool(|folder, device, _| SileroVad::load(folder, device).map(SpeechDetector))
            .await?;
        Ok(Self {
            workers,
            info: loader.info(),
        })
    }

    /// The probability of speech in every chunk, and what is to be remembered for the next.
    ///
    /// # Errors
    /// Those of [`WorkerPool::ask`].
    pub async fn ask(&self, heard: Heard, requester: Requester) -> Result<(Vec<f32>, VadState)> {
        self.workers.ask(heard, requester).await
    }

    /// What records say of it.
    pub fn tag(&self) -> &Arc<ModelTag> {
        &self.info.tag
    }
}
