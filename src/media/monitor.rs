//! Watches a stream until it has ended, and says in words why.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use gstreamer as gst;
use gstreamer::prelude::*;

use super::ingest_state::{IngestState, SECOND_STREAM};
use super::mp4;
use super::outcome::StreamEnd;
use crate::error::Error;
use crate::redact::redact;

/// How often the time-outs are looked at.
const TICK: Duration = Duration::from_millis(100);
/// How long after an error the frames before it may take to come out.
const DRAIN: Duration = Duration::from_millis(500);

/// Follows the bus until the stream has ended.
pub(super) async fn watch(
    mut messages: gst::bus::BusStream,
    state: Arc<IngestState>,
    path: Option<PathBuf>,
) {
    let mut failure = state.failure.subscribe();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut pending: Option<Error> = None;
    loop {
        tokio::select! {
            message = messages.next() => {
                let Some(message) = message else { return };
                match message.view() {
                    gst::MessageView::Eos(_) => return state.settle(at_end(&state, pending, path).await),
                    gst::MessageView::Error(error) => {
                        let error = explain(&state, error);
                        pending.get_or_insert(error);
                    }
                    gst::MessageView::Warning(warning) => {
                        state.warnings.fetch_add(1, Ordering::AcqRel);
                        let detail = warning.debug().map(|text| redact(&text));
                        tracing::debug!(source = %state.name, detail, "{}", redact(warning.error().message()));
                    }
                    _ => {}
                }
            }
            _ = failure.changed() => {}
            _ = tick.tick() => {}
        }
        if let Some(error) = failure.borrow_and_update().clone() {
            return state.settle(StreamEnd::Failed(error));
        }
        if let Some(error) = overdue(&state, &mut pending) {
            return state.settle(StreamEnd::Failed(error));
        }
    }
}

/// What ends a stream without a word from GStreamer: it never began, it has no video, it stands
/// still.
fn overdue(state: &IngestState, pending: &mut Option<Error>) -> Option<Error> {
    let name = &state.name;
    if state.first.borrow().is_none() {
        let since = Duration::from_millis(state.now());
        let audio_only =
            state.has_audio.load(Ordering::Acquire) && !state.has_video.load(Ordering::Acquire);
        if audio_only && (since > SECOND_STREAM.min(state.options.connect) || pending.is_some()) {
            return Some(no_video(state));
        }
        if pending.is_some() {
            return pending.take();
        }
        let late = since > state.options.connect;
        return late.then(|| late_frame(state));
    }
    let idle = state.idle()?;
    if pending.is_some() {
        return if idle > DRAIN { pending.take() } else { None };
    }
    (idle > state.options.stall)
        .then(|| Error::external(format!("{name}: no frame for {:?}", state.options.stall)))
}

fn late_frame(state: &IngestState) -> Error {
    let (name, connect) = (&state.name, state.options.connect);
    match state.untimed.load(Ordering::Acquire) {
        0 => Error::external(format!("{name}: no frame within {connect:?} of connecting")),
        _ => Error::external(format!(
            "{name}: no report of its sender's clock within {connect:?} of connecting"
        ))
        .hint("raise `connect`, or take the time of arrival: `clock: ingest`"),
    }
}

fn no_video(state: &IngestState) -> Error {
    Error::external(format!("{} has no video stream (audio only)", state.name))
}

async fn at_end(state: &IngestState, pending: Option<Error>, path: Option<PathBuf>) -> StreamEnd {
    let name = &state.name;
    if state.decoded.load(Ordering::Acquire) == 0
        && state.has_audio.load(Ordering::Acquire)
        && !state.has_video.load(Ordering::Acquire)
    {
        return StreamEnd::Failed(no_video(state));
    }
    if let Some(error) = pending {
        return StreamEnd::Failed(error);
    }
    let cut_off = match path {
        Some(path) => tokio::task::spawn_blocking(move || mp4::scan(&path)?.cut_off)
            .await
            .ok()
            .flatten(),
        None => state.download.lock().cut_off(),
    };
    if let Some((have, need)) = cut_off {
        return StreamEnd::Failed(Error::external(format!(
            "{name} is cut off: it has {have} of at least {need} bytes"
        )));
    }
    if state.decoded.load(Ordering::Acquire) == 0 {
        return StreamEnd::Failed(Error::external(format!("{name} ended without a frame")));
    }
    StreamEnd::EndOfStream
}

fn is_source(object: &gst::Object) -> bool {
    object
        .downcast_ref::<gst::Element>()
        .is_some_and(|element| element.element_flags().contains(gst::ElementFlags::SOURCE))
}

/// GStreamer's error in words, with what to do where that is known.
fn explain(state: &IngestState, message: &gst::message::Error) -> Error {
    let name = &state.name;
    let error = message.error();
    let element = message
        .src()
        .map(|source| source.name().to_string())
        .unwrap_or_default();
    tracing::debug!(source = %name, element, detail = message.debug().map(|text| redact(&text)), "{}", redact(error.message()));
    let text = redact(error.message().trim_end_matches('.'));
    match error.kind::<gst::StreamError>() {
        Some(gst::StreamError::TypeNotFound | gst::StreamError::WrongType) => {
            Error::external(format!("{name} is no video that GStreamer knows: {text}"))
        }
        Some(gst::StreamError::CodecNotFound) => Error::external(format!("{name}: {text}"))
            .hint("a decoder is missing; `opusflow doctor` lists what is installed"),
        // A source's last word where it has none of its own, a refused connection among them.
        Some(gst::StreamError::Failed) if message.src().is_some_and(is_source) => {
            Error::external(format!("{name} cannot be read: {text}"))
                .hint("see that it is there and answers")
        }
        _ => Error::external(format!("{name}: {text}")),
    }
}
