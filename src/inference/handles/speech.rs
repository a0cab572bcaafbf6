//! The handles of models that work on sound: one writes down what is said, one hears whether
//! anybody speaks.

use std::sync::Arc;

use super::super::networks::speech::{SpeechDetector, Transcriber};
use super::super::start::Start;
use super::super::{Asker, Pool};
use super::Card;
use crate::error::Result;
use crate::models::silero_vad::{SileroVad, VadState};
use crate::models::whisper::{Capabilities, Request, Transcription, Whisper};
use crate::packet::ModelTag;

/// Writes speech down.
#[derive(Debug, Clone)]
pub struct SpeechModel {
    workers: Pool<Transcriber>,
    capabilities: Arc<Capabilities>,
    card: Card,
}

/// Hears whether anybody speaks.
#[derive(Debug, Clone)]
pub struct VadModel {
    workers: Pool<SpeechDetector>,
    card: Card,
}

/// Sound of a stream that goes on.
#[derive(Debug, Clone)]
pub struct Heard {
    /// Samples from -1 to 1, 16,000 a second, as many as whole chunks have.
    pub samples: Vec<f32>,
    /// What is remembered of the stream's sound before.
    pub memory: VadState,
}

impl SpeechModel {
    pub(in super::super) async fn load(start: &Start<'_>) -> Result<Self> {
        let capabilities = Arc::new(Capabilities::read(&start.folder)?);
        let workers = start
            .pool(|folder, device, precision| {
                Whisper::load(folder, device, precision).map(Transcriber)
            })
            .await?;
        Ok(Self {
            workers,
            capabilities,
            card: start.card(),
        })
    }

    /// What is said in a window of sound.
    ///
    /// # Errors
    /// Those of [`Pool::ask`].
    pub async fn ask(&self, request: Request, asker: Asker) -> Result<Transcription> {
        self.workers.ask(request, asker).await
    }

    /// What may be asked of it.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// The class of its device, `cpu` or `cuda`.
    pub fn device(&self) -> &str {
        &self.card.device
    }

    /// What records say of it.
    pub fn tag(&self) -> &Arc<ModelTag> {
        &self.card.tag
    }
}

impl VadModel {
    pub(in super::super) async fn load(start: &Start<'_>) -> Result<Self> {
        let workers = start
            .pool(|folder, device, _| SileroVad::load(folder, device).map(SpeechDetector))
            .await?;
        Ok(Self {
            workers,
            card: start.card(),
        })
    }

    /// The probability of speech in every chunk, and what is to be remembered for the next.
    ///
    /// # Errors
    /// Those of [`Pool::ask`].
    pub async fn ask(&self, heard: Heard, asker: Asker) -> Result<(Vec<f32>, VadState)> {
        self.workers.ask(heard, asker).await
    }

    /// What records say of it.
    pub fn tag(&self) -> &Arc<ModelTag> {
        &self.card.tag
    }
}
