//! Lowering a view's frame rate without changing the pts of the frames that are left.

use std::sync::atomic::{AtomicU64, Ordering};

use gstreamer as gst;

use crate::packet::Nanos;

/// Keeps the frame nearest to each tick of a clock that starts at 0. Not videorate: even with
/// `drop-only=true` it gives frames new timestamps, so that views would disagree on a frame's pts,
/// and it refuses sources of variable rate or of a lower one than asked for.
pub(super) struct Decimator {
    /// From one tick to the next.
    period: Nanos,
    /// The tick whose frame has not come. One thread uses it at a time; it is atomic because a probe
    /// is shared by reference, and `Relaxed` because nothing else is published with it.
    next: AtomicU64,
}

impl Decimator {
    /// `period` must be above 0.
    pub fn new(period: Nanos) -> Self {
        debug_assert!(period > 0, "a rate without end");
        Self {
            period,
            next: AtomicU64::new(0),
        }
    }

    /// Whether this frame is kept: the middle of the time that it is shown decides. A frame without
    /// pts is kept.
    pub fn keeps(&self, buffer: &gst::BufferRef) -> bool {
        let Some(pts) = buffer.pts() else { return true };
        let duration = buffer.duration().map_or(0, gst::ClockTime::nseconds);
        self.keeps_at(pts.nseconds() + duration / 2)
    }

    fn keeps_at(&self, middle: Nanos) -> bool {
        let keeps = middle >= self.next.load(Ordering::Relaxed);
        if keeps {
            self.next
                .store((middle / self.period + 1) * self.period, Ordering::Relaxed);
        }
        keeps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_nearest_to_each_tick_is_kept() {
        let kept = |period: u64, frame: u64, frames: u64| {
            let decimator = Decimator::new(period);
            (0..frames)
                .filter(|i| decimator.keeps_at(i * frame + frame / 2))
                .collect::<Vec<u64>>()
        };
        assert_eq!(kept(500, 33, 40), [0, 15, 30]);
        assert_eq!(
            kept(10, 40, 4),
            [0, 1, 2, 3],
            "a source slower than the view is kept whole"
        );
        let jump = Decimator::new(500);
        assert_eq!(
            [0, 100, 5_100, 5_200, 5_500].map(|pts| jump.keeps_at(pts)),
            [true, false, true, false, true]
        );
    }
}
