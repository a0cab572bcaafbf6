//! A stream's sound: the branch that converts it to one channel of 16 kHz, and its reading end, an
//! async stream of pieces of equal length.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::graph::make;
use super::handle::SECOND_STREAM;
use super::ingest_state::IngestState;
use super::samples::SampleReader;
use crate::error::{Error, Result};
use crate::packet::{Audio, Micros, Nanos, SAMPLE_RATE, Span, now_micros};

/// Bytes of one sample.
const SAMPLE: usize = 4;
/// How far a buffer may lie from the end of the last to follow it: what resamplers and rounded
/// timestamps make of unbroken sound.
const TOLERANCE: Nanos = 40_000_000;

/// The appsinks of the views of sound. They wait outside the pipeline until there is sound, for a
/// sink that gets nothing would keep the stream from ending.
pub(super) struct AudioBranch {
    sinks: Vec<gst_app::AppSink>,
}

impl AudioBranch {
    /// The sinks and a reader for each.
    pub fn new(state: &Arc<IngestState>) -> Result<(Self, Vec<SoundReader>)> {
        let (mut sinks, mut readers) = (Vec::new(), Vec::new());
        for index in 0..state.options.sounds.len() {
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
            sink.set_property("max-buffers", 16u32);
            let sink = sink
                .downcast::<gst_app::AppSink>()
                .map_err(|_| Error::bug("appsink is no AppSink"))?;
            readers.push(SoundReader::new(index, sink.clone(), state));
            sinks.push(sink);
        }
        Ok((Self { sinks }, readers))
    }

    /// Whether sound is wanted and has not come yet.
    pub fn is_open(&self) -> bool {
        self.sinks
            .first()
            .is_some_and(|sink| sink.parent().is_none())
    }

    /// Puts the branch behind `pad`.
    pub fn attach(
        &self,
        pipeline: &gst::Pipeline,
        pad: &gst::Pad,
        state: &Arc<IngestState>,
    ) -> Result<()> {
        let odd = |error: gst::glib::BoolError| {
            Error::bug("the branch of sound cannot be wired").because(error)
        };
        let (convert, resample, filter, tee) = (
            make("audioconvert")?,
            make("audioresample")?,
            make("capsfilter")?,
            make("tee")?,
        );
        let caps = gst::Caps::builder("audio/x-raw")
            .field("format", "F32LE")
            .field("layout", "interleaved")
            .field("channels", 1)
            .field("rate", SAMPLE_RATE as i32);
        filter.set_property("caps", caps.build());
        let chain = [&convert, &resample, &filter, &tee];
        pipeline.add_many(chain).map_err(odd)?;
        gst::Element::link_many(chain).map_err(odd)?;
        let mut elements: Vec<gst::Element> = chain.into_iter().cloned().collect();
        for sink in &self.sinks {
            let (queue, sink) = (make("queue")?, sink.upcast_ref::<gst::Element>());
            pipeline.add_many([&queue, sink]).map_err(odd)?;
            gst::Element::link_many([&tee, &queue, sink]).map_err(odd)?;
            elements.extend([queue, sink.clone()]);
        }
        let entry = convert
            .static_pad("sink")
            .ok_or_else(|| Error::bug("audioconvert without sink pad"))?;
        let probe = Arc::clone(state);
        entry.add_probe(
            gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM,
            move |_, info| probe.hear(info),
        );
        // From the end to the beginning: what gets data must be running.
        for element in elements.iter().rev() {
            element.sync_state_with_parent().map_err(odd)?;
        }
        pad.link(&entry)
            .map(drop)
            .map_err(|error| Error::external("decoded sound cannot be linked").because(error))
    }
}

/// A piece of a view's sound.
#[derive(Debug, Clone)]
pub struct CapturedAudio {
    /// The samples.
    pub audio: Audio,
    /// From its first sample to the end of its last, in running time, as that of the pictures.
    pub span: Span,
    /// Wall clock when its last sample left GStreamer.
    pub arrived: Micros,
}

/// Reads the sound of a stream in pieces of equal length; one before a hole or the end may be
/// shorter.
pub struct SoundReader {
    name: Arc<str>,
    samples: SampleReader,
    pieces: AudioChunker,
    index: u64,
}

impl SoundReader {
    fn new(index: usize, sink: gst_app::AppSink, state: &Arc<IngestState>) -> Self {
        let sound = &state.options.sounds[index];
        let reader = &state.readers[state.options.views.len() + index];
        Self {
            name: Arc::clone(&sound.name),
            samples: SampleReader::new(sink, state, reader),
            pieces: AudioChunker::new(sound.piece),
            index: 0,
        }
    }

    /// The view's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The next piece, `None` at the end of the sound or where the stream has none. Nothing is lost
    /// when the future is dropped.
    pub async fn next(&mut self) -> Option<CapturedAudio> {
        loop {
            if let Some((span, samples)) = self.pieces.next() {
                let audio = Audio {
                    view: Arc::clone(&self.name),
                    index: self.index,
                    samples,
                };
                self.index += 1;
                return Some(CapturedAudio {
                    audio,
                    span,
                    arrived: now_micros(),
                });
            }
            if self.pieces.ended {
                return None;
            }
            let Some(sample) = self.sample().await else {
                self.pieces.end();
                continue;
            };
            if let Err(error) = self.take(&sample) {
                self.samples.fail(error);
                self.pieces.ended = true;
            }
        }
    }

    /// The next sample. A stream whose sound has not begun a while after its pictures has none.
    async fn sample(&mut self) -> Option<gst::Sample> {
        if self.pieces.begun() {
            return self.samples.next().await;
        }
        let state = Arc::clone(&self.samples.state);
        let patience = if state.has_audio.load(Ordering::Acquire) {
            state.options.connect
        } else {
            SECOND_STREAM
        };
        match tokio::time::timeout(patience, self.samples.next()).await {
            Ok(sample) => sample,
            Err(_) => {
                tracing::warn!(source = %state.name, view = %self.name, "the stream has no sound that can be decoded");
                self.samples.finish();
                None
            }
        }
    }

    fn take(&mut self, sample: &gst::Sample) -> Result<()> {
        let odd = |what: &str| Error::bug(format!("view `{}`: {what}", self.name));
        let buffer = sample
            .buffer()
            .ok_or_else(|| odd("a sample without buffer"))?;
        let data = buffer
            .map_readable()
            .map_err(|_| odd("a buffer cannot be mapped"))?;
        if data.len() % SAMPLE != 0 {
            return Err(odd("a buffer ends within a sample"));
        }
        self.pieces
            .push(buffer.pts().map(gst::ClockTime::nseconds), &data);
        Ok(())
    }
}

impl fmt::Debug for SoundReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SoundReader({} of {})",
            self.name, self.samples.state.name
        )
    }
}

/// Buffers of any length become pieces of one length.
struct AudioChunker {
    /// Bytes of a whole piece.
    whole: usize,
    pending: BytesMut,
    /// Start of the unbroken sound that `pending` ends, and the samples of it that have left.
    start: Option<Nanos>,
    gone: u64,
    /// What a hole has cut short.
    short: Option<(Span, Bytes)>,
    /// End of the last piece.
    last: Nanos,
    ended: bool,
}

impl AudioChunker {
    fn new(piece: Duration) -> Self {
        let samples = (piece.as_nanos() * u128::from(SAMPLE_RATE) / 1_000_000_000).max(1) as usize;
        Self {
            whole: samples * SAMPLE,
            pending: BytesMut::new(),
            start: None,
            gone: 0,
            short: None,
            last: 0,
            ended: false,
        }
    }

    fn begun(&self) -> bool {
        self.start.is_some()
    }

    /// Takes what follows, or what lies behind a hole; without a pts it follows.
    fn push(&mut self, pts: Option<Nanos>, data: &[u8]) {
        let expected = self.at(self.pending.len());
        let pts = pts.or(expected).unwrap_or(0);
        if expected.is_none_or(|expected| expected.abs_diff(pts) > TOLERANCE) {
            self.short = self.cut(self.pending.len());
            (self.start, self.gone) = (Some(pts.max(self.last)), 0);
        }
        self.pending.extend_from_slice(data);
    }

    /// Nothing follows.
    fn end(&mut self) {
        self.short = self.cut(self.pending.len());
        self.ended = true;
    }

    fn next(&mut self) -> Option<(Span, Bytes)> {
        self.short.take().or_else(|| {
            if self.pending.len() < self.whole {
                None
            } else {
                self.cut(self.whole)
            }
        })
    }

    /// The time of so many bytes into `pending`.
    fn at(&self, bytes: usize) -> Option<Nanos> {
        let samples = self.gone + (bytes / SAMPLE) as u64;
        Some(self.start? + (u128::from(samples) * 1_000_000_000 / u128::from(SAMPLE_RATE)) as Nanos)
    }

    fn cut(&mut self, bytes: usize) -> Option<(Span, Bytes)> {
        let span = Span::new(self.at(0)?, self.at(bytes)?);
        if bytes == 0 {
            return None;
        }
        self.gone += (bytes / SAMPLE) as u64;
        self.last = span.end;
        Some((span, self.pending.split_to(bytes).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;

    fn drain(pieces: &mut AudioChunker) -> Vec<(u64, u64, usize)> {
        std::iter::from_fn(|| pieces.next())
            .map(|(span, data)| (span.start / MS, span.end / MS, data.len() / SAMPLE))
            .collect()
    }

    #[test]
    fn pieces_are_equal_and_follow_each_other_until_a_hole() {
        let mut pieces = AudioChunker::new(Duration::from_millis(100));
        let ms = |count: usize| vec![0; count * 16 * SAMPLE];
        pieces.push(Some(20 * MS), &ms(150));
        assert_eq!(drain(&mut pieces), [(20, 120, 1600)]);
        pieces.push(Some(175 * MS), &ms(60));
        assert_eq!(
            drain(&mut pieces),
            [(120, 220, 1600)],
            "5 ms off is no hole"
        );
        pieces.push(None, &ms(10));
        assert_eq!(drain(&mut pieces), []);
        pieces.push(Some(500 * MS), &ms(30));
        assert_eq!(
            drain(&mut pieces),
            [(220, 240, 320)],
            "what a hole cuts short leaves by itself"
        );
        pieces.push(Some(100 * MS), &ms(30));
        assert_eq!(drain(&mut pieces), [(500, 530, 480)]);
        pieces.end();
        assert_eq!(
            drain(&mut pieces),
            [(530, 560, 480)],
            "time does not run backwards"
        );
    }
}
