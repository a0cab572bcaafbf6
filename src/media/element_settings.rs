//! The limits and time-outs of the sources and decoders that `uridecodebin` makes.

use std::sync::Arc;
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;

use super::ingest_state::IngestState;
use super::packet_probes::{observe_packets, track_download};
use super::playlist::is_playlist;

/// Sets up an element that has just been added, before it starts: `deep-element-added` is emitted
/// by the thread that adds it, which starts it only afterwards.
pub(super) fn configure(state: &Arc<IngestState>, element: &gst::Element, uri: &str) {
    let Some(factory) = element.factory() else {
        return;
    };
    let options = &state.options;
    let seconds = |duration: Duration| duration.as_secs().clamp(1, 3600) as u32;
    match factory.name().as_str() {
        "rtspsrc" => {
            if uri.starts_with("rtsp:") || uri.starts_with("rtsps:") {
                element.set_property_from_str("protocols", "tcp");
            }
            if options.sender_clock {
                element.set_property("add-reference-timestamp-meta", true);
            }
            element.set_property(
                "tcp-timeout",
                options.connect.as_micros().clamp(1, u128::from(u32::MAX)) as u64,
            );
            if let Some(latency) = options.latency {
                element.set_property("latency", latency.as_millis().min(60_000) as u32);
            }
        }
        "rtmp2src" => {
            element.set_property("timeout", seconds(options.connect));
            // Later than our own watch, which says what happened where this would only end the
            // stream.
            element.set_property("idle-timeout", seconds(options.stall) + 5);
        }
        "souphttpsrc" => {
            element.set_property("timeout", seconds(options.stall));
            authenticate(element, uri);
            if !options.live && !is_playlist(uri) {
                track_download(state, element);
            }
        }
        "srtsrc" => {
            element.set_property("auto-reconnect", false);
            if let Some(latency) = options.latency {
                element.set_property("latency", latency.as_millis().min(60_000) as i32);
            }
        }
        _ if [
            gst::ElementFactoryType::MEDIA_VIDEO,
            gst::ElementFactoryType::MEDIA_IMAGE,
        ]
        .into_iter()
        .any(|media| factory.has_type(gst::ElementFactoryType::DECODER | media)) =>
        {
            configure_decoder(state, element)
        }
        _ => {}
    }
}

/// Hands the user and password of an http URI to libsoup, which does not take them from it.
fn authenticate(element: &gst::Element, uri: &str) {
    let Ok(url) = url::Url::parse(uri) else {
        return;
    };
    if !url.username().is_empty() {
        element.set_property("user-id", url.username());
        element.set_property("user-pw", url.password().unwrap_or_default());
    }
}

fn configure_decoder(state: &Arc<IngestState>, element: &gst::Element) {
    let threads = state.options.decode_threads.min(64);
    for property in ["max-threads", "threads", "n-threads"] {
        let Some(found) = element.find_property(property) else {
            continue;
        };
        match found.value_type() {
            kind if kind == i32::static_type() => element.set_property(property, threads as i32),
            // Of the decoders only libav's take 0 for "as many as fit".
            kind if kind == u32::static_type() && threads > 0 => {
                element.set_property(property, threads)
            }
            _ => {}
        }
    }
    observe_packets(state, element);
}
