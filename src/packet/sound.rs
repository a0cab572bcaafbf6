//! Sound and what was said in it.

use std::sync::Arc;

use bytes::Bytes;

use super::Span;

/// Samples a second of all sound here.
pub const SAMPLE_RATE: u32 = 16_000;

/// A piece of a view's sound: one channel at [`SAMPLE_RATE`]. Its pts is the packet's `span.start`;
/// pieces follow one another without a hole unless the stream has one.
#[derive(Debug, Clone)]
pub struct Audio {
    /// The view it belongs to.
    pub view: Arc<str>,
    /// Number within (stream, view, epoch), from 0.
    pub index: u64,
    /// Samples from -1 to 1, f32 little-endian.
    pub samples: Bytes,
}

impl Audio {
    /// Number of samples.
    pub fn len(&self) -> usize {
        self.samples.len() / 4
    }

    /// Whether it has no samples.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The samples as numbers.
    pub fn to_samples(&self) -> impl Iterator<Item = f32> {
        self.samples
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }
}

/// What was said in a span: a phrase.
#[derive(Debug, Clone, PartialEq)]
pub struct Transcript {
    /// The text.
    pub text: String,
    /// The language that was spoken, as a BCP 47 tag.
    pub language: String,
    /// How sure the model is of the language, 0 to 1; 1 where it was given.
    pub language_probability: f32,
    /// What was written down.
    pub task: SpeechTask,
    /// The words with their times; empty where these were not asked for.
    pub words: Vec<SpokenWord>,
    /// Mean logarithm of the tokens' probabilities: below -1 the text is doubtful.
    pub average_log_probability: f32,
    /// How sure the model is that nobody speaks, 0 to 1.
    pub no_speech_probability: f32,
}

/// What a transcript says of speech.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SpeechTask {
    /// What was said, in its own language.
    Transcribe,
    /// What was said, in English.
    Translate,
}

impl SpeechTask {
    /// The symbol in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            SpeechTask::Transcribe => "transcribe",
            SpeechTask::Translate => "translate",
        }
    }
}

/// A word and when it was said.
#[derive(Debug, Clone, PartialEq)]
pub struct SpokenWord {
    /// The word, with its punctuation.
    pub text: String,
    /// Its time in the stream.
    pub span: Span,
    /// How sure the model is of it, 0 to 1.
    pub probability: f32,
}
