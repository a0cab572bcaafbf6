//! What a caption is about: a prompt, a picture, or the vectors of a video, as the model wants it.

use std::sync::Arc;

use half::f16;

use crate::cache::KeyBuilder;
use crate::inference::{Captioner, Requester};
use crate::models::caption_decoder::CaptionRequest;
use crate::models::text::{Generation, GenerationConfig, TextRequest};
use crate::packet::{Embedding, Frame, Payload, PayloadKind, RecordId, Span, VectorType};
use crate::stage::Input;
use crate::{Error, Result};

/// What a caption is about.
#[derive(Debug)]
pub(super) enum Subject {
    /// A language model answers a prompt.
    Prompt {
        prompt: String,
        system: Option<String>,
    },
    /// A picture is captioned, from what the caption begins with.
    Picture { frame: Arc<Frame>, begin: String },
    /// A video is captioned by its vectors.
    Video {
        vectors: Vec<Vec<f32>>,
        begin: String,
    },
}

impl Subject {
    /// Of an input, with the records that it is made of; `text` is what the prompt says. None where
    /// a segment has nothing to show: it is shorter than the pace of what was collected.
    pub fn of(
        captioner: &Captioner,
        input: &Input<'_>,
        text: String,
        system: Option<&str>,
    ) -> Result<Option<(Self, Vec<RecordId>)>> {
        let own = input.id();
        let begin = text;
        let of_frame = |frame, begin, parents| Some((Self::Picture { frame, begin }, parents));
        Ok(match (captioner, &input.payload) {
            (Captioner::Text(_), Payload::Segment(_)) => {
                let collected = input.collected.iter();
                let collected = collected.map(|(head, payload)| head.id(payload.kind()));
                let parents = std::iter::once(own).chain(collected).collect();
                let system = system.map(str::to_owned);
                let prompt = begin;
                Some((Self::Prompt { prompt, system }, parents))
            }
            (Captioner::Picture(_), Payload::Frame(frame)) => {
                of_frame(Arc::clone(frame), begin, vec![own])
            }
            (Captioner::Picture(_), Payload::Segment(_)) => {
                nearest(input).and_then(|(frame, id)| of_frame(frame, begin, vec![own, id]))
            }
            (Captioner::Video(_), Payload::Embedding(embedding)) => {
                let vectors = vec![numbers(embedding)];
                Some((Self::Video { vectors, begin }, vec![own]))
            }
            (Captioner::Video(_), Payload::Segment(_)) => {
                let (mut vectors, mut parents) = (Vec::new(), vec![own]);
                for (head, payload) in &input.collected {
                    if let Payload::Embedding(embedding) = payload {
                        vectors.push(numbers(embedding));
                        parents.push(head.id(PayloadKind::Embedding));
                    }
                }
                let is_shown = !vectors.is_empty();
                is_shown.then_some((Self::Video { vectors, begin }, parents))
            }
            (_, payload) => {
                let error = Error::config(format!(
                    "this model writes no captions about {}",
                    payload.kind().plural()
                ));
                return Err(error.hint(
                    "a language model wants segments, BLIP frames or segments, OpusCaptionDecoder \
                     vectors or segments",
                ));
            }
        })
    }

    /// Asks the model for the texts.
    pub async fn ask(
        self,
        captioner: &Captioner,
        writing: &GenerationConfig,
        requester: Requester,
    ) -> Result<Vec<Generation>> {
        let writing = writing.clone();
        match (self, captioner) {
            (Self::Prompt { prompt, system }, Captioner::Text(model)) => {
                model
                    .ask(
                        TextRequest {
                            prompt,
                            system,
                            writing,
                        },
                        requester,
                    )
                    .await
            }
            (Self::Picture { frame, begin }, Captioner::Picture(model)) => {
                model
                    .ask(frame, CaptionRequest { begin, writing }, requester)
                    .await
            }
            (Self::Video { vectors, begin }, Captioner::Video(model)) => {
                model
                    .ask(vectors, CaptionRequest { begin, writing }, requester)
                    .await
            }
            _ => Err(Error::bug("a caption about what its model does not take")),
        }
    }

    /// The part of its texts' key that depends on it.
    pub fn key(&self, key: KeyBuilder) -> KeyBuilder {
        match self {
            Self::Prompt { prompt, system } => {
                key.part(prompt).part(system.as_deref().unwrap_or("\0"))
            }
            Self::Picture { frame, begin } => {
                let shape = [frame.width, frame.height, frame.stride]
                    .map(u32::to_le_bytes)
                    .concat();
                key.part(begin).part(shape).part(&frame.pixels)
            }
            Self::Video { vectors, begin } => {
                let key = key.part(begin).number(vectors.len() as u64);
                let bytes = |vector: &Vec<f32>| {
                    vector
                        .iter()
                        .flat_map(|number| number.to_le_bytes())
                        .collect::<Vec<u8>>()
                };
                vectors
                    .iter()
                    .fold(key, |key, vector| key.part(bytes(vector)))
            }
        }
    }
}

/// The collected frame that lies nearest to the middle of the segment.
fn nearest(input: &Input<'_>) -> Option<(Arc<Frame>, RecordId)> {
    let frames = input
        .collected
        .iter()
        .filter_map(|(head, payload)| match payload {
            Payload::Frame(frame) => Some((head, frame)),
            _ => None,
        });
    let middle = middle(input.head.span);
    let (head, frame) = frames.min_by_key(|(head, _)| head.span.start.abs_diff(middle))?;
    Some((Arc::clone(frame), head.id(PayloadKind::Frame)))
}

fn middle(span: Span) -> u64 {
    span.start + span.len() / 2
}

/// The numbers of a vector.
fn numbers(embedding: &Embedding) -> Vec<f32> {
    match embedding.dtype {
        VectorType::F32 => embedding
            .vector
            .chunks_exact(4)
            .map(|v| f32::from_le_bytes([v[0], v[1], v[2], v[3]]))
            .collect(),
        VectorType::F16 => embedding
            .vector
            .chunks_exact(2)
            .map(|v| f16::from_le_bytes([v[0], v[1]]).to_f32())
            .collect(),
    }
}
