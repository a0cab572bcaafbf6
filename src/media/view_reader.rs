//! The reading end of a view: an async stream of frames over GStreamer's own memory.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;

use super::ingest_state::IngestState;
use super::options::FrameRate;
use super::sample_reader::SampleReader;
use crate::error::{Error, Result};
use crate::packet::{Frame, Micros, Nanos, PixelFormat, Span, now_micros};

/// A frame of a view.
#[derive(Debug, Clone)]
pub struct CapturedFrame {
    /// The picture; its pixels are the mapped GStreamer buffer, which returns to its pool when the
    /// last clone is dropped.
    pub frame: Frame,
    /// From its pts for as long as it stands: the view's period where it has a rate, else the
    /// frame's own duration. A pts is nanoseconds of running time, equal in all views of the stream
    /// and strictly increasing; a live stream's first decoded frame has 0.
    pub span: Span,
    /// Wall clock when the frame left GStreamer.
    pub arrived: Micros,
}

/// Reads the frames of one view. When it is dropped, its branch drops what comes and the other
/// views go on.
pub struct ViewReader {
    name: Arc<str>,
    pub(super) samples: SampleReader,
    period: Option<Nanos>,
    /// The caps of the last frame, and what they say: they seldom change.
    layout: Option<(gst::Caps, Layout)>,
    index: u64,
    /// The pts of the last frame.
    last: Option<Nanos>,
}

/// How a frame's pixels lie in its buffer, where the buffer does not say so itself.
#[derive(Debug, Clone, Copy)]
struct Layout {
    width: u32,
    height: u32,
    stride: u32,
}

impl ViewReader {
    pub(super) fn new(index: usize, sink: gst_app::AppSink, state: &Arc<IngestState>) -> Self {
        let view = &state.options.views[index];
        Self {
            name: Arc::clone(&view.name),
            samples: SampleReader::new(sink, state, &state.readers[index]),
            period: view.fps.and_then(FrameRate::period),
            layout: None,
            index: 0,
            last: None,
        }
    }

    /// The view's name.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The next frame, `None` at the end: `StreamHandle::ended` then says why. Nothing is lost when
    /// the future is dropped.
    pub async fn next(&mut self) -> Option<CapturedFrame> {
        let sample = self.samples.next().await?;
        match self.capture(sample) {
            Ok(captured) => Some(captured),
            Err(error) => {
                self.samples.fail(error);
                None
            }
        }
    }

    fn capture(&mut self, sample: gst::Sample) -> Result<CapturedFrame> {
        let arrived = now_micros();
        let layout = self.layout(&sample)?;
        let buffer = sample
            .buffer_owned()
            .ok_or_else(|| self.odd("a sample without buffer"))?;
        // The buffer's only other owner: without it the map below needs no copy.
        drop(sample);
        let (offset, stride) = match buffer.meta::<gst_video::VideoMeta>() {
            Some(meta) => (meta.offset()[0], meta.stride()[0].unsigned_abs()),
            None => (0, layout.stride),
        };
        let start = buffer.pts().map_or(0, gst::ClockTime::nseconds);
        // Retiming gave every frame a later pts than the one before, and branches keep the order.
        debug_assert!(
            self.last.is_none_or(|last| start > last),
            "view `{}`: a pts of {start} after {:?}",
            self.name,
            self.last
        );
        self.last = Some(start);
        let length = self
            .period
            .or(buffer.duration().map(gst::ClockTime::nseconds))
            .unwrap_or(0);
        let mapped = buffer
            .into_mapped_buffer_readable()
            .map_err(|_| self.odd("a buffer cannot be mapped"))?;
        let mut pixels = Bytes::from_owner(mapped);
        let row = layout.width as usize * PixelFormat::Rgb8.bytes_per_pixel();
        let end = offset + stride as usize * (layout.height as usize - 1) + row;
        if end > pixels.len() || (stride as usize) < row {
            return Err(self.odd(&format!(
                "{} bytes hold no picture of {}x{}, stride {stride}",
                pixels.len(),
                layout.width,
                layout.height
            )));
        }
        if offset > 0 {
            pixels = pixels.slice(offset..);
        }
        let frame = Frame {
            view: Arc::clone(&self.name),
            index: self.index,
            width: layout.width,
            height: layout.height,
            stride,
            format: PixelFormat::Rgb8,
            pixels,
        };
        self.index += 1;
        Ok(CapturedFrame {
            frame,
            span: Span::new(start, start + length),
            arrived,
        })
    }

    /// What the sample's caps say, parsed only where they are not those of the sample before: equal
    /// pointers are the same caps, for `self.layout` keeps them alive.
    fn layout(&mut self, sample: &gst::Sample) -> Result<Layout> {
        let caps = sample
            .caps()
            .ok_or_else(|| self.odd("a sample without caps"))?;
        if let Some((known, layout)) = &self.layout
            && known.as_ptr() == caps.as_mut_ptr().cast_const()
        {
            return Ok(*layout);
        }
        let info = gst_video::VideoInfo::from_caps(caps)
            .map_err(|error| self.odd("caps are not video").because(error))?;
        let layout = Layout {
            width: info.width(),
            height: info.height(),
            stride: info.stride()[0].unsigned_abs(),
        };
        self.layout = Some((caps.to_owned(), layout));
        Ok(layout)
    }

    fn odd(&self, what: &str) -> Error {
        Error::bug(format!("view `{}`: {what}", self.name))
    }
}

impl fmt::Debug for ViewReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ViewReader({} of {})",
            self.name, self.samples.state.name
        )
    }
}
