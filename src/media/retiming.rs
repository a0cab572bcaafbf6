//! The probes that put pictures and sound on the stream's timeline, whatever segments and clocks
//! the source has. They run in GStreamer's streaming threads, once a buffer.

use std::sync::atomic::Ordering;

use gstreamer as gst;
use gstreamer_video as gst_video;

use super::elements::DISCARD;
use super::ingest_state::{DecodedFormat, IngestState};
use super::options::FrameRate;
use super::timeline::Placement;
use crate::packet::{Micros, Nanos};

/// From 1900, where NTP begins, to 1970.
const NTP_TO_UNIX: Nanos = 2_208_988_800_000_000_000;

/// The probe before the tee: counts frames and gives them their pts.
pub(super) fn retime_pictures(
    state: &IngestState,
    info: &mut gst::PadProbeInfo<'_>,
) -> gst::PadProbeReturn {
    match &mut info.data {
        Some(gst::PadProbeData::Event(event)) => match event.view() {
            gst::EventView::Segment(_) => state.pictures.lock().timeline.follow(event),
            gst::EventView::Caps(caps) => note_format(state, caps.caps()),
            gst::EventView::Tag(tag) => note_orientation(state, tag.tag()),
            _ => gst::PadProbeReturn::Ok,
        },
        Some(gst::PadProbeData::Buffer(buffer)) => retime_frame(state, buffer),
        _ => gst::PadProbeReturn::Ok,
    }
}

/// The probe before the branch of sound: puts it on the timeline of the pictures.
pub(super) fn retime_sound(
    state: &IngestState,
    info: &mut gst::PadProbeInfo<'_>,
) -> gst::PadProbeReturn {
    match &mut info.data {
        Some(gst::PadProbeData::Event(event))
            if matches!(event.view(), gst::EventView::Segment(_)) =>
        {
            state.sound.lock().follow(event)
        }
        Some(gst::PadProbeData::Buffer(buffer)) => retime_samples(state, buffer),
        _ => gst::PadProbeReturn::Ok,
    }
}

fn retime_samples(state: &IngestState, buffer: &mut gst::Buffer) -> gst::PadProbeReturn {
    // The pictures' lock is let go before the sound's is taken.
    let base = state.pictures.lock().timeline.base;
    let mut timeline = state.sound.lock();
    if state.options.live {
        // Sound from before the first picture has no place.
        let is_early = timeline
            .running(buffer.pts())
            .zip(base)
            .is_none_or(|(running, base)| running < base);
        if base.is_none() || (is_early && timeline.last.is_none()) {
            return DISCARD;
        }
        timeline.base = base;
    }
    let placement = timeline.place(buffer.pts(), buffer.duration());
    set_times(buffer, &placement);
    gst::PadProbeReturn::Ok
}

fn note_format(state: &IngestState, caps: &gst::CapsRef) -> gst::PadProbeReturn {
    let Ok(info) = gst_video::VideoInfo::from_caps(caps) else {
        return gst::PadProbeReturn::Ok;
    };
    if !state.admits(info.width(), info.height()) {
        return DISCARD;
    }
    let (num, den) = (info.fps().numer(), info.fps().denom());
    let is_constant = num > 0 && den > 0;
    let fps = is_constant.then(|| FrameRate::new(num as u32, den as u32));
    let mut pictures = state.pictures.lock();
    pictures.format = Some(DecodedFormat {
        width: info.width(),
        height: info.height(),
        fps,
    });
    pictures.timeline.period = fps.and_then(FrameRate::period);
    gst::PadProbeReturn::Ok
}

/// Frames are turned upright behind the tee.
fn note_orientation(state: &IngestState, tags: &gst::TagListRef) -> gst::PadProbeReturn {
    if let Some(orientation) = tags.get::<gst::tags::ImageOrientation>() {
        // `rotate-90`, `flip-rotate-270`: a quarter turn swaps the sides.
        let orientation = orientation.get();
        let is_quarter = orientation.ends_with("-90") || orientation.ends_with("-270");
        state.pictures.lock().is_on_its_side = is_quarter;
    }
    gst::PadProbeReturn::Ok
}

fn retime_frame(state: &IngestState, buffer: &mut gst::Buffer) -> gst::PadProbeReturn {
    if state.failure.borrow().is_some() {
        return DISCARD;
    }
    if !has_begun(state, buffer) {
        state.untimed.fetch_add(1, Ordering::AcqRel);
        return DISCARD;
    }
    let (placement, format) = {
        let mut pictures = state.pictures.lock();
        let placement = pictures.timeline.place(buffer.pts(), buffer.duration());
        (placement, pictures.upright())
    };
    set_times(buffer, &placement);
    if placement.is_damaged || buffer.flags().contains(gst::BufferFlags::CORRUPTED) {
        state.corrupt.fetch_add(1, Ordering::AcqRel);
    }
    // Before the count and the first format: who sees those does not take the stream for idle.
    state.last.store(state.now(), Ordering::Release);
    if state.decoded.fetch_add(1, Ordering::AcqRel) == 0 {
        state.first.send_replace(format);
    }
    gst::PadProbeReturn::Ok
}

/// Whether the stream may begin with this frame, or has begun: where the sender's clock is wanted,
/// with the first frame that has its time.
fn has_begun(state: &IngestState, buffer: &gst::BufferRef) -> bool {
    if !state.options.sender_clock {
        return true;
    }
    let mut began = state.began.lock();
    if began.is_none() {
        *began = sender_time(buffer);
    }
    began.is_some()
}

fn set_times(buffer: &mut gst::Buffer, placement: &Placement) {
    let buffer = buffer.make_mut();
    // Neither is `u64::MAX`, which would be no time: both are far below it.
    buffer.set_pts(gst::ClockTime::from_nseconds(placement.pts));
    buffer.set_dts(gst::ClockTime::NONE);
    buffer.set_duration(gst::ClockTime::from_nseconds(placement.duration));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::options::Options;

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
            let answer = retime_frame(&state, &mut buffer);
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

    /// Puts a buffer of this pts and duration through a probe; start and end of what leaves it.
    fn retimed(
        probe: impl Fn(&mut gst::Buffer) -> gst::PadProbeReturn,
        pts: Option<Nanos>,
        duration: Option<Nanos>,
    ) -> Option<(Nanos, Nanos)> {
        let mut buffer = gst::Buffer::with_size(1).expect("memory");
        let writable = buffer.make_mut();
        writable.set_pts(pts.map(gst::ClockTime::from_nseconds));
        writable.set_duration(duration.map(gst::ClockTime::from_nseconds));
        if probe(&mut buffer) != gst::PadProbeReturn::Ok {
            return None;
        }
        let start = buffer.pts().expect("a pts").nseconds();
        let duration = buffer.duration().expect("a duration").nseconds();
        Some((start, start.checked_add(duration).expect("an end in range")))
    }

    #[test]
    fn damaged_times_are_counted_and_keep_the_order() {
        gst::init().expect("GStreamer");
        const HALF: Nanos = u64::MAX / 2;
        const EDGES: [Nanos; 8] = [
            0,
            1,
            u64::MAX / 4,
            HALF - 1,
            HALF,
            HALF + 1,
            u64::MAX - 2,
            u64::MAX - 1,
        ];
        let slowest = FrameRate::new(1, i32::MAX as u32).period();
        for live in [false, true] {
            for period in [None, Some(40_000_000), slowest] {
                for (pts, duration) in EDGES
                    .into_iter()
                    .flat_map(|pts| EDGES.map(|duration| (pts, duration)))
                {
                    let what = format!("{pts} for {duration}, live {live}, period {period:?}");
                    let options = Options {
                        live,
                        ..Options::default()
                    };
                    let state = IngestState::new("x".into(), options);
                    state.pictures.lock().timeline.period = period;
                    let (mut last_frame, mut last_sound) = (None, None);
                    let (both, first) = ((Some(pts), Some(duration)), Some(EDGES[0]));
                    let times = [both, both, (None, None), (first, None), both, (None, None)];
                    for (pts, duration) in
                        times.into_iter().chain(EDGES.map(|pts| (Some(pts), None)))
                    {
                        let frame = retimed(|buffer| retime_frame(&state, buffer), pts, duration);
                        let (start, end) = frame.expect("every frame is kept");
                        assert!(start < end && last_frame < Some(start), "{what}");
                        last_frame = Some(start);
                        let sound = retimed(|buffer| retime_samples(&state, buffer), pts, duration);
                        if let Some((start, end)) = sound {
                            assert!(start < end && last_sound < Some(start), "{what}");
                            last_sound = Some(start);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_frame_of_damaged_time_follows_the_last_and_counts_as_damaged() {
        gst::init().expect("GStreamer");
        let state = IngestState::new("x".into(), Options::default());
        let frame = |pts, duration| retimed(|buffer| retime_frame(&state, buffer), pts, duration);
        assert_eq!(frame(Some(u64::MAX - 1), Some(10)), Some((0, 10)));
        assert_eq!(frame(Some(10), Some(u64::MAX - 1)), Some((10, 40_000_010)));
        assert_eq!(state.lost().corrupt, 2);
        assert_eq!(
            frame(Some(50_000_000), Some(10)),
            Some((50_000_000, 50_000_010))
        );
        assert_eq!(frame(None, None), Some((50_000_010, 90_000_010)));
        assert_eq!(state.lost().corrupt, 2, "nothing is wrong with those");
    }
}
