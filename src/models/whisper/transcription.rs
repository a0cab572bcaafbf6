//! What is asked of Whisper and what it answers.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What is written about speech.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Task {
    /// What was said.
    #[default]
    Transcribe,
    /// The same in English.
    Translate,
}

impl Task {
    /// Its name in checkpoints.
    pub const fn as_str(self) -> &'static str {
        match self {
            Task::Transcribe => "transcribe",
            Task::Translate => "translate",
        }
    }
}

/// How speech is written down. A text that fails a threshold is written again at the next
/// temperature, until the last.
#[derive(Debug, Clone, PartialEq)]
pub struct TranscriptionOptions {
    /// What is written.
    pub task: Task,
    /// The code of the language that is spoken; none to have it found.
    pub language: Option<String>,
    /// Whether the words' times are found.
    pub words: bool,
    /// Temperatures in the order in which they are tried; 0 always takes the likeliest token. At
    /// least one.
    pub temperatures: Vec<f32>,
    /// A text whose tokens compress by more repeats itself; none to let that pass.
    pub compression_ratio: Option<f32>,
    /// A text whose mean log probability lies below is doubtful; none to let that pass.
    pub log_probability: Option<f32>,
    /// Above this probability that nobody speaks, a doubtful text is left out; none to let that
    /// pass.
    pub no_speech: Option<f32>,
    /// Whether a pass reads what was written about the window so far.
    pub remember: bool,
    /// What the first pass reads as written before: names and terms that will come.
    pub prompt: String,
    /// Seconds at the end of a window that are not worth a pass of their own.
    pub least: f32,
    /// What draws begin with.
    pub seed: u64,
}

impl Default for TranscriptionOptions {
    /// As OpenAI's: temperatures up to 1, a mean log probability of -1, a probability of 0.6 that
    /// nobody speaks; the ratio is transformers', whose measure is taken of tokens.
    fn default() -> Self {
        Self {
            task: Task::Transcribe,
            language: None,
            words: true,
            temperatures: vec![0., 0.2, 0.4, 0.6, 0.8, 1.],
            compression_ratio: Some(1.35),
            log_probability: Some(-1.),
            no_speech: Some(0.6),
            remember: false,
            prompt: String::new(),
            least: 0.,
            seed: 0,
        }
    }
}

/// A window of speech that is to be written down.
#[derive(Debug, Clone)]
pub struct TranscriptionRequest {
    /// Samples from -1 to 1, 16,000 a second, at most 30 s of them.
    pub samples: Arc<[f32]>,
    /// How.
    pub options: TranscriptionOptions,
}

/// What was said in a window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transcription {
    /// The code of the language that was spoken.
    pub language: String,
    /// How sure the model is of it among all that it knows; 1 where it was given.
    pub language_probability: f32,
    /// In the order of their times. Empty where nothing was said.
    pub segments: Vec<Segment>,
}

/// A phrase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// Seconds since the window began.
    pub start: f64,
    /// Seconds since the window began.
    pub end: f64,
    /// The text.
    pub text: String,
    /// Its tokens, timestamps with them.
    pub tokens: Vec<u32>,
    /// Its words with their times; empty where these were not asked for.
    pub words: Vec<Word>,
    /// Mean logarithm of the tokens' probabilities, over the whole pass that wrote it.
    pub log_probability: f32,
    /// How sure the model is that nobody speaks.
    pub no_speech: f32,
    /// How well the pass's tokens compress: above about 1.35 they repeat themselves.
    pub compression_ratio: f32,
    /// The temperature at which it was written.
    pub temperature: f32,
}

/// A word.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Word {
    /// The word with its punctuation, without space around it.
    pub text: String,
    /// Seconds since the window began.
    pub start: f64,
    /// Seconds since the window began.
    pub end: f64,
    /// Mean probability of its tokens.
    pub probability: f32,
}
