//! Making GStreamer elements, and what every pad probe answers to drop something.

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use crate::error::{Error, Result};

/// What a probe answers to take a buffer or an event out of the flow. Not `Drop`: to that GStreamer
/// 1.22 adds a complaint about an object that the bindings have already freed.
pub(super) const DISCARD: gst::PadProbeReturn = gst::PadProbeReturn::Handled;

/// Makes an element, or says what is missing.
pub(super) fn make(name: &str) -> Result<gst::Element> {
    gst::ElementFactory::make(name).build().map_err(|error| {
        Error::external(format!("GStreamer has no element `{name}`"))
            .because(error)
            .hint("`opusflow doctor` lists what is missing")
    })
}

/// An appsink that holds at most `max_buffers` and then blocks its branch: it drops nothing, and
/// waits for no clock.
pub(super) fn make_appsink(max_buffers: u32) -> Result<gst_app::AppSink> {
    let sink = make("appsink")?;
    for property in ["drop", "sync", "async", "qos", "enable-last-sample"] {
        sink.set_property(property, false);
    }
    sink.set_property("max-buffers", max_buffers);
    sink.downcast::<gst_app::AppSink>()
        .map_err(|_| Error::bug("appsink is no AppSink"))
}

/// Ends a stream that nobody asked for in a sink of its own, and says whether that worked: left
/// unlinked, it would stop the demuxer with an error.
pub(super) fn link_fakesink(pipeline: &gst::Pipeline, pad: &gst::Pad) -> bool {
    let Ok(sink) = make("fakesink") else {
        return false;
    };
    for property in ["sync", "async", "enable-last-sample"] {
        sink.set_property(property, false);
    }
    let linked = pipeline.add(&sink).is_ok()
        && sink
            .static_pad("sink")
            .is_some_and(|entry| pad.link(&entry).is_ok());
    linked && sink.sync_state_with_parent().is_ok()
}
