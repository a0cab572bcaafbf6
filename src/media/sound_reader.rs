//! The reading end of a view of sound: an async stream of pieces of equal length.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use gstreamer as gst;
use gstreamer_app as gst_app;

use super::ingest_state::{IngestState, SECOND_STREAM};
use super::piece_cutter::{PieceCutter, SAMPLE};
use super::sample_reader::SampleReader;
use crate::error::{Error, Result};
use crate::packet::{Audio, Micros, Span, now_micros};

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
    pieces: PieceCutter,
    index: u64,
}

impl SoundReader {
    pub(super) fn new(index: usize, sink: gst_app::AppSink, state: &Arc<IngestState>) -> Self {
        let sound = &state.options.sounds[index];
        let reader = &state.readers[state.options.views.len() + index];
        Self {
            name: Arc::clone(&sound.name),
            samples: SampleReader::new(sink, state, reader),
            pieces: PieceCutter::new(sound.piece),
            index: 0,
        }
    }

    /// The view's name.
    pub(crate) fn name(&self) -> &Arc<str> {
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
