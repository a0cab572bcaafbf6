//! The branch of one view: decimation, scaling, conversion to RGB, and the sink that Rust reads.

use std::sync::Arc;

use gstreamer as gst;
use gstreamer::prelude::*;

use super::decimator::Decimator;
use super::elements::{DISCARD, make, make_appsink};
use super::ingest_state::IngestState;
use super::options::{FrameRate, View};
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
    let scale = make("videoscale")?;
    scale.set_property("add-borders", false);
    scale.set_property("n-threads", threads);
    let convert = make("videoconvert")?;
    convert.set_property("n-threads", threads);
    let filter = make("capsfilter")?;
    filter.set_property("caps", caps(view));
    let sink = make_appsink(view.queue)?;
    let elements = [&queue, &scale, &convert, &filter, sink.upcast_ref()];
    let wired = pipeline
        .add_many(elements)
        .and_then(|()| gst::Element::link_many(elements))
        .and_then(|()| tee.link(&queue));
    wired.map_err(|error| {
        Error::bug(format!("view `{}` cannot be wired", view.name)).because(error)
    })?;
    if let Some(period) = view.fps.and_then(FrameRate::period) {
        decimate(&queue, period)?;
    }
    Ok(ViewReader::new(index, sink, state))
}

fn caps(view: &View) -> gst::Caps {
    let caps = gst::Caps::builder("video/x-raw").field("format", "RGB");
    match view.size {
        Some((width, height)) => caps
            .field("width", width as i32)
            .field("height", height as i32)
            .build(),
        None => caps.build(),
    }
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
