//! What GStreamer's threads and tokio's tasks know in common about one stream: the timeline that all its views share, what was decoded,
//! what was
//! lost, who waits, and how it ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer_video as gst_video;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::handle::{End, Lost};
use super::iso::Arriving;
use super::options::{Fraction, Options};
use crate::error::Error;
use crate::packet::{Micros, Nanos};

/// What a probe answers to take a buffer or an event out of the flow. Not `Drop`: to that GStreamer 1.22 adds a complaint about an object
/// that the
/// bindings have already freed.
pub(super) const DISCARD: gst::PadProbeReturn = gst::PadProbeReturn::Handled;

/// What a jump back in time must exceed to be a new beginning instead of two frames out of order.
const JUMP: Nanos = 1_000_000_000;
/// What a jump ahead must exceed to be damage instead of a pause.
const LEAP: Nanos = 3_600_000_000_000;
/// From 1900, where NTP begins, to 1970.
const NTP_TO_UNIX: Nanos = 2_208_988_800_000_000_000;
/// How long a frame lasts where neither it nor its caps say.
const FRAME: Nanos = 40_000_000;

/// The picture that the decoder gives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Decoded {
    pub width: u32,
    pub height: u32,
    pub fps: Option<Fraction>,
}

pub(super) struct Intake {
    /// The source's name in messages, without secrets.
    pub name: String,
    pub options: Options,
    pub taps: Vec<Arc<Tap>>,
    /// Set with the first decoded frame.
    pub first: watch::Sender<Option<Decoded>>,
    /// What a probe found wrong.
    pub failure: watch::Sender<Option<Error>>,
    /// How it ended.
    pub end: watch::Sender<Option<End>>,
    /// Readers stop at once.
    pub closed: watch::Sender<bool>,
    pub has_audio: AtomicBool,
    pub has_video: AtomicBool,
    pub codec: Mutex<Option<String>>,
    /// What came by HTTP.
    pub arriving: Mutex<Arriving>,
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
}

impl Intake {
    pub(super) fn new(name: String, options: Options) -> Self {
        Self {
            taps: options.views.iter().map(|_| Arc::default()).collect(),
            first: watch::Sender::new(None),
            failure: watch::Sender::new(None),
            end: watch::Sender::new(None),
            closed: watch::Sender::new(false),
            has_audio: AtomicBool::new(false),
            has_video: AtomicBool::new(false),
            codec: Mutex::new(None),
            arriving: Mutex::default(),
            started: Instant::now(),
            last: AtomicU64::new(0),
            encoded: AtomicU64::new(0),
            decoded: AtomicU64::new(0),
            corrupt: AtomicU64::new(0),
            warnings: AtomicU64::new(0),
            began: Mutex::new(None),
            untimed: AtomicU64::new(0),
            timeline: Mutex::new(Timeline::new(options.live)),
            name,
            options,
        }
    }

    /// Milliseconds since opening began.
    pub(super) fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// How long nothing was decoded although every reader waited; none while one is busy.
    pub(super) fn idle(&self) -> Option<Duration> {
        let mut since = self.last.load(Ordering::Acquire);
        for tap in self.taps.iter().filter(|tap| !tap.gone.load(Ordering::Acquire)) {
            if !tap.waiting.load(Ordering::Acquire) {
                return None;
            }
            since = since.max(tap.since.load(Ordering::Acquire));
        }
        Some(Duration::from_millis(self.now().saturating_sub(since)))
    }

    /// Ends the stream, once: later ends are ignored. Readers that have not drained end as well.
    pub(super) fn settle(&self, end: End) {
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
            let error =
                Error::external(format!("{}: its pictures of {width}x{height} exceed {} pixels", self.name, self.options.max_pixels));
            self.fail(error.hint("raise max_pixels if this is meant"));
        }
        fits
    }

    /// What was lost so far.
    pub(super) fn lost(&self) -> Lost {
        let over = matches!(*self.end.borrow(), Some(End::EndOfStream | End::Failed(_)));
        let (encoded, decoded) = (self.encoded.load(Ordering::Acquire), self.decoded.load(Ordering::Acquire));
        let decoded = decoded + self.untimed.load(Ordering::Acquire);
        Lost {
            corrupt: self.corrupt.load(Ordering::Acquire),
            undecodable: if over { encoded.saturating_sub(decoded) } else { 0 },
            holes: self.timeline.lock().holes,
            warnings: self.warnings.load(Ordering::Acquire),
        }
    }

    /// The probe before the tee: counts frames and puts them on the stream's timeline, whatever segments the source sends.
    pub(super) fn probe(&self, info: &mut gst::PadProbeInfo<'_>) -> gst::PadProbeReturn {
        match &mut info.data {
            Some(gst::PadProbeData::Event(event)) => match event.view() {
                gst::EventView::Segment(segment) => {
                    let segment = segment.segment().downcast_ref::<gst::ClockTime>().cloned().unwrap_or_default();
                    let first = self.timeline.lock().segment.replace(segment).is_none();
                    if !first {
                        return DISCARD;
                    }
                    let (seqnum, plain) = (event.seqnum(), gst::FormattedSegment::<gst::ClockTime>::new());
                    *event = gst::event::Segment::builder(&plain).seqnum(seqnum).build();
                    gst::PadProbeReturn::Ok
                }
                gst::EventView::Caps(caps) => self.caps(caps.caps()),
                _ => gst::PadProbeReturn::Ok,
            },
            Some(gst::PadProbeData::Buffer(buffer)) => self.frame(buffer),
            _ => gst::PadProbeReturn::Ok,
        }
    }

    fn caps(&self, caps: &gst::CapsRef) -> gst::PadProbeReturn {
        let Ok(info) = gst_video::VideoInfo::from_caps(caps) else { return gst::PadProbeReturn::Ok };
        if !self.admits(info.width(), info.height()) {
            return DISCARD;
        }
        let (num, den) = (info.fps().numer(), info.fps().denom());
        let fps = (num > 0 && den > 0).then(|| Fraction::new(num as u32, den as u32));
        let mut timeline = self.timeline.lock();
        timeline.picture = Some(Decoded { width: info.width(), height: info.height(), fps });
        timeline.period = fps.and_then(Fraction::period).unwrap_or(FRAME);
        gst::PadProbeReturn::Ok
    }

    /// Whether the stream may begin with this frame, or has begun: where the sender's clock is wanted, with the first frame that has its time.
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
            let buffer = buffer.make_mut();
            buffer.set_pts(gst::ClockTime::from_nseconds(pts));
            buffer.set_dts(gst::ClockTime::NONE);
            buffer.set_duration(gst::ClockTime::from_nseconds(duration));
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

/// When a frame was taken, by its sender's clock: from RTCP's sender reports, as the RTP jitter buffer wrote it to the packets.
fn sender_time(buffer: &gst::BufferRef) -> Option<Micros> {
    let is_ntp = |meta: &gst::MetaRef<'_, gst::ReferenceTimestampMeta>| {
        meta.reference().structure(0).is_some_and(|reference| reference.name() == "timestamp/x-ntp")
    };
    let meta = buffer.iter_meta::<gst::ReferenceTimestampMeta>().find(is_ntp)?;
    let since_1970 = meta.timestamp().nseconds().checked_sub(NTP_TO_UNIX)?;
    Micros::try_from(since_1970 / 1000).ok()
}

/// A view's side of the waiting.
#[derive(Default)]
pub(super) struct Tap {
    /// A sample or the end has arrived.
    pub arrived: Notify,
    /// A reader waits now.
    pub waiting: AtomicBool,
    /// Since when, in [`Intake::now`]'s milliseconds, counted over abandoned waits.
    pub since: AtomicU64,
    /// The reader has fallen.
    pub gone: AtomicBool,
}

/// Running time, made strictly increasing.
struct Timeline {
    segment: Option<gst::FormattedSegment<gst::ClockTime>>,
    picture: Option<Decoded>,
    period: Nanos,
    live: bool,
    /// Running time of a live stream's first frame.
    base: Option<Nanos>,
    /// What jumps back have added.
    shift: Nanos,
    /// Start and end of the last frame.
    last: Option<(Nanos, Nanos)>,
    /// Where a frame came more than half a frame late.
    holes: u64,
}

impl Timeline {
    fn new(live: bool) -> Self {
        Self { segment: None, picture: None, period: FRAME, live, base: None, shift: 0, last: None, holes: 0 }
    }

    /// Where a frame lies: pts and duration. A frame without pts follows the last one; one slightly out of order is moved behind it; a jump
    /// back of more than a second is taken for a new beginning of the source's clock and goes on from where the stream was; a leap ahead
    /// of more
    /// than an hour is taken for a damaged pts and ignored.
    fn place(&mut self, pts: Option<gst::ClockTime>, duration: Option<gst::ClockTime>) -> (Nanos, Nanos) {
        let duration = duration.map(gst::ClockTime::nseconds).filter(|duration| *duration > 0).unwrap_or(self.period);
        let running = pts.and_then(|pts| match &self.segment {
            Some(segment) => segment.to_running_time(pts),
            None => Some(pts),
        });
        let follows = self.last.map_or(0, |(_, end)| end);
        let mut pts = match running {
            Some(running) => {
                let running = running.nseconds();
                let base = if self.live { *self.base.get_or_insert(running) } else { 0 };
                (running + self.shift).saturating_sub(base)
            }
            None => follows,
        };
        if let Some((last, end)) = self.last {
            if pts > end.saturating_add(LEAP) {
                pts = end;
            } else if pts <= last {
                let jumped = last - pts > JUMP;
                let to = if jumped { end } else { last + 1 };
                self.shift += if jumped { to - pts } else { 0 };
                pts = to;
            }
            self.holes += u64::from(self.picture.is_some_and(|picture| picture.fps.is_some()) && pts > end + self.period / 2);
        }
        self.last = Some((pts, pts + duration));
        (pts, duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Option<gst::ClockTime> {
        Some(gst::ClockTime::from_mseconds(ms))
    }

    const MS: Nanos = 1_000_000;

    #[test]
    fn live_timeline_begins_at_zero_and_survives_jumps() {
        gst::init().expect("GStreamer");
        let mut timeline = Timeline::new(true);
        timeline.period = 10 * MS;
        let placed: Vec<Nanos> = [at(5000), at(5010), None, at(5015)].into_iter().map(|pts| timeline.place(pts, None).0).collect();
        assert_eq!(placed, [0, 10 * MS, 20 * MS, 20 * MS + 1]);
        timeline.place(at(8000), None);
        assert_eq!(timeline.place(at(100), None).0, 3010 * MS, "the source's clock began anew");
        assert_eq!(timeline.place(at(110), None).0, 3020 * MS);
        assert_eq!(timeline.place(at(9_999_999_999), None).0, 3030 * MS, "a damaged pts");
        assert_eq!(timeline.place(at(130), None).0, 3040 * MS);
    }

    #[test]
    fn file_timeline_keeps_running_time() {
        gst::init().expect("GStreamer");
        let mut timeline = Timeline::new(false);
        assert_eq!(timeline.place(at(66), at(33)), (66 * MS, 33 * MS));
        let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
        segment.set_start(gst::ClockTime::from_mseconds(1000));
        timeline.segment = Some(segment);
        assert_eq!(timeline.place(at(1100), at(33)), (100 * MS, 33 * MS));
    }

    #[test]
    fn with_the_senders_clock_a_stream_begins_at_its_first_report() {
        gst::init().expect("GStreamer");
        let intake = Intake::new("x".into(), Options { sender_clock: true, live: true, ..Options::default() });
        let frame = |ms: u64, reference: Option<(&str, u64)>| {
            let mut buffer = gst::Buffer::with_size(1).expect("memory");
            let writable = buffer.make_mut();
            writable.set_pts(at(ms));
            if let Some((caps, seconds)) = reference {
                let caps = gst::Caps::new_empty_simple(caps);
                gst::ReferenceTimestampMeta::add(writable, &caps, gst::ClockTime::from_seconds(seconds), gst::ClockTime::NONE);
            }
            let answer = intake.frame(&mut buffer);
            (answer == gst::PadProbeReturn::Ok).then(|| buffer.pts().map(gst::ClockTime::mseconds)).flatten()
        };
        assert_eq!(frame(5000, None), None);
        assert_eq!(frame(5040, Some(("timestamp/x-unix", 77))), None, "another clock");
        assert_eq!((*intake.began.lock(), intake.decoded.load(Ordering::Acquire)), (None, 0));
        // 2030-01-01 in NTP's era.
        let reported = 2_208_988_800 + 1_893_456_000;
        assert_eq!(frame(5080, Some(("timestamp/x-ntp", reported))), Some(0));
        assert_eq!(frame(5120, Some(("timestamp/x-ntp", reported + 1))), Some(40), "later reports move nothing");
        assert_eq!(frame(5160, None), Some(80));
        assert_eq!(*intake.began.lock(), Some(1_893_456_000_000_000));
        assert_eq!(intake.untimed.load(Ordering::Acquire), 2);
    }

    #[test]
    fn a_busy_reader_is_no_stall() {
        let intake = Intake::new("x".into(), Options::default());
        assert_eq!(intake.idle(), None);
        intake.taps[0].waiting.store(true, Ordering::Release);
        assert!(intake.idle().is_some());
    }
}
