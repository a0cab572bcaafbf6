//! The timeline that all views of a stream share: running time, whatever segments and jumps the
//! source sends.

use gstreamer as gst;

use super::elements::DISCARD;
use crate::packet::Nanos;

/// What a jump back in time must exceed to be a new beginning instead of two frames out of order.
const JUMP: Nanos = 1_000_000_000;
/// What a jump ahead must exceed to be damage instead of a pause.
const LEAP: Nanos = 3_600_000_000_000;
/// How long a buffer lasts where neither it nor its caps say.
const DEFAULT_DURATION: Nanos = 40_000_000;
/// What a pts or the end of a frame must exceed to be damage: 292 years, the longest that GStreamer
/// can count with a sign. All above it is room for sums.
const LATEST: Nanos = u64::MAX / 2;

/// Where a frame lies on the timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placement {
    pub pts: Nanos,
    /// Never 0.
    pub duration: Nanos,
    /// Its pts or duration was out of range and was ignored.
    pub is_damaged: bool,
}

/// Running time, made strictly increasing: the pts that [`Timeline::place`] gives rise from call to
/// call, so no two frames of a stream share one.
pub(super) struct Timeline {
    /// The source's latest segment.
    segment: Option<gst::FormattedSegment<gst::ClockTime>>,
    /// From one frame to the next, where the rate is known and constant.
    pub period: Option<Nanos>,
    live: bool,
    /// Running time of a live stream's first frame.
    pub base: Option<Nanos>,
    /// What jumps back have added. With a sign, as all sums with it: after a jump to before `base` a
    /// running time lies below zero until it is shifted.
    shift: i128,
    /// Start and end of the last frame.
    pub last: Option<(Nanos, Nanos)>,
    /// Where a frame came more than half a frame late.
    pub holes: u64,
}

impl Timeline {
    pub fn new(live: bool) -> Self {
        Self {
            segment: None,
            period: None,
            live,
            base: None,
            shift: 0,
            last: None,
            holes: 0,
        }
    }

    /// Notes a segment event, and makes a plain one of the first; later ones are dropped. Behind
    /// the probe a buffer's pts is its running time, and the segment that says so never changes.
    pub fn follow(&mut self, event: &mut gst::Event) -> gst::PadProbeReturn {
        let gst::EventView::Segment(segment) = event.view() else {
            return gst::PadProbeReturn::Ok;
        };
        let segment = segment
            .segment()
            .downcast_ref::<gst::ClockTime>()
            .cloned()
            .unwrap_or_default();
        if self.segment.replace(segment).is_some() {
            return DISCARD;
        }
        let (seqnum, plain) = (
            event.seqnum(),
            gst::FormattedSegment::<gst::ClockTime>::new(),
        );
        *event = gst::event::Segment::builder(&plain).seqnum(seqnum).build();
        gst::PadProbeReturn::Ok
    }

    /// Running time of a pts in the source's segment; none where it lies outside of it.
    pub fn running(&self, pts: Option<gst::ClockTime>) -> Option<Nanos> {
        let pts = pts?;
        let running = match &self.segment {
            Some(segment) => segment.to_running_time(pts)?,
            None => pts,
        };
        Some(running.nseconds())
    }

    /// Where a frame lies. A frame without pts follows the last one; one slightly out of order is
    /// moved behind it; a jump back of more than a second is taken for a new beginning of the
    /// source's clock and goes on from where the stream was; a leap ahead of more than an hour is
    /// taken for a damaged pts and ignored, and so is any time above [`LATEST`].
    pub fn place(
        &mut self,
        pts: Option<gst::ClockTime>,
        duration: Option<gst::ClockTime>,
    ) -> Placement {
        let running = self.running(pts);
        let sane = running.filter(|running| *running <= LATEST);
        let pts = self.start_of(sane);
        let room = LATEST.saturating_sub(pts);
        let given = duration
            .map(gst::ClockTime::nseconds)
            .filter(|duration| *duration > 0);
        let duration = given
            .filter(|duration| *duration <= room)
            .or(self.period)
            .unwrap_or(DEFAULT_DURATION);
        // At the edge a frame lasts 1 ns. So no pts exceeds `LATEST` by more than the count of the
        // frames, and there is no overflow before there were 2^63 of them.
        let duration = duration.min(room).max(1);
        self.last = Some((pts, pts + duration));
        Placement {
            pts,
            duration,
            is_damaged: sane != running || given.is_some_and(|given| given > room),
        }
    }

    /// The pts of a frame of this running time, behind that of the last frame.
    fn start_of(&mut self, running: Option<Nanos>) -> Nanos {
        let pts = running.map(|running| {
            let base = if self.live {
                *self.base.get_or_insert(running)
            } else {
                0
            };
            let shifted = i128::from(running) - i128::from(base) + self.shift;
            shifted.min(LATEST.into())
        });
        // What is below zero lies before `last`, and is moved behind it further down.
        let unsigned = |pts: i128| Nanos::try_from(pts).unwrap_or(0);
        let Some((last, end)) = self.last else {
            return pts.map_or(0, unsigned);
        };
        let given = pts.unwrap_or(end.into());
        let mut pts = unsigned(given);
        if pts > end.saturating_add(LEAP) {
            pts = end;
        } else if pts <= last {
            let jumped = i128::from(last) - given > JUMP.into();
            pts = if jumped { end } else { last + 1 };
            if jumped {
                self.shift += i128::from(end) - given;
            }
        }
        // `end` lies behind `last`, as no duration is 0, and the other ways out are above it.
        debug_assert!(pts > last, "a pts of {pts} after one of {last}");
        let is_late = |period: Nanos| pts > end.saturating_add(period / 2);
        self.holes += u64::from(self.period.is_some_and(is_late));
        pts
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
        timeline.period = Some(10 * MS);
        let placed: Vec<Nanos> = [at(5000), at(5010), None, at(5015)]
            .into_iter()
            .map(|pts| timeline.place(pts, None).pts)
            .collect();
        assert_eq!(placed, [0, 10 * MS, 20 * MS, 20 * MS + 1]);
        timeline.place(at(8000), None);
        assert_eq!(
            timeline.place(at(100), None).pts,
            3010 * MS,
            "the source's clock began again"
        );
        assert_eq!(timeline.place(at(110), None).pts, 3020 * MS);
        assert_eq!(
            timeline.place(at(9_999_999_999), None).pts,
            3030 * MS,
            "a damaged pts"
        );
        assert_eq!(timeline.place(at(130), None).pts, 3040 * MS);
    }

    #[test]
    fn frames_keep_their_spacing_after_a_jump_to_before_the_first() {
        gst::init().expect("GStreamer");
        let mut timeline = Timeline::new(true);
        timeline.period = Some(10 * MS);
        let times = [50_000, 52_000, 100, 110, 150, 3000];
        let placed = times.map(|pts| timeline.place(at(pts), None).pts / MS);
        assert_eq!(placed, [0, 2000, 2010, 2020, 2060, 4910]);
    }

    #[test]
    fn file_timeline_keeps_running_time() {
        gst::init().expect("GStreamer");
        let mut timeline = Timeline::new(false);
        let whole = |pts, duration| Placement {
            pts: pts * MS,
            duration: duration * MS,
            is_damaged: false,
        };
        assert_eq!(timeline.place(at(66), at(33)), whole(66, 33));
        let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
        segment.set_start(gst::ClockTime::from_mseconds(1000));
        timeline.segment = Some(segment);
        assert_eq!(timeline.place(at(1100), at(33)), whole(100, 33));
    }
}
