//! A Whisper model as a whole: its folder read, requests checked and transcribed.

use super::capabilities::Capabilities;
use super::config::SAMPLE_RATE;
use super::network::Network;
use super::passes;
use super::transcription::{Transcription, TranscriptionRequest};
use crate::error::{Error, Result};
use crate::models::ModelFolder;
use crate::models::text::Tokenizer;
use crate::tensor::{Device, Precision};

/// A Whisper model with its tokenizer.
#[derive(Debug)]
pub struct Whisper {
    capabilities: Capabilities,
    pub(super) network: Network,
    tokenizer: Tokenizer,
}

impl Whisper {
    /// Reads a model folder: config.json, generation_config.json, weights, tokenizer.
    ///
    /// # Errors
    /// Config, where the folder lacks a file or is another network's; model, where a file is not
    /// what it should be; external, where one cannot be read; overload, where memory is short.
    pub fn load(folder: &ModelFolder, device: Device, precision: Precision) -> Result<Self> {
        let capabilities = Capabilities::read(folder)?;
        let tokenizer = Tokenizer::load(folder)?;
        let (config, tokens) = (capabilities.config.clone(), capabilities.tokens.clone());
        Ok(Self {
            network: Network::load(folder.weights(device, precision)?, config, tokens)?,
            tokenizer,
            capabilities,
        })
    }

    /// What may be asked of it.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Refuses a request that [`transcribe`](Self::transcribe) would fail on, with all those beside
    /// it.
    ///
    /// # Errors
    /// Config, where an option has no meaning for this model; model, where the window is too long
    /// or what is no number is in it.
    pub fn check(&self, request: &TranscriptionRequest) -> Result<()> {
        self.capabilities.check(&request.options)?;
        let longest = self.capabilities.longest();
        if request.samples.len() > longest {
            let (found, most) = (
                request.samples.len() as f64 / SAMPLE_RATE as f64,
                longest / SAMPLE_RATE,
            );
            return Err(Error::model(format!(
                "a window of {found} s, the model hears {most} s at once"
            )));
        }
        if request.samples.iter().any(|sample| !sample.is_finite()) {
            return Err(Error::model("the sound has samples that are no numbers"));
        }
        Ok(())
    }

    /// Writes down every window, all in one batch. Between tokens, `cancelled` is asked with a
    /// request's place: one that is cancelled is left as it is. A text does not depend on what else
    /// is in the batch, but for the rounding of sums.
    ///
    /// # Errors
    /// As for [`check`](Self::check); overload, where memory is short: fewer at once may pass.
    pub fn transcribe(
        &self,
        requests: &[TranscriptionRequest],
        cancelled: &dyn Fn(usize) -> bool,
    ) -> Result<Vec<Transcription>> {
        requests
            .iter()
            .try_for_each(|request| self.check(request))?;
        let model = passes::Model {
            network: &self.network,
            tokenizer: &self.tokenizer,
        };
        passes::transcribe(model, requests, cancelled)
    }
}
