//! The branch of one view: thinning, scaling, conversion to RGB, and the sink that Rust reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::graph::make;
use super::ingest_state::{DISCARD, IngestState};
use super::options::View;
use super::view::ViewReader;
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
    let sink = make("appsink")?;
    for (property, value) in [
        ("drop", false),
        ("sync", false),
        ("async", false),
        ("qos", false),
        ("enable-last-sample", false),
    ] {
        sink.set_property(property, value);
    }
    sink.set_property("max-buffers", view.queue);
    let elements = [&queue, &scale, &convert, &filter, &sink];
    let wired = pipeline
        .add_many(elements)
        .and_then(|()| gst::Element::link_many(elements))
        .and_then(|()| tee.link(&queue));
    wired.map_err(|error| {
        Error::bug(format!("view `{}` cannot be wired", view.name)).because(error)
    })?;
    if let Some(period) = view.fps.and_then(super::FrameRate::period) {
        let pad = queue
            .static_pad("sink")
            .ok_or_else(|| Error::bug("a queue without sink pad"))?;
        let thinning = Decimator::new(period);
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            match info.buffer() {
                Some(buffer) if !thinning.keeps(buffer) => DISCARD,
                _ => gst::PadProbeReturn::Ok,
            }
        });
    }
    let sink = sink
        .downcast::<gst_app::AppSink>()
        .map_err(|_| Error::bug("appsink is no AppSink"))?;
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

/// Keeps the frame nearest to each tick of a clock that starts at 0. Not videorate: even with
/// `drop-only=true` it stamps frames anew, so that views would disagree on a frame's pts, and it
/// refuses sources of variable rate or of a lower one than asked for.
struct Decimator {
    period: Nanos,
    next: AtomicU64,
}

impl Decimator {
    fn new(period: Nanos) -> Self {
        Self {
            period,
            next: AtomicU64::new(0),
        }
    }

    fn keeps(&self, buffer: &gst::BufferRef) -> bool {
        let Some(pts) = buffer.pts() else { return true };
        self.keeps_at(
            pts.nseconds()
                + buffer
                    .duration()
                    .map_or(0, |duration| duration.nseconds() / 2),
        )
    }

    fn keeps_at(&self, middle: Nanos) -> bool {
        let keeps = middle >= self.next.load(Ordering::Relaxed);
        if keeps {
            self.next
                .store((middle / self.period + 1) * self.period, Ordering::Relaxed);
        }
        keeps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_the_frame_nearest_to_each_tick() {
        let kept = |period: u64, frame: u64, frames: u64| {
            let thinning = Decimator::new(period);
            (0..frames)
                .filter(|i| thinning.keeps_at(i * frame + frame / 2))
                .collect::<Vec<u64>>()
        };
        assert_eq!(kept(500, 33, 40), [0, 15, 30]);
        assert_eq!(
            kept(10, 40, 4),
            [0, 1, 2, 3],
            "a source slower than the view is kept whole"
        );
        let jump = Decimator::new(500);
        assert_eq!(
            [0, 100, 5_100, 5_200, 5_500].map(|pts| jump.keeps_at(pts)),
            [true, false, true, false, true]
        );
    }
}
