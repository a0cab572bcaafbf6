//! The branch of one view: decimation, turning upright, scaling, conversion to RGB, and the sink
//! that Rust reads.

use std::sync::Arc;

use gstreamer as gst;
use gstreamer::prelude::*;

use super::decimator::Decimator;
use super::elements::{DISCARD, make, make_appsink};
use super::ingest_state::IngestState;
use super::options::{Fit, FrameRate, View};
use super::view_reader::ViewReader;
use crate::error::{Error, Result};
use crate::packet::Nanos;

/// Adds the branch of view number `index` behind `tee`.
pub(super) fn add(
    pipeline: &gst::Pipeline,
    tee: &gst::Element,
    index: usize,
    state: &Arc<IngestState>,
) -> Result<ViewReader> {
    let view = &state.options.views[index];
    let threads = state.options.decode_threads.clamp(1, 4);
    let queue = make("queue")?;
    queue.set_property("max-size-buffers", 2u32);
    queue.set_property("max-size-bytes", 0u32);
    queue.set_property("max-size-time", 0u64);
    // As a camera's tags say; most frames pass as they are.
    let upright = make("videoflip")?;
    upright.set_property_from_str("video-direction", "auto");
    let scale = make("videoscale")?;
    scale.set_property("add-borders", view.fit == Fit::Contain);
    scale.set_property("n-threads", threads);
    let convert = make("videoconvert")?;
    convert.set_property("n-threads", threads);
    let filter = make("capsfilter")?;
    filter.set_property("caps", caps(view));
    let sink = make_appsink(view.queue)?;
    let crop = crop(view)?;
    let mut elements = vec![&queue, &upright];
    elements.extend(&crop);
    elements.extend([&scale, &convert, &filter, sink.upcast_ref()]);
    let wired = pipeline
        .add_many(&elements)
        .and_then(|()| gst::Element::link_many(&elements))
        .and_then(|()| tee.link(&queue));
    wired.map_err(|error| {
        Error::bug(format!("view `{}` cannot be wired", view.name)).because(error)
    })?;
    if let Some(period) = view.fps.and_then(FrameRate::period) {
        decimate(&queue, period)?;
    }
    Ok(ViewReader::new(index, sink, state))
}

/// What leaves the branch: square pixels, so that a picture looks as it is meant, unless it is
/// stretched anyway.
fn caps(view: &View) -> gst::Caps {
    let caps = gst::Caps::builder("video/x-raw").field("format", "RGB");
    let square = gst::Fraction::new(1, 1);
    match view.size {
        Some((width, height)) => {
            let sized = caps
                .field("width", width as i32)
                .field("height", height as i32);
            match view.fit {
                Fit::Stretch => sized.build(),
                Fit::Contain | Fit::Cover => sized.field("pixel-aspect-ratio", square).build(),
            }
        }
        None => caps.field("pixel-aspect-ratio", square).build(),
    }
}

/// What cuts a picture to the view's shape.
fn crop(view: &View) -> Result<Option<gst::Element>> {
    let Some((width, height)) = view.size.filter(|_| view.fit == Fit::Cover) else {
        return Ok(None);
    };
    let crop = make("aspectratiocrop")?;
    crop.set_property(
        "aspect-ratio",
        gst::Fraction::new(width as i32, height as i32),
    );
    Ok(Some(crop))
}

/// Drops the frames that the view's rate leaves out before they wait in `queue` or are scaled. The
/// probe runs in the thread that pushes into the tee, so frames come to it one by one, in order.
fn decimate(queue: &gst::Element, period: Nanos) -> Result<()> {
    let entry = queue
        .static_pad("sink")
        .ok_or_else(|| Error::bug("a queue without sink pad"))?;
    let decimator = Decimator::new(period);
    entry.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        match info.buffer() {
            Some(buffer) if !decimator.keeps(buffer) => DISCARD,
            _ => gst::PadProbeReturn::Ok,
        }
    });
    Ok(())
}
