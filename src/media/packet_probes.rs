//! Probes on data that is still encoded: they count packets, refuse pictures that are too large
//! while they are still small, and follow a download.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gstreamer as gst;
use gstreamer::prelude::*;

use super::elements::DISCARD;
use super::ingest_state::IngestState;
use super::jpeg_header;

/// Video formats whose stream may hold packets that become no picture, so that counting them in and
/// out says nothing.
const UNCOUNTED: [&str; 3] = ["video/x-vp8", "video/x-vp9", "video/x-av1"];

/// Puts a probe before a parser or a decoder. Both are probed and the larger count is taken,
/// because a parser may drop damaged packets and a decoder others: what a later element misses, an
/// earlier one has counted.
pub(super) fn observe_packets(state: &Arc<IngestState>, element: &gst::Element) {
    let Some(pad) = element.static_pad("sink") else {
        return;
    };
    let (state, seen) = (Arc::clone(state), AtomicU64::new(0));
    pad.add_probe(
        gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM,
        move |pad, info| match &info.data {
            Some(gst::PadProbeData::Event(event)) => match event.view() {
                gst::EventView::Caps(caps) => caps_admitted(&state, caps.caps()),
                _ => gst::PadProbeReturn::Ok,
            },
            Some(gst::PadProbeData::Buffer(buffer)) => {
                if state.failure.borrow().is_some() || !jpeg_admitted(&state, pad, buffer) {
                    return DISCARD;
                }
                if is_framed(pad) && is_shown(pad, buffer) {
                    let count = seen.fetch_add(1, Ordering::AcqRel) + 1;
                    state.encoded.fetch_max(count, Ordering::AcqRel);
                }
                gst::PadProbeReturn::Ok
            }
            _ => gst::PadProbeReturn::Ok,
        },
    );
}

/// Follows what an HTTP source delivers: when a server that gave no length breaks off, the source
/// ends as if the file were complete, and only its boxes tell.
pub(super) fn track_download(state: &Arc<IngestState>, element: &gst::Element) {
    let Some(pad) = element.static_pad("src") else {
        return;
    };
    let state = Arc::clone(state);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer()
            && let Ok(data) = buffer.map_readable()
        {
            let offset = Some(buffer.offset()).filter(|offset| *offset != u64::MAX);
            state.download.lock().take(offset, &data);
        }
        gst::PadProbeReturn::Ok
    });
}

/// Notes the codec, and says whether pictures of the size that the caps name may be decoded.
fn caps_admitted(state: &IngestState, caps: &gst::CapsRef) -> gst::PadProbeReturn {
    let Some(structure) = caps.structure(0) else {
        return gst::PadProbeReturn::Ok;
    };
    *state.codec.lock() = Some(codec(structure));
    let side = |name| structure.get::<i32>(name).unwrap_or(0).max(0) as u32;
    if state.admits(side("width"), side("height")) {
        gst::PadProbeReturn::Ok
    } else {
        DISCARD
    }
}

/// Whether a packet's picture may be decoded, as far as its size can be read from the packet alone.
fn jpeg_admitted(state: &IngestState, pad: &gst::Pad, buffer: &gst::BufferRef) -> bool {
    let is_jpeg = pad.current_caps().is_some_and(|caps| {
        caps.structure(0)
            .is_some_and(|caps| caps.name() == "image/jpeg")
    });
    let size = if is_jpeg {
        buffer
            .map_readable()
            .ok()
            .and_then(|data| jpeg_header::size(&data))
    } else {
        None
    };
    size.is_none_or(|(width, height)| state.admits(width, height))
}

/// Whether packets here are whole frames that each become a picture.
fn is_framed(pad: &gst::Pad) -> bool {
    let Some(caps) = pad.current_caps() else {
        return false;
    };
    caps.structure(0).is_some_and(|caps| {
        let packed = caps
            .get::<&str>("stream-format")
            .is_ok_and(|format| format != "byte-stream");
        let aligned = caps
            .get::<&str>("alignment")
            .is_ok_and(|alignment| alignment == "au");
        let parsed = caps.get::<bool>("parsed").unwrap_or(false)
            || caps.get::<bool>("framed").unwrap_or(false);
        (packed || aligned || parsed) && !UNCOUNTED.contains(&caps.name().as_str())
    })
}

/// Whether a packet becomes a picture that the segment shows.
fn is_shown(pad: &gst::Pad, buffer: &gst::BufferRef) -> bool {
    if buffer.flags().contains(gst::BufferFlags::DECODE_ONLY) {
        return false;
    }
    let segment = pad
        .sticky_event::<gst::event::Segment>(0)
        .and_then(|event| event.segment().downcast_ref::<gst::ClockTime>().cloned());
    segment
        .zip(buffer.pts())
        .is_none_or(|(segment, pts)| segment.to_running_time(pts).is_some())
}

/// `h264` for `video/x-h264`, `mpeg4` for `video/mpeg, mpegversion=4`.
fn codec(structure: &gst::StructureRef) -> String {
    let name = structure.name().as_str();
    match structure.get::<i32>("mpegversion") {
        Ok(version) => format!("mpeg{version}"),
        Err(_) => name
            .trim_start_matches("video/")
            .trim_start_matches("image/")
            .trim_start_matches("x-")
            .to_owned(),
    }
}
