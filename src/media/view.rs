//! The reading end of a view: an async stream of frames over GStreamer's own memory.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use tokio::sync::watch;

use super::intake::{Intake, Tap};
use crate::error::{Error, Result};
use crate::packet::{Frame, Micros, Nanos, PixelFormat, Span, now_micros};

/// A frame of a view.
#[derive(Debug, Clone)]
pub struct Captured {
    /// The picture; its pixels are the mapped GStreamer buffer, which returns to its pool when the last clone falls.
    pub frame: Frame,
    /// From its pts for as long as it stands: the view's period where it has a rate, else the frame's own duration. A pts is nanoseconds
    /// of running
    /// time, equal in all views of the stream and strictly increasing; a live stream's first decoded frame has 0.
    pub span: Span,
    /// Wall clock when the frame left GStreamer.
    pub arrived: Micros,
}

/// Reads the frames of one view. When it falls, its branch runs dry and the other views go on.
pub struct ViewReader {
    pub(super) name: Arc<str>,
    pub(super) sink: gst_app::AppSink,
    tap: Arc<Tap>,
    intake: Arc<Intake>,
    closed: watch::Receiver<bool>,
    period: Option<Nanos>,
    shape: Option<(gst::Caps, Shape)>,
    index: u64,
    finished: bool,
}

#[derive(Debug, Clone, Copy)]
struct Shape {
    width: u32,
    height: u32,
    stride: u32,
}

impl ViewReader {
    pub(super) fn new(index: usize, sink: gst_app::AppSink, intake: &Arc<Intake>) -> Self {
        let view = &intake.options.views[index];
        let tap = Arc::clone(&intake.taps[index]);
        let (sample, eos) = (Arc::clone(&tap), Arc::clone(&tap));
        sink.set_callbacks(
            gst_app::AppSinkCallbacks::builder()
                .new_sample(move |_| {
                    sample.arrived.notify_one();
                    Ok(gst::FlowSuccess::Ok)
                })
                .eos(move |_| eos.arrived.notify_one())
                .build(),
        );
        Self {
            name: Arc::clone(&view.name),
            sink,
            tap,
            closed: intake.closed.subscribe(),
            intake: Arc::clone(intake),
            period: view.fps.and_then(super::Fraction::period),
            shape: None,
            index: 0,
            finished: false,
        }
    }

    /// The view's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The next frame, `None` at the end: [`super::Handle::ended`] then says why. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Captured> {
        while !self.finished {
            if *self.closed.borrow_and_update() {
                break;
            }
            if let Some(sample) = self.sink.try_pull_sample(gst::ClockTime::ZERO) {
                self.tap.since.store(self.intake.now(), Ordering::Release);
                match self.capture(sample) {
                    Ok(captured) => return Some(captured),
                    Err(error) => {
                        self.intake.fail(error);
                        break;
                    }
                }
            }
            if self.sink.is_eos() {
                break;
            }
            let _waiting = Waiting::begin(&self.tap);
            tokio::select! {
                () = self.tap.arrived.notified() => {}
                _ = self.closed.changed() => {}
            }
        }
        self.finished = true;
        self.tap.gone.store(true, Ordering::Release);
        None
    }

    fn capture(&mut self, sample: gst::Sample) -> Result<Captured> {
        let arrived = now_micros();
        let name = &self.name;
        let odd = |what: &str| Error::bug(format!("view `{name}`: {what}"));
        let shape = match (&self.shape, sample.caps()) {
            (Some((known, shape)), Some(caps)) if known.as_ptr() == caps.as_mut_ptr().cast_const() => *shape,
            (_, Some(caps)) => {
                let info = gst_video::VideoInfo::from_caps(caps).map_err(|error| odd("caps are not video").because(error))?;
                let shape = Shape { width: info.width(), height: info.height(), stride: info.stride()[0].unsigned_abs() };
                self.shape = Some((caps.to_owned(), shape));
                shape
            }
            (_, None) => return Err(odd("a sample without caps")),
        };
        let buffer = sample.buffer_owned().ok_or_else(|| odd("a sample without buffer"))?;
        drop(sample);
        let (offset, stride) = match buffer.meta::<gst_video::VideoMeta>() {
            Some(meta) => (meta.offset()[0], meta.stride()[0].unsigned_abs()),
            None => (0, shape.stride),
        };
        let start = buffer.pts().map_or(0, gst::ClockTime::nseconds);
        let length = self.period.or(buffer.duration().map(gst::ClockTime::nseconds)).unwrap_or(0);
        let mapped = buffer.into_mapped_buffer_readable().map_err(|_| odd("a buffer cannot be mapped"))?;
        let mut pixels = Bytes::from_owner(mapped);
        let row = shape.width as usize * PixelFormat::Rgb8.bytes_per_pixel();
        let end = offset + stride as usize * (shape.height as usize - 1) + row;
        if end > pixels.len() || (stride as usize) < row {
            return Err(odd(&format!("{} bytes hold no picture of {}x{}, stride {stride}", pixels.len(), shape.width, shape.height)));
        }
        if offset > 0 {
            pixels = pixels.slice(offset..);
        }
        let frame = Frame {
            view: Arc::clone(&self.name),
            index: self.index,
            width: shape.width,
            height: shape.height,
            stride,
            format: PixelFormat::Rgb8,
            pixels,
        };
        self.index += 1;
        Ok(Captured { frame, span: Span::new(start, start + length), arrived })
    }
}

impl fmt::Debug for ViewReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ViewReader({} of {})", self.name, self.intake.name)
    }
}

impl Drop for ViewReader {
    fn drop(&mut self) {
        self.tap.gone.store(true, Ordering::Release);
        self.sink.set_callbacks(gst_app::AppSinkCallbacks::builder().build());
        self.sink.set_property("wait-on-eos", false);
        self.sink.set_drop(true);
        // Wakes the branch if it waits for room; from here on it drops.
        while self.sink.try_pull_sample(gst::ClockTime::ZERO).is_some() {}
    }
}

/// Marks a view as waited for, as long as it lives.
struct Waiting<'a>(&'a Tap);

impl<'a> Waiting<'a> {
    fn begin(tap: &'a Tap) -> Self {
        tap.waiting.store(true, Ordering::Release);
        Self(tap)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.store(false, Ordering::Release);
    }
}
