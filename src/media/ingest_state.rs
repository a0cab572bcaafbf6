//! What GStreamer's threads and tokio's tasks know in common about one stream: what was decoded,
//! what was lost, who waits, and how it ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer_video as gst_video;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::handle::{LossCounts, StreamEnd};
use super::iso::DownloadProgress;
use super::options::{FrameRate, Options};
use super::timeline::{FRAME, Timeline};
use crate::error::Error;
use crate::packet::{Micros, Nanos};

/// What a probe answers to take a buffer or an event out of the flow. Not `Drop`: to that GStreamer
/// 1.22 adds a complaint about an object that the bindings have already freed.
pub(super) const DISCARD: gst::PadProbeReturn = gst::PadProbeReturn::Handled;

/// From 1900, where NTP begins, to 1970.
const NTP_TO_UNIX: Nanos = 2_208_988_800_000_000_000;
/// The picture that the decoder gives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct DecodedFormat {
    pub width: u32,
    pub height: u32,
    pub fps: Option<FrameRate>,
}

pub(super) struct IngestState {
    /// The source's name in messages, without secrets.
    pub name: String,
    pub options: Options,
    /// Of the views, then of the views of sound.
    pub readers: Vec<Arc<ReaderState>>,
    /// Set with the first decoded frame.
    pub first: watch::Sender<Option<DecodedFormat>>,
    /// What a probe found wrong.
    pub failure: watch::Sender<Option<Error>>,
    /// How it ended.
    pub end: watch::Sender<Option<StreamEnd>>,
    /// Readers stop at once.
    pub closed: watch::Sender<bool>,
    pub has_audio: AtomicBool,
    pub has_video: AtomicBool,
    pub codec: Mutex<Option<String>>,
    /// What came by HTTP.
    pub download: Mutex<DownloadProgress>,
    started: Instant,
    last: AtomicU64,
    pub encoded: AtomicU64,
    pub decoded: AtomicU64,
    pub corrupt: AtomicU64,
    pub warnings: AtomicU64,
    /// The sender's wall clock at pts 0, where it is wanted and known.
    pub began: Mutex<Option<Micros>>,
    /// Frames that came before it was known, which are left out.
    pub untimed: AtomicU64,
    timeline: Mutex<Timeline>,
    /// That of the sound, which begins where that of the pictures does.
    sound: Mutex<Timeline>,
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
            timeline: Mutex::new(Timeline::new(options.live)),
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

    /// How long nothing was decoded although every reader waited; none while one is busy.
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
            holes: self.timeline.lock().holes,
            warnings: self.warnings.load(Ordering::Acquire),
        }
    }

    /// The probe before the tee: counts frames and puts them on the stream's timeline, whatever
    /// segments the source sends.
    pub(super) fn probe(&self, info: &mut gst::PadProbeInfo<'_>) -> gst::PadProbeReturn {
        match &mut info.data {
            Some(gst::PadProbeData::Event(event)) => match event.view() {
                gst::EventView::Segment(_) => self.timeline.lock().follow(event),
                gst::EventView::Caps(caps) => self.caps(caps.caps()),
                _ => gst::PadProbeReturn::Ok,
            },
            Some(gst::PadProbeData::Buffer(buffer)) => self.frame(buffer),
            _ => gst::PadProbeReturn::Ok,
        }
    }

    /// The probe before the branch of sound: puts it on the timeline of the pictures.
    pub(super) fn hear(&self, info: &mut gst::PadProbeInfo<'_>) -> gst::PadProbeReturn {
        match &mut info.data {
            Some(gst::PadProbeData::Event(event))
                if matches!(event.view(), gst::EventView::Segment(_)) =>
            {
                self.sound.lock().follow(event)
            }
            Some(gst::PadProbeData::Buffer(buffer)) => self.sound(buffer),
            _ => gst::PadProbeReturn::Ok,
        }
    }

    fn sound(&self, buffer: &mut gst::Buffer) -> gst::PadProbeReturn {
        let base = self.timeline.lock().base;
        let mut timeline = self.sound.lock();
        if self.options.live {
            // What was heard before the first picture has no place.
            let early = timeline
                .running(buffer.pts())
                .zip(base)
                .is_none_or(|(running, base)| running < base);
            if base.is_none() || (early && timeline.last.is_none()) {
                return DISCARD;
            }
            timeline.base = base;
        }
        let (pts, duration) = timeline.place(buffer.pts(), buffer.duration());
        timed(buffer, pts, duration);
        gst::PadProbeReturn::Ok
    }

    fn caps(&self, caps: &gst::CapsRef) -> gst::PadProbeReturn {
        let Ok(info) = gst_video::VideoInfo::from_caps(caps) else {
            return gst::PadProbeReturn::Ok;
        };
        if !self.admits(info.width(), info.height()) {
            return DISCARD;
        }
        let (num, den) = (info.fps().numer(), info.fps().denom());
        let fps = (num > 0 && den > 0).then(|| FrameRate::new(num as u32, den as u32));
        let mut timeline = self.timeline.lock();
        timeline.picture = Some(DecodedFormat {
            width: info.width(),
            height: info.height(),
            fps,
        });
        timeline.period = fps.and_then(FrameRate::period).unwrap_or(FRAME);
        gst::PadProbeReturn::Ok
    }

    /// Whether the stream may begin with this frame, or has begun: where the sender's clock is
    /// wanted, with the first frame that has its time.
    fn timed(&self, buffer: &gst::BufferRef) -> bool {
        if !self.options.sender_clock {
            return true;
        }
        let mut began = self.began.lock();
        if began.is_none() {
            *began = sender_time(buffer);
        }
        began.is_some()
    }

    fn frame(&self, buffer: &mut gst::Buffer) -> gst::PadProbeReturn {
        if self.failure.borrow().is_some() {
            return DISCARD;
        }
        if !self.timed(buffer) {
            self.untimed.fetch_add(1, Ordering::AcqRel);
            return DISCARD;
        }
        let picture = {
            let mut timeline = self.timeline.lock();
            let (pts, duration) = timeline.place(buffer.pts(), buffer.duration());
            timed(buffer, pts, duration);
            timeline.picture
        };
        if buffer.flags().contains(gst::BufferFlags::CORRUPTED) {
            self.corrupt.fetch_add(1, Ordering::AcqRel);
        }
        self.last.store(self.now(), Ordering::Release);
        if self.decoded.fetch_add(1, Ordering::AcqRel) == 0 {
            self.first.send_replace(picture);
        }
        gst::PadProbeReturn::Ok
    }
}

fn timed(buffer: &mut gst::Buffer, pts: Nanos, duration: Nanos) {
    let buffer = buffer.make_mut();
    buffer.set_pts(gst::ClockTime::from_nseconds(pts));
    buffer.set_dts(gst::ClockTime::NONE);
    buffer.set_duration(gst::ClockTime::from_nseconds(duration));
}

/// When a frame was taken, by its sender's clock: from RTCP's sender reports, as the RTP jitter
/// buffer wrote it to the packets.
fn sender_time(buffer: &gst::BufferRef) -> Option<Micros> {
    let is_ntp = |meta: &gst::MetaRef<'_, gst::ReferenceTimestampMeta>| {
        meta.reference()
            .structure(0)
            .is_some_and(|reference| reference.name() == "timestamp/x-ntp")
    };
    let meta = buffer
        .iter_meta::<gst::ReferenceTimestampMeta>()
        .find(is_ntp)?;
    let since_1970 = meta.timestamp().nseconds().checked_sub(NTP_TO_UNIX)?;
    Micros::try_from(since_1970 / 1000).ok()
}

/// A view's side of the waiting.
#[derive(Default)]
pub(super) struct ReaderState {
    /// A sample or the end has arrived.
    pub arrived: Notify,
    /// A reader waits now.
    pub waiting: AtomicBool,
    /// Since when, in [`IngestState::now`]'s milliseconds, counted over abandoned waits.
    pub since: AtomicU64,
    /// The reader has fallen.
    pub gone: AtomicBool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Option<gst::ClockTime> {
        Some(gst::ClockTime::from_mseconds(ms))
    }

    #[test]
    fn with_the_senders_clock_a_stream_begins_at_its_first_report() {
        gst::init().expect("GStreamer");
        let state = IngestState::new(
            "x".into(),
            Options {
                sender_clock: true,
                live: true,
                ..Options::default()
            },
        );
        let frame = |ms: u64, reference: Option<(&str, u64)>| {
            let mut buffer = gst::Buffer::with_size(1).expect("memory");
            let writable = buffer.make_mut();
            writable.set_pts(at(ms));
            if let Some((caps, seconds)) = reference {
                let caps = gst::Caps::new_empty_simple(caps);
                gst::ReferenceTimestampMeta::add(
                    writable,
                    &caps,
                    gst::ClockTime::from_seconds(seconds),
                    gst::ClockTime::NONE,
                );
            }
            let answer = state.frame(&mut buffer);
            (answer == gst::PadProbeReturn::Ok)
                .then(|| buffer.pts().map(gst::ClockTime::mseconds))
                .flatten()
        };
        assert_eq!(frame(5000, None), None);
        assert_eq!(
            frame(5040, Some(("timestamp/x-unix", 77))),
            None,
            "another clock"
        );
        assert_eq!(
            (*state.began.lock(), state.decoded.load(Ordering::Acquire)),
            (None, 0)
        );
        // 2030-01-01 in NTP's era.
        let reported = 2_208_988_800 + 1_893_456_000;
        assert_eq!(frame(5080, Some(("timestamp/x-ntp", reported))), Some(0));
        assert_eq!(
            frame(5120, Some(("timestamp/x-ntp", reported + 1))),
            Some(40),
            "later reports move nothing"
        );
        assert_eq!(frame(5160, None), Some(80));
        assert_eq!(*state.began.lock(), Some(1_893_456_000_000_000));
        assert_eq!(state.untimed.load(Ordering::Acquire), 2);
    }

    #[test]
    fn a_busy_reader_is_no_stall() {
        let state = IngestState::new("x".into(), Options::default());
        assert_eq!(state.idle(), None);
        state.readers[0].waiting.store(true, Ordering::Release);
        assert!(state.idle().is_some());
    }
}
