//! Whatever `uridecodebin` can read and decode: its pads are linked as they appear.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use gstreamer as gst;
use gstreamer::prelude::*;
use parking_lot::Mutex;

use super::audio_branch::AudioBranch;
use super::element_settings::configure;
use super::elements::{link_fakesink, make};
use super::ingest_state::IngestState;
use super::stream_selection::StreamSelection;
use crate::error::{Error, Result};

/// Adds the decoder of `uri`: its first video stream goes to `entry`, and its first audio stream to
/// `audio` where that is wanted.
pub(super) fn add(
    pipeline: &gst::Pipeline,
    entry: &gst::Pad,
    uri: &str,
    state: &Arc<IngestState>,
    audio: AudioBranch,
) -> Result<()> {
    // Not uridecodebin3: in GStreamer 1.22 it hangs at the start of one film in some hundreds, and
    // its hlsdemux2 crashes or hangs when its server goes away.
    let decode = make("uridecodebin")?;
    decode.set_property("uri", uri);
    select_streams(&decode, state);
    // Weak references: the pipeline owns the element, which owns this closure.
    let (entry, owner) = (entry.downgrade(), pipeline.downgrade());
    let linked = Arc::clone(state);
    decode.connect_pad_added(move |_, pad| {
        if let (Some(entry), Some(pipeline)) = (entry.upgrade(), owner.upgrade()) {
            link(&pipeline, pad, &entry, &linked, &audio);
        }
    });
    let (configured, uri) = (Arc::clone(state), uri.to_owned());
    pipeline.connect_deep_element_added(move |_, _, element| configure(&configured, element, &uri));
    pipeline
        .add(&decode)
        .map_err(|error| Error::bug("a pipeline takes no uridecodebin").because(error))
}

/// Lets `decode` ask, before it plugs an element behind a pad, whether that stream is decoded.
fn select_streams(decode: &gst::Element, state: &Arc<IngestState>) {
    // The signal comes from the streaming threads of all elementary streams. The lock makes "the
    // first of its kind" one answer for all; nothing under it emits the signal again.
    let (state, selection) = (Arc::clone(state), Mutex::new(StreamSelection::default()));
    decode.connect("autoplug-continue", false, move |values| {
        let pad = values.get(1).and_then(|value| value.get::<gst::Pad>().ok());
        let caps = values
            .get(2)
            .and_then(|value| value.get::<gst::Caps>().ok());
        let goes_on = match (pad, caps) {
            (Some(pad), Some(caps)) => selection.lock().admits(&state, &pad, &caps),
            _ => true,
        };
        Some(goes_on.to_value())
    });
}

/// Links a pad that uridecodebin has exposed: pictures to `entry`, sound to its branch, whatever is
/// left to a sink that discards it. Of two video pads that come at once only one can link to
/// `entry`: GStreamer refuses a second link, and that is logged.
fn link(
    pipeline: &gst::Pipeline,
    pad: &gst::Pad,
    entry: &gst::Pad,
    state: &Arc<IngestState>,
    audio: &AudioBranch,
) {
    let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
    let is = |kind: &str| {
        caps.structure(0)
            .is_some_and(|caps| caps.name().starts_with(kind))
    };
    if is("video/") {
        state.has_video.store(true, Ordering::Release);
    }
    let linked = if is("video/") && !entry.is_linked() {
        pad.link(entry).is_ok()
    } else if is("audio/x-raw") && audio.is_awaited() {
        match audio.attach(pipeline, pad, state) {
            Ok(()) => true,
            Err(error) => return state.fail(error),
        }
    } else {
        link_fakesink(pipeline, pad)
    };
    if !linked {
        tracing::warn!(target: "gstreamer", %caps, "a decoded stream cannot be linked");
    }
}
