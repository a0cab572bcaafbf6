//! `encode`: vectors for frames (ResNet, with its classes as labels) or for windows of frames (the Opus encoder). Answers are cached by
//! content, so equal pictures are computed once.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use half::f16;
use parking_lot::Mutex;

use crate::cache::Key;
use crate::config::Params;
use crate::config::shape::{Default, Field, Type};
use crate::inference::{Asker, EncodeModel, Encoded};
use crate::packet::{Embedding, Frame, Label, Payload, PayloadKind, RecordId, Scores, Span, VectorType};
use crate::stage::{Build, Context, Deps, Draft, Flush, Held, Holds, Input, Joins, OpenTransform, Out, StageKind, Transform};
use crate::{Error, Result};

/// The kind.
pub const KIND: StageKind = StageKind {
    name: "encode",
    doc: "A vector for each frame, with labels where the model has classes, or for each window of frames, as the model's architecture has it.",
    accepts: &[PayloadKind::Frame],
    emits: &[PayloadKind::Embedding],
    params: &[
        Field {
            name: "model",
            ty: Type::Model(&["ResNetForImageClassification", "OpusEncoder"]),
            default: Default::Required,
            doc: "The encoder. ResNet gives a vector and labels a frame, OpusEncoder a vector a window.",
        },
        Field {
            name: "top",
            ty: Type::Int(0, 1000),
            default: Default::Is("5"),
            doc: "Labels in each record, best first; for models with classes.",
        },
        Field {
            name: "dtype",
            ty: Type::Choice(&["f32", "f16"]),
            default: Default::Is("f32"),
            doc: "Number format of the vectors in records.",
        },
        Field { name: "normalize", ty: Type::Bool, default: Default::Is("false"), doc: "Whether vectors are scaled to length 1." },
        Field { name: "window", ty: Type::Int(1, 1024), default: Default::Is("30"), doc: "Frames in a window; for models of windows." },
        Field {
            name: "hop",
            ty: Type::Int(1, 1024),
            default: Default::Is("30"),
            doc: "Frames from one window's start to the next; for models of windows.",
        },
        Field {
            name: "tail",
            ty: Type::Choice(&["emit", "drop"]),
            default: Default::Is("emit"),
            doc: "What becomes of a window that the end of the stream or a gap cuts short.",
        },
        Field { name: "cache", ty: Type::Bool, default: Default::Is("true"), doc: "Whether answers are looked up and kept by content." },
    ],
    joins: Joins::AsWritten,
    holds,
    build: Build::Windowed(build),
};

fn holds(params: &Params) -> Holds {
    Holds { longest: std::time::Duration::ZERO, frames: u32::try_from(params.int("window")).unwrap_or(0) }
}

fn build(context: &Context<'_>) -> Result<OpenTransform> {
    let params = context.params;
    let model = context.deps.models.encoder(params.text("model"))?;
    let (window, hop) = if model.is_windowed() { (params.int("window"), params.int("hop")) } else { (1, 1) };
    let settings = Arc::new(Settings {
        model,
        top: params.int("top").unsigned_abs() as usize,
        dtype: if &**params.text("dtype") == "f16" { VectorType::F16 } else { VectorType::F32 },
        normalize: params.bool("normalize"),
        window: window.unsigned_abs() as usize,
        hop: hop.unsigned_abs() as usize,
        tail: &**params.text("tail") == "emit",
        cache: params.bool("cache"),
        deps: Arc::clone(context.deps),
    });
    Ok(Box::new(move |stream| {
        let asker = Asker { stream: Arc::clone(&stream.id), live: stream.live, deadline: None };
        Arc::new(Encode { settings: Arc::clone(&settings), asker, window: Mutex::default() })
    }))
}

struct Settings {
    model: EncodeModel,
    top: usize,
    dtype: VectorType,
    normalize: bool,
    window: usize,
    hop: usize,
    tail: bool,
    cache: bool,
    deps: Arc<Deps>,
}

struct Encode {
    settings: Arc<Settings>,
    asker: Asker,
    window: Mutex<Open>,
}

/// The window that is being filled.
#[derive(Default)]
struct Open {
    frames: VecDeque<Taken>,
    /// Frames to leave out before the next window begins.
    skip: usize,
}

struct Taken {
    frame: Arc<Frame>,
    span: Span,
    id: RecordId,
    held: Held,
}

/// A window that is complete.
struct Full {
    frames: Vec<Arc<Frame>>,
    span: Span,
    parents: Vec<RecordId>,
    held: Vec<Held>,
}

impl Open {
    fn push(&mut self, taken: Taken, settings: &Settings) -> Option<Full> {
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        self.frames.push_back(taken);
        if self.frames.len() < settings.window {
            return None;
        }
        let full = self.full();
        self.frames.drain(..settings.hop.min(settings.window));
        self.skip = settings.hop.saturating_sub(settings.window);
        full
    }

    fn full(&self) -> Option<Full> {
        let span = Span::new(self.frames.front()?.span.start, self.frames.back()?.span.end);
        Some(Full {
            frames: self.frames.iter().map(|taken| taken.frame.clone()).collect(),
            span,
            parents: self.frames.iter().map(|taken| taken.id).collect(),
            held: self.frames.iter().map(|taken| taken.held.split()).collect(),
        })
    }
}

#[async_trait]
impl Transform for Encode {
    async fn process(&self, input: Input<'_>, out: &mut Out) -> Result<()> {
        let (id, span) = (input.id(), input.head.span);
        let Payload::Frame(frame) = input.payload else { return Err(Error::bug("encode takes frames")) };
        let full = self.window.lock().push(Taken { frame, span, id, held: input.held.split() }, &self.settings);
        match full {
            Some(full) => self.encode(full, out).await,
            None => Ok(()),
        }
    }

    async fn flush(&self, _why: Flush, out: &mut Out) -> Result<()> {
        let rest = {
            let mut open = self.window.lock();
            // Frames that an earlier window already holds need no window of their own.
            let fresh = open.frames.len() > self.settings.window.saturating_sub(self.settings.hop);
            let rest = if self.settings.tail && fresh { open.full() } else { None };
            *open = Open::default();
            rest
        };
        match rest {
            Some(full) => self.encode(full, out).await,
            None => Ok(()),
        }
    }

    fn watermark(&self, incoming: u64) -> u64 {
        self.window.lock().frames.front().map_or(incoming, |taken| taken.span.start.min(incoming))
    }
}

impl Encode {
    async fn encode(&self, full: Full, out: &mut Out) -> Result<()> {
        out.risk(&full.held);
        let count = full.frames.len() as u32;
        let encoded = self.answer(full.frames).await?;
        let embedding = self.settings.embedding(encoded, count);
        let draft = Draft::new(Payload::Embedding(Arc::new(embedding)), full.span).by(self.settings.model.tag());
        out.emit(draft.from_records(full.parents).holding(full.held));
        Ok(())
    }

    async fn answer(&self, frames: Vec<Arc<Frame>>) -> Result<Encoded> {
        let settings = &self.settings;
        if !settings.cache {
            return settings.model.ask(frames, self.asker.clone()).await;
        }
        let key = settings.key(&frames);
        let compute = || async { Ok(pack(&settings.model.ask(frames, self.asker.clone()).await?)) };
        let (value, _) = settings.deps.cache.get_or_compute(&key, settings.deps.cache_ttl, compute).await?;
        unpack(&value).ok_or_else(|| Error::bug("the cache gave an encoding that does not parse"))
    }
}

impl Settings {
    /// Content, weights, precision and device: what the answer depends on.
    fn key(&self, frames: &[Arc<Frame>]) -> Key {
        let tag = self.model.tag();
        let mut key = Key::builder("encode").part(&tag.revision).part(&tag.precision).part(self.model.device());
        for frame in frames {
            let shape = [frame.width, frame.height, frame.stride].map(u32::to_le_bytes).concat();
            key = key.part(shape).part(&frame.pixels);
        }
        key.finish()
    }

    fn embedding(&self, encoded: Encoded, frames: u32) -> Embedding {
        let mut vector = encoded.vector;
        if self.normalize {
            let length = vector.iter().map(|v| v * v).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
            vector.iter_mut().for_each(|v| *v /= length);
        }
        let bytes: Vec<u8> = match self.dtype {
            VectorType::F32 => vector.iter().flat_map(|v| v.to_le_bytes()).collect(),
            VectorType::F16 => vector.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        };
        let names = self.model.labels();
        let (labels, scores) = match names {
            Some(names) if !encoded.probabilities.is_empty() => {
                let scores = Scores { names: Arc::clone(names), values: encoded.probabilities };
                (scores.top(self.top), Some(Arc::new(scores)))
            }
            _ => (Vec::<Label>::new(), None),
        };
        let tag = self.model.tag();
        Embedding {
            space: format!("{}@{}", tag.id, &tag.revision[..tag.revision.len().min(12)]).into(),
            dtype: self.dtype,
            dim: vector.len() as u32,
            normalized: self.normalize,
            vector: Bytes::from(bytes),
            frames,
            labels,
            scores,
        }
    }
}

/// An encoding as the cache keeps it: the vector's length as a little-endian u32, then all numbers as f32.
fn pack(encoded: &Encoded) -> Bytes {
    let numbers = encoded.vector.iter().chain(&encoded.probabilities).flat_map(|v| v.to_le_bytes());
    (encoded.vector.len() as u32).to_le_bytes().into_iter().chain(numbers).collect()
}

fn unpack(value: &[u8]) -> Option<Encoded> {
    let (length, numbers) = value.split_first_chunk::<4>()?;
    let mut vector: Vec<f32> = numbers.chunks_exact(4).map(|v| f32::from_le_bytes([v[0], v[1], v[2], v[3]])).collect();
    let length = u32::from_le_bytes(*length) as usize;
    (length <= vector.len()).then(|| {
        let probabilities = vector.split_off(length);
        Encoded { vector, probabilities }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoding_survives_the_cache() {
        let encoded = Encoded { vector: vec![1.5, -2.0], probabilities: vec![0.25, 0.75, 0.0] };
        assert_eq!(unpack(&pack(&encoded)).expect("it parses"), encoded);
        assert!(unpack(&[9, 0, 0, 0, 1, 2, 3, 4]).is_none());
        assert!(unpack(&[1]).is_none());
    }
}
