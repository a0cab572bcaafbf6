//! The probes that put pictures and sound on the stream's timeline, whatever segments and clocks
//! the source has. They run in GStreamer's streaming threads, once a buffer.

use std::sync::atomic::Ordering;

use gstreamer as gst;
use gstreamer_video as gst_video;

use super::elements::DISCARD;
use super::ingest_state::{DecodedFormat, IngestState};
use super::options::FrameRate;
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
        // What was heard before the first picture has no place.
        let is_early = timeline
            .running(buffer.pts())
            .zip(base)
            .is_none_or(|(running, base)| running < base);
        if base.is_none() || (is_early && timeline.last.is_none()) {
            return DISCARD;
        }
        timeline.base = base;
    }
    let (pts, duration) = timeline.place(buffer.pts(), buffer.duration());
    set_times(buffer, pts, duration);
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

fn retime_frame(state: &IngestState, buffer: &mut gst::Buffer) -> gst::PadProbeReturn {
    if state.failure.borrow().is_some() {
        return DISCARD;
    }
    if !has_begun(state, buffer) {
        state.untimed.fetch_add(1, Ordering::AcqRel);
        return DISCARD;
    }
    let format = {
        let mut pictures = state.pictures.lock();
        let (pts, duration) = pictures.timeline.place(buffer.pts(), buffer.duration());
        set_times(buffer, pts, duration);
        pictures.format
    };
    if buffer.flags().contains(gst::BufferFlags::CORRUPTED) {
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

fn set_times(buffer: &mut gst::Buffer, pts: Nanos, duration: Nanos) {
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
}
