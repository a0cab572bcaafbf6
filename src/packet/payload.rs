//! What a packet carries. Payloads are cheap to clone: pixels and vectors are reference-counted.

use std::sync::Arc;

use super::embedding::{Embedding, Label};
use super::event::Event;
use super::picture::{Frame, Picture};
use super::sound::{Audio, Transcript};

/// The kinds of payload, which are also the kinds of record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PayloadKind {
    /// Decoded pixels.
    Frame,
    /// Decoded sound.
    Audio,
    /// A span of a stream.
    Segment,
    /// A vector, with labels where the model gives them.
    Embedding,
    /// Written text about a span.
    Caption,
    /// What was said in a span.
    Transcript,
    /// An encoded picture.
    Picture,
    /// Something that happened to the stream.
    Event,
    /// A packet that could not be processed, with its error.
    DeadLetter,
}

impl PayloadKind {
    /// Every kind.
    pub const ALL: [PayloadKind; 9] = [
        PayloadKind::Frame,
        PayloadKind::Audio,
        PayloadKind::Segment,
        PayloadKind::Embedding,
        PayloadKind::Caption,
        PayloadKind::Transcript,
        PayloadKind::Picture,
        PayloadKind::Event,
        PayloadKind::DeadLetter,
    ];

    /// The word in messages and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            PayloadKind::Frame => "frame",
            PayloadKind::Audio => "audio",
            PayloadKind::Segment => "segment",
            PayloadKind::Embedding => "embedding",
            PayloadKind::Caption => "caption",
            PayloadKind::Transcript => "transcript",
            PayloadKind::Picture => "picture",
            PayloadKind::Event => "event",
            PayloadKind::DeadLetter => "dead_letter",
        }
    }

    /// The word in topic names and folders.
    pub const fn plural(self) -> &'static str {
        match self {
            PayloadKind::Frame => "frames",
            PayloadKind::Audio => "audio",
            PayloadKind::Segment => "segments",
            PayloadKind::Embedding => "embeddings",
            PayloadKind::Caption => "captions",
            PayloadKind::Transcript => "transcripts",
            PayloadKind::Picture => "pictures",
            PayloadKind::Event => "events",
            PayloadKind::DeadLetter => "dead_letters",
        }
    }
}

/// What a packet carries.
#[derive(Debug, Clone)]
pub enum Payload {
    /// Decoded pixels.
    Frame(Arc<Frame>),
    /// Decoded sound.
    Audio(Arc<Audio>),
    /// A span of a stream.
    Segment(Arc<Segment>),
    /// A vector.
    Embedding(Arc<Embedding>),
    /// Written text.
    Caption(Arc<Caption>),
    /// What was said.
    Transcript(Arc<Transcript>),
    /// An encoded picture.
    Picture(Arc<Picture>),
    /// Something that happened to the stream.
    Event(Arc<Event>),
    /// A packet that could not be processed.
    DeadLetter(Arc<DeadLetter>),
}

impl Payload {
    /// Its kind.
    pub fn kind(&self) -> PayloadKind {
        match self {
            Payload::Frame(_) => PayloadKind::Frame,
            Payload::Audio(_) => PayloadKind::Audio,
            Payload::Segment(_) => PayloadKind::Segment,
            Payload::Embedding(_) => PayloadKind::Embedding,
            Payload::Caption(_) => PayloadKind::Caption,
            Payload::Transcript(_) => PayloadKind::Transcript,
            Payload::Picture(_) => PayloadKind::Picture,
            Payload::Event(_) => PayloadKind::Event,
            Payload::DeadLetter(_) => PayloadKind::DeadLetter,
        }
    }

    /// What it weighs in a queue, in bytes: pixels, vectors and encoded data; a flat 256 for what
    /// is small.
    pub fn weight(&self) -> usize {
        const SMALL: usize = 256;
        const WORD: usize = 48;
        SMALL
            + match self {
                Payload::Frame(frame) => frame.pixels.len(),
                Payload::Audio(audio) => audio.samples.len(),
                Payload::Embedding(embedding) => {
                    embedding.vector.len()
                        + embedding
                            .scores
                            .as_ref()
                            .map_or(0, |scores| scores.len() * 4)
                }
                Payload::Picture(picture) => picture.data.len(),
                Payload::Caption(caption) => caption.text.len(),
                Payload::Transcript(transcript) => {
                    transcript.text.len() + WORD * transcript.words.len()
                }
                _ => 0,
            }
    }
}

/// Why a segment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cut {
    /// A hard cut.
    Hard,
    /// A gradual transition (fade, dissolve, wipe).
    Gradual,
    /// It reached the longest length allowed.
    MaxLength,
    /// The stream broke off.
    Gap,
    /// The stream ended.
    End,
}

impl Cut {
    /// The symbol in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Cut::Hard => "hard",
            Cut::Gradual => "gradual",
            Cut::MaxLength => "max_length",
            Cut::Gap => "gap",
            Cut::End => "end",
        }
    }
}

/// A span of a stream: a shot.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// Number within (stream, stage, epoch), from 0.
    pub index: u64,
    /// What ended it.
    pub cut: Cut,
    /// How sure the model is of the cut that ended it, 0 to 1; 1 where no model was asked.
    pub confidence: f32,
    /// Frames inside.
    pub frames: u64,
}

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Finish {
    /// The model said so.
    Stop,
    /// It reached `max_tokens`.
    Length,
}

impl Finish {
    /// The symbol in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Finish::Stop => "stop",
            Finish::Length => "length",
        }
    }
}

/// Written text about a span.
#[derive(Debug, Clone, PartialEq)]
pub struct Caption {
    /// The text.
    pub text: String,
    /// BCP 47 language tag.
    pub language: String,
    /// What it is written for (a platform's name), empty for none.
    pub platform: String,
    /// The tags it was written from, best first.
    pub tags: Vec<Label>,
    /// Tokens generated.
    pub tokens: u32,
    /// Why it ended.
    pub finish: Finish,
    /// Whether something it waited for had not arrived in time.
    pub partial: bool,
    /// Which of several texts about the same it is, from 0.
    pub variant: u32,
}

/// A packet that could not be processed.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    /// What it carried.
    pub record: PayloadKind,
    /// The stage that failed.
    pub stage: String,
    /// Who must act: [`crate::error::Kind`]'s word.
    pub error_kind: String,
    /// What failed.
    pub error: String,
    /// How often it was tried.
    pub attempts: u32,
}
