//! Sound in buffers of any length becomes pieces of one length on the stream's timeline.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::packet::{Nanos, SAMPLE_RATE, Span};

/// Bytes of one sample, an f32.
pub(super) const SAMPLE: usize = 4;
/// How far a buffer may lie from the end of the last to follow it: what resamplers and rounded
/// timestamps make of unbroken sound.
const TOLERANCE: Nanos = 40_000_000;

/// Takes buffers of any length and gives pieces of one length. Their spans never overlap and never
/// run backwards: each follows the last, or lies behind it after a hole.
pub(super) struct PieceCutter {
    /// Bytes of a whole piece.
    whole: usize,
    pending: BytesMut,
    /// Start of the unbroken sound that `pending` ends.
    start: Option<Nanos>,
    /// The samples of that sound that have been cut off.
    cut: u64,
    /// What a hole has cut short.
    short: Option<(Span, Bytes)>,
    /// End of the last piece.
    last: Nanos,
    /// Nothing follows what is held.
    pub ended: bool,
}

impl PieceCutter {
    /// For pieces of this length.
    pub fn new(piece: Duration) -> Self {
        let samples = (piece.as_nanos() * u128::from(SAMPLE_RATE) / 1_000_000_000).max(1) as usize;
        Self {
            whole: samples * SAMPLE,
            pending: BytesMut::new(),
            start: None,
            cut: 0,
            short: None,
            last: 0,
            ended: false,
        }
    }

    /// Whether any sound has come.
    pub fn begun(&self) -> bool {
        self.start.is_some()
    }

    /// Takes what follows, or what lies behind a hole; without a pts it follows.
    pub fn push(&mut self, pts: Option<Nanos>, data: &[u8]) {
        let expected = self.at(self.pending.len());
        let pts = pts.or(expected).unwrap_or(0);
        if expected.is_none_or(|expected| expected.abs_diff(pts) > TOLERANCE) {
            self.short = self.cut(self.pending.len());
            // Behind what was given already, for a source may repeat itself.
            (self.start, self.cut) = (Some(pts.max(self.last)), 0);
        }
        self.pending.extend_from_slice(data);
    }

    /// Nothing follows.
    pub fn end(&mut self) {
        self.short = self.cut(self.pending.len());
        self.ended = true;
    }

    /// A whole piece, or what a hole or the end has cut short; none until more has come.
    pub fn next(&mut self) -> Option<(Span, Bytes)> {
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
        let samples = self.cut + (bytes / SAMPLE) as u64;
        Some(self.start? + (u128::from(samples) * 1_000_000_000 / u128::from(SAMPLE_RATE)) as Nanos)
    }

    fn cut(&mut self, bytes: usize) -> Option<(Span, Bytes)> {
        let span = Span::new(self.at(0)?, self.at(bytes)?);
        if bytes == 0 {
            return None;
        }
        // `start` was set at `last` or later, and `cut` grows by all that is cut.
        debug_assert!(span.start >= self.last, "pieces of sound overlap");
        self.cut += (bytes / SAMPLE) as u64;
        self.last = span.end;
        Some((span, self.pending.split_to(bytes).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;

    fn drain(pieces: &mut PieceCutter) -> Vec<(u64, u64, usize)> {
        std::iter::from_fn(|| pieces.next())
            .map(|(span, data)| (span.start / MS, span.end / MS, data.len() / SAMPLE))
            .collect()
    }

    #[test]
    fn pieces_are_equal_and_follow_each_other_until_a_hole() {
        let mut pieces = PieceCutter::new(Duration::from_millis(100));
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
