//! What a packet carries. Payloads are cheap to clone: pixels and vectors are reference-counted.

use std::sync::Arc;

use bytes::Bytes;
use half::f16;

use super::{Audio, Event, Micros, Transcript};

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

/// How pixels lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PixelFormat {
    /// Three bytes a pixel: red, green, blue.
    Rgb8,
}

impl PixelFormat {
    /// GStreamer's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            PixelFormat::Rgb8 => "RGB",
        }
    }

    /// Bytes of one pixel.
    pub const fn bytes_per_pixel(self) -> usize {
        match self {
            PixelFormat::Rgb8 => 3,
        }
    }
}

/// One decoded picture of a view. Its pts is the packet's `span.start`.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The view it belongs to.
    pub view: Arc<str>,
    /// Number within (stream, view, epoch), from 0.
    pub index: u64,
    /// Pixels a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Bytes from one row to the next, at least `width * format.bytes_per_pixel()`.
    pub stride: u32,
    /// How pixels lie in memory.
    pub format: PixelFormat,
    /// `height` rows of `stride` bytes (the last may end with its pixels), over the decoder's own
    /// memory where it is mapped.
    pub pixels: Bytes,
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

/// A class or tag with its probability.
#[derive(Debug, Clone, PartialEq)]
pub struct Label {
    /// Its name.
    pub name: Arc<str>,
    /// 0 to 1.
    pub score: f32,
}

/// The number format of a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VectorType {
    /// IEEE 754 binary32, little-endian.
    F32,
    /// IEEE 754 binary16, little-endian.
    F16,
}

impl VectorType {
    /// The symbol in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            VectorType::F32 => "f32",
            VectorType::F16 => "f16",
        }
    }

    /// Numbers as they lie in records.
    pub fn bytes(self, numbers: &[f32]) -> Bytes {
        match self {
            VectorType::F32 => numbers
                .iter()
                .flat_map(|number| number.to_le_bytes())
                .collect(),
            VectorType::F16 => numbers
                .iter()
                .flat_map(|number| f16::from_f32(*number).to_le_bytes())
                .collect(),
        }
    }

    /// Bytes of one number.
    pub const fn width(self) -> usize {
        match self {
            VectorType::F32 => 4,
            VectorType::F16 => 2,
        }
    }
}

/// A vector for a frame or a window of frames.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding {
    /// The space it lives in: vectors compare only within one space (model name and revision).
    pub space: Arc<str>,
    /// Number format of `vector`.
    pub dtype: VectorType,
    /// Numbers in `vector`.
    pub dim: u32,
    /// Whether its Euclidean length is 1.
    pub normalized: bool,
    /// `dim` numbers of `dtype`.
    pub vector: Bytes,
    /// Frames it was made of.
    pub frames: u32,
    /// The most probable classes, best first; empty where the model has no classes.
    pub labels: Vec<Label>,
    /// The probability of every class, for stages that average them; not part of the record.
    pub scores: Option<Arc<Scores>>,
}

/// The probability of every class of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// Class names, shared by every vector of the model.
    pub names: Arc<[Arc<str>]>,
    /// One probability a class: they sum to 1, or each stands for itself, as the model has it.
    pub values: Vec<f32>,
}

impl Scores {
    /// The `k` most probable classes, best first.
    pub fn top(&self, k: usize) -> Vec<Label> {
        let mut order: Vec<usize> = (0..self.values.len().min(self.names.len())).collect();
        order.sort_by(|&a, &b| self.values[b].total_cmp(&self.values[a]));
        order
            .iter()
            .take(k)
            .map(|&at| Label {
                name: Arc::clone(&self.names[at]),
                score: self.values[at],
            })
            .collect()
    }

    /// The mean probability of each class of the first's model; none of none.
    pub fn mean<'a>(scores: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        let mut scores = scores.into_iter();
        let (mut mean, mut count) = (scores.next()?.clone(), 1.0f32);
        for other in scores
            .filter(|other| other.values.len() == mean.values.len())
            .collect::<Vec<_>>()
        {
            mean.values
                .iter_mut()
                .zip(&other.values)
                .for_each(|(sum, value)| *sum += value);
            count += 1.0;
        }
        mean.values.iter_mut().for_each(|sum| *sum /= count);
        Some(mean)
    }

    /// Number of classes.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are no classes.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
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

/// An encoded picture, held by the object store.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// What it is for: `keyframe`, `thumbnail`.
    pub role: String,
    /// Where it lies.
    pub uri: String,
    /// SHA-256 of `data`, hexadecimal.
    pub sha256: String,
    /// IANA media type.
    pub media_type: String,
    /// Pixels a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// When the store may delete it; none for never.
    pub expires_at: Option<Micros>,
    /// The encoded bytes.
    pub data: Bytes,
    /// Whether `data` travels in the record.
    pub inline: bool,
    /// How much painted frames flicker beyond their sources: luma levels, 0 to 255, over the
    /// segment or since the picture before.
    pub flicker: Option<f32>,
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
