//! What GStreamer's threads and tokio's tasks know in common about one stream: what was decoded,
//! what was lost, who waits, and how it ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::download::DownloadProgress;
use super::options::{FrameRate, Options};
use super::outcome::{LossCounts, StreamEnd};
use super::timeline::Timeline;
use crate::error::Error;
use crate::packet::Micros;

/// How long a video stream may take to appear after an audio stream, and the other way round.
pub(super) const SECOND_STREAM: Duration = Duration::from_secs(2);

/// The pictures that the decoder gives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct DecodedFormat {
    pub width: u32,
    pub height: u32,
    /// None where the rate varies or is unknown.
    pub fps: Option<FrameRate>,
}

/// The pictures' timeline and their format, under one lock because each frame needs both.
pub(super) struct PictureTrack {
    pub timeline: Timeline,
    pub format: Option<DecodedFormat>,
    /// Whether the camera lay on its side.
    pub is_on_its_side: bool,
}

impl PictureTrack {
    /// The format of pictures that are turned upright.
    pub(super) fn upright(&self) -> Option<DecodedFormat> {
        let format = self.format?;
        Some(if self.is_on_its_side {
            DecodedFormat {
                width: format.height,
                height: format.width,
                ..format
            }
        } else {
            format
        })
    }
}

/// The shared state of one stream. GStreamer's streaming threads write it from probes; the monitor
/// and the readers are tokio tasks. Counters and flags are atomic, events are watch channels, and no
/// method holds two of the locks at once, so no order between them is needed. No lock is held over
/// an await or a call into GStreamer that may block.
pub(super) struct IngestState {
    /// The source's name in messages, without secrets.
    pub name: String,
    pub options: Options,
    /// Of the views, then of the views of sound.
    pub readers: Vec<Arc<ReaderState>>,
    /// Set with the first decoded frame.
    pub first: watch::Sender<Option<DecodedFormat>>,
    /// What a probe found wrong; set once.
    pub failure: watch::Sender<Option<Error>>,
    /// How it ended; set once.
    pub end: watch::Sender<Option<StreamEnd>>,
    /// True once readers must stop, whatever still waits for them.
    pub closed: watch::Sender<bool>,
    pub has_audio: AtomicBool,
    pub has_video: AtomicBool,
    /// The short name of the video codec, once caps have named it.
    pub codec: Mutex<Option<String>>,
    /// What came by HTTP.
    pub download: Mutex<DownloadProgress>,
    started: Instant,
    /// When the newest frame was decoded, in [`IngestState::now`]'s milliseconds.
    pub last: AtomicU64,
    /// Packets that are whole frames, as the decoder or its parser gets them.
    pub encoded: AtomicU64,
    /// Frames that were put on the timeline.
    pub decoded: AtomicU64,
    /// Of these, the ones that the decoder marked as damaged or whose pts or duration is.
    pub corrupt: AtomicU64,
    /// Warnings of GStreamer's elements.
    pub warnings: AtomicU64,
    /// The sender's wall clock at pts 0, where it is wanted and known.
    pub began: Mutex<Option<Micros>>,
    /// Frames that came before it was known, which are left out.
    pub untimed: AtomicU64,
    pub pictures: Mutex<PictureTrack>,
    /// The timeline of the sound, which begins where that of the pictures does.
    pub sound: Mutex<Timeline>,
}

impl IngestState {
    pub(super) fn new(name: String, options: Options) -> Self {
        Self {
            readers: (0..options.views.len() + options.sounds.len())
                .map(|_| Arc::default())
                .collect(),
            first: watch::Sender::new(None),
            failure: watch::Sender::new(None),
            end: watch::Sender::new(None),
            closed: watch::Sender::new(false),
            has_audio: AtomicBool::new(false),
            has_video: AtomicBool::new(false),
            codec: Mutex::new(None),
            download: Mutex::default(),
            started: Instant::now(),
            last: AtomicU64::new(0),
            encoded: AtomicU64::new(0),
            decoded: AtomicU64::new(0),
            corrupt: AtomicU64::new(0),
            warnings: AtomicU64::new(0),
            began: Mutex::new(None),
            untimed: AtomicU64::new(0),
            pictures: Mutex::new(PictureTrack {
                timeline: Timeline::new(options.live),
                format: None,
                is_on_its_side: false,
            }),
            sound: Mutex::new(Timeline::new(options.live)),
            name,
            options,
        }
    }

    /// Milliseconds since opening began.
    pub(super) fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Whether someone reads its sound.
    pub(super) fn wants_sound(&self) -> bool {
        !self.options.sounds.is_empty()
    }

    /// How long nothing was decoded although every reader waited; none while one is busy. Readers
    /// that are gone do not count. The flags are read one by one, without a lock: what changes
    /// meanwhile is seen at the monitor's next tick.
    pub(super) fn idle(&self) -> Option<Duration> {
        let mut since = self.last.load(Ordering::Acquire);
        for reader in self
            .readers
            .iter()
            .filter(|reader| !reader.gone.load(Ordering::Acquire))
        {
            if !reader.waiting.load(Ordering::Acquire) {
                return None;
            }
            since = since.max(reader.since.load(Ordering::Acquire));
        }
        Some(Duration::from_millis(self.now().saturating_sub(since)))
    }

    /// Ends the stream, once: later ends are ignored. Readers that have not drained end as well.
    pub(super) fn settle(&self, end: StreamEnd) {
        self.end.send_if_modified(|known| {
            let first = known.is_none();
            if first {
                *known = Some(end);
            }
            first
        });
        self.closed.send_replace(true);
    }

    /// A probe found something that no later frame can mend.
    pub(super) fn fail(&self, error: Error) {
        self.failure.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert(error);
            first
        });
    }

    /// Whether a picture of this size may be decoded; if not, the stream fails.
    pub(super) fn admits(&self, width: u32, height: u32) -> bool {
        let fits = u64::from(width) * u64::from(height) <= self.options.max_pixels;
        if !fits {
            let error = Error::external(format!(
                "{}: its pictures of {width}x{height} exceed {} pixels",
                self.name, self.options.max_pixels
            ));
            self.fail(error.hint("raise max_pixels if this is meant"));
        }
        fits
    }

    /// What was lost so far.
    pub(super) fn lost(&self) -> LossCounts {
        let over = matches!(
            *self.end.borrow(),
            Some(StreamEnd::EndOfStream | StreamEnd::Failed(_))
        );
        let (encoded, decoded) = (
            self.encoded.load(Ordering::Acquire),
            self.decoded.load(Ordering::Acquire),
        );
        let decoded = decoded + self.untimed.load(Ordering::Acquire);
        LossCounts {
            corrupt: self.corrupt.load(Ordering::Acquire),
            undecodable: if over {
                encoded.saturating_sub(decoded)
            } else {
                0
            },
            holes: self.pictures.lock().timeline.holes,
            warnings: self.warnings.load(Ordering::Acquire),
        }
    }
}

/// Whether a view's reader waits. The reader and its appsink's callbacks share it with the monitor.
#[derive(Default)]
pub(super) struct ReaderState {
    /// A sample or the end has arrived.
    pub arrived: Notify,
    /// A reader waits now.
    pub waiting: AtomicBool,
    /// Since when, in [`IngestState::now`]'s milliseconds, counted over abandoned waits.
    pub since: AtomicU64,
    /// The reader was dropped or has ended.
    pub gone: AtomicBool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_reader_is_no_stall() {
        let state = IngestState::new("x".into(), Options::default());
        assert_eq!(state.idle(), None);
        state.readers[0].waiting.store(true, Ordering::Release);
        assert!(state.idle().is_some());
    }
}
