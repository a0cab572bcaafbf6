//! What an input shows: the words that its prompt can ask for, and the frame to paint from.

use std::sync::Arc;

use super::style::blocking;
use crate::media;
use crate::packet::{Frame, Head, Payload, RecordId, Scores};
use crate::stage::Input;
use crate::{Error, Result};

/// The mean tags of the collected vectors, else those that the caption was written from.
pub(super) fn tags(input: &Input<'_>, count: usize) -> String {
    let scores = input
        .collected
        .iter()
        .filter_map(|(_, payload)| match payload {
            Payload::Embedding(embedding) => embedding.scores.as_deref(),
            _ => None,
        });
    let tags = match Scores::mean(scores) {
        Some(mean) => mean.top(count),
        None => payloads(input)
            .find_map(|payload| {
                if let Payload::Caption(caption) = payload {
                    Some(caption.tags.clone())
                } else {
                    None
                }
            })
            .unwrap_or_default(),
    };
    tags.iter()
        .take(count)
        .map(|tag| &*tag.name)
        .collect::<Vec<_>>()
        .join(", ")
}

/// The input's own payload and what was collected for it.
fn payloads<'a>(input: &'a Input<'_>) -> impl Iterator<Item = &'a Payload> {
    std::iter::once(&input.payload).chain(input.collected.iter().map(|(_, payload)| payload))
}

/// The captions, one after another.
pub(super) fn caption(input: &Input<'_>) -> String {
    let texts = payloads(input).filter_map(|payload| {
        if let Payload::Caption(caption) = payload {
            Some(caption.text.trim())
        } else {
            None
        }
    });
    texts
        .filter(|text| !text.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The collected frame or picture nearest to the middle of the span.
pub(super) fn nearest(input: &Input<'_>) -> Option<(RecordId, Payload)> {
    // A picture is about a whole span, as a keyframe is: its own middle counts.
    let middle = |head: &Head| head.span.start + head.span.len() / 2;
    let seen = input
        .collected
        .iter()
        .filter(|(_, payload)| matches!(payload, Payload::Frame(_) | Payload::Picture(_)));
    let (head, payload) = seen.min_by_key(|(head, _)| middle(head).abs_diff(middle(input.head)))?;
    Some((head.id(payload.kind()), payload.clone()))
}

/// The pixels of a frame or a picture.
pub(super) async fn frame_of(payload: Payload) -> Result<Arc<Frame>> {
    match payload {
        Payload::Frame(frame) => Ok(frame),
        Payload::Picture(picture) => {
            blocking(move || media::decode_picture(&picture.data).map(Arc::new)).await
        }
        other => Err(Error::bug(format!(
            "a {} is no frame",
            other.kind().as_str()
        ))),
    }
}
