//! What may be asked of a Whisper model, as its folder says it before any weight is read.

use super::config::{SpecialTokens, WhisperConfig};
use super::transcription::{Task, TranscriptionOptions};
use crate::error::{Error, Result};
use crate::models::ModelFolder;
use crate::models::config::Config;

/// The class that config.json names.
pub(super) const CLASS: &str = "WhisperForConditionalGeneration";

/// The sizes and the tokens of a model.
#[derive(Debug, Clone)]
pub struct Capabilities {
    pub(super) config: WhisperConfig,
    pub(super) tokens: SpecialTokens,
}

impl Capabilities {
    /// Reads config.json and generation_config.json.
    ///
    /// # Errors
    /// Config, where the folder is another network's or lacks a file; model, where a file is not
    /// what it should be.
    pub fn read(folder: &ModelFolder) -> Result<Self> {
        folder.expect(CLASS)?;
        let path = folder.file("generation_config.json").ok_or_else(|| {
            Error::config(format!(
                "{} has no generation_config.json",
                folder.path().display()
            ))
            .hint("Whisper's special tokens are read from it: take it from the checkpoint's folder")
        })?;
        let config = WhisperConfig::read(folder.config())?;
        Ok(Self {
            tokens: SpecialTokens::read(&Config::read(&path)?, &config)?,
            config,
        })
    }

    /// Samples of the longest window: 480,000 for 30 s.
    pub fn longest(&self) -> usize {
        self.config.samples()
    }

    /// The codes of the languages that the model knows.
    pub fn languages(&self) -> Vec<&str> {
        if self.is_english() {
            vec!["en"]
        } else {
            self.tokens.languages.keys().map(String::as_str).collect()
        }
    }

    fn is_english(&self) -> bool {
        self.tokens.languages.is_empty()
    }

    /// Refuses what the model cannot do.
    ///
    /// # Errors
    /// Config, with what it can.
    pub fn check(&self, options: &TranscriptionOptions) -> Result<()> {
        let TranscriptionOptions {
            language,
            task,
            words,
            temperatures,
            ..
        } = options;
        if let Some(code) = language
            .as_deref()
            .filter(|code| !self.languages().contains(code))
        {
            let known = self.languages().join(", ");
            return Err(
                Error::config(format!("the model does not know the language `{code}`"))
                    .hint(format!("it knows {known}")),
            );
        }
        let spoken_english = self.is_english() && *task == Task::Transcribe;
        if !spoken_english && !self.tokens.tasks.contains_key(task.as_str()) {
            return Err(Error::config(format!("the model cannot {}", task.as_str())));
        }
        if *words && self.tokens.alignment_heads.is_empty() {
            let hint = "give the checkpoint's generation_config.json its `alignment_heads`, or \
                        ask for no words";
            return Err(Error::config(
                "the model does not say which heads follow the sound, so words have no times",
            )
            .hint(hint));
        }
        if temperatures.is_empty()
            || temperatures
                .iter()
                .any(|temperature| !(0.0..=100.0).contains(temperature))
        {
            return Err(Error::config(format!(
                "temperatures must be between 0 and 100, they are {temperatures:?}"
            )));
        }
        Ok(())
    }
}
