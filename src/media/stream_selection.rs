//! Which elementary streams of a source are decoded.

use std::sync::atomic::Ordering;

use gstreamer as gst;
use gstreamer::glib::GString;
use gstreamer::prelude::*;

use super::ingest_state::IngestState;

/// The first video stream and, where sound is wanted, the first audio stream. The others are let
/// out undecoded.
#[derive(Default)]
pub(super) struct StreamSelection {
    /// The stream id of each, once one was seen.
    video: Option<GString>,
    audio: Option<GString>,
}

impl StreamSelection {
    /// Notes what there is, and says whether decoding goes on behind `pad`.
    pub fn admits(&mut self, state: &IngestState, pad: &gst::Pad, caps: &gst::CapsRef) -> bool {
        let Some(name) = caps.structure(0).map(|caps| caps.name().as_str()) else {
            return true;
        };
        let parent = pad.parent_element().and_then(|parent| parent.factory());
        // Containers are `video/...` as well; behind what takes them apart there are elementary
        // streams only.
        let is_elementary = parent.is_some_and(|parent| {
            parent.has_type(gst::ElementFactoryType::DEMUXER | gst::ElementFactoryType::DEPAYLOADER)
        });
        if name.starts_with("audio/") {
            state.has_audio.store(true, Ordering::Release);
            state.wants_sound() && (!is_elementary || is_first(&mut self.audio, pad))
        } else if is_elementary && (name.starts_with("video/") || name.starts_with("image/")) {
            state.has_video.store(true, Ordering::Release);
            is_first(&mut self.video, pad)
        } else {
            true
        }
    }
}

/// Whether `pad` is of the stream that was seen first.
fn is_first(known: &mut Option<GString>, pad: &gst::Pad) -> bool {
    let id = pad.stream_id().unwrap_or_else(|| pad.name());
    *known.get_or_insert_with(|| id.clone()) == id
}
