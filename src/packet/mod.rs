//! What flows through a pipeline: packets of a stream with their payload and receipt, and the marks
//! between them.

mod embedding;
mod event;
mod payload;
mod picture;
mod receipt;
mod sound;
mod stream;

use std::fmt;
use std::sync::Arc;

pub use embedding::{Embedding, Label, Scores, VectorType};
pub use event::{Balance, Event};
pub use payload::{Caption, Cut, DeadLetter, Finish, Payload, PayloadKind, Segment};
pub use picture::{Frame, Picture, PixelFormat};
pub use receipt::{Outcome, Reason, Receipt, Settle};
pub use sound::{Audio, SAMPLE_RATE, SpeechTask, SpokenWord, Transcript};
pub use stream::{Micros, Nanos, Span, Stream, TimeSource, now_micros};

/// The identity of a record: equal inputs, model and parameters give an equal id, so that a
/// consumer can drop duplicates.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId(pub [u8; 16]);

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The stage a packet came from, shared by all its packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The stage's id in the YAML.
    pub stage: Arc<str>,
    /// Its kind.
    pub kind: &'static str,
    /// The pipeline's name.
    pub pipeline: Arc<str>,
    /// Digest of the whole effective configuration, hexadecimal.
    pub config_hash: Arc<str>,
    /// Digest of this stage's parameters, part of every record's id.
    pub parameters: [u8; 16],
}

/// The model that made a packet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelTag {
    /// Its name: the folder's or the hub's.
    pub id: String,
    /// Digest of its weights, hexadecimal.
    pub revision: String,
    /// The precision it ran in: `f32`, `bf16`, `f16`.
    pub precision: String,
}

/// What one stage says about one stream: shared by all those packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// The stream.
    pub stream: Arc<Stream>,
    /// The stage.
    pub origin: Arc<Origin>,
}

/// Everything about a packet but what it carries.
#[derive(Debug, Clone)]
pub struct Head {
    /// The stream it belongs to and the stage it came from.
    pub channel: Arc<Channel>,
    /// The stretch of the stream without discontinuity: connection time in microseconds for live
    /// streams, a count from 0 for files.
    pub epoch: u64,
    /// Where in the epoch it lies.
    pub span: Span,
    /// Number per (stream, stage, epoch, kind of payload), from 0, without holes as emitted: a
    /// consumer sees losses.
    pub seq: u64,
    /// Which of several packets with equal stage and span it is.
    pub ordinal: u32,
    /// Wall clock of `span.start`.
    pub event_time: Micros,
    /// Wall clock when the last frame it is made of arrived.
    pub ingest_time: Micros,
    /// Wall clock when its stage emitted it.
    pub emit_time: Micros,
    /// What it was made of, where those are packets of their own.
    pub parents: Vec<RecordId>,
    /// The model that made it.
    pub model: Option<Arc<ModelTag>>,
    /// Which refinement of the same result it is, from 0.
    pub revision: u32,
    /// Whether no further refinement will come.
    pub is_final: bool,
}

impl Head {
    /// The id of the record that this packet becomes: a hash of stream, epoch, kind, stage, span,
    /// ordinal, model revision and parameters.
    pub fn id(&self, kind: PayloadKind) -> RecordId {
        let mut hasher = blake3::Hasher::new();
        for part in [
            self.channel.stream.id.as_bytes(),
            kind.as_str().as_bytes(),
            self.channel.origin.stage.as_bytes(),
            &self.channel.origin.parameters,
        ] {
            hasher
                .update(&(part.len() as u64).to_le_bytes())
                .update(part);
        }
        for number in [
            self.epoch,
            self.span.start,
            self.span.end,
            u64::from(self.ordinal),
            u64::from(self.revision),
        ] {
            hasher.update(&number.to_le_bytes());
        }
        if let Some(model) = &self.model {
            hasher
                .update(model.revision.as_bytes())
                .update(model.precision.as_bytes());
        }
        let mut id = [0; 16];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        RecordId(id)
    }
}

/// What flows from stage to stage.
#[derive(Debug)]
pub struct Packet {
    /// Everything but what it carries.
    pub head: Arc<Head>,
    /// What it carries.
    pub payload: Payload,
    /// The hold on the frames it was made of.
    pub receipt: Receipt,
}

impl Packet {
    /// The same packet for a further reader: nothing is copied, the frames gain a holder.
    #[must_use = "a packet dropped unsettled is a leak"]
    pub fn split(&self) -> Self {
        Self {
            head: Arc::clone(&self.head),
            payload: self.payload.clone(),
            receipt: self.receipt.split(),
        }
    }

    /// Its record's id.
    pub fn id(&self) -> RecordId {
        self.head.id(self.payload.kind())
    }

    /// What it weighs in a queue, in bytes.
    pub fn weight(&self) -> usize {
        self.payload.weight()
    }
}

/// What a stream says between its packets.
#[derive(Debug, Clone)]
pub enum Mark {
    /// Nothing with an earlier pts will follow in this epoch.
    Watermark {
        /// The epoch.
        epoch: u64,
        /// Nanoseconds.
        pts: Nanos,
    },
    /// The stream broke off; what follows belongs to `to_epoch`.
    Gap {
        /// Epoch that ended.
        from_epoch: u64,
        /// Epoch that begins.
        to_epoch: u64,
    },
}

/// What a queue holds.
#[derive(Debug)]
pub enum Item {
    /// A packet.
    Packet(Packet),
    /// A mark.
    Mark(Mark),
}
