//! A pass's tokens to segments, and how far into the window the pass got. After transformers'
//! `_retrieve_segment`.

use std::ops::Range;

use super::config::{FRAME_SECONDS, STRIDE, SpecialTokens, TIMESTAMP_SECONDS};

/// A stretch of a pass's tokens that timestamps enclose.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TimedSpan {
    /// Seconds since the pass began.
    pub start: f64,
    /// Seconds since the pass began.
    pub end: f64,
    /// Places of its tokens, timestamps with them.
    pub tokens: Range<usize>,
}

/// The stretches of a pass over `frames` frames, and the frames after which the next pass begins.
pub(super) fn split(
    written: &[u32],
    frames: usize,
    tokens: &SpecialTokens,
) -> (Vec<TimedSpan>, usize) {
    let begin = tokens.first_timestamp();
    let is_time = |at: usize| tokens.is_timestamp(written[at]);
    let seconds = |at: usize| f64::from(written[at] - begin) * TIMESTAMP_SECONDS;
    let mut ends: Vec<usize> = (1..written.len())
        .filter(|&at| is_time(at - 1) && is_time(at))
        .collect();
    // One timestamp at the end says that nobody speaks after it.
    let done = written.len() >= 2 && is_time(written.len() - 1) && !is_time(written.len() - 2);
    let Some(last) = ends.last_mut() else {
        let latest = (0..written.len())
            .rev()
            .find(|&at| is_time(at))
            .filter(|&at| written[at] != begin);
        let end = latest.map_or(
            (frames as f64 * FRAME_SECONDS / TIMESTAMP_SECONDS).floor() * TIMESTAMP_SECONDS,
            seconds,
        );
        return (
            vec![TimedSpan {
                start: 0.,
                end,
                tokens: 0..written.len(),
            }],
            frames,
        );
    };
    let next = if done {
        ends.push(written.len());
        frames
    } else {
        // What follows the last pair is unfinished, and is listened to again.
        let pair = *last;
        *last += 1;
        (written[pair - 1] - begin) as usize * STRIDE
    };
    let count = ends.len();
    let mut from = 0;
    let stretch = |(n, end): (usize, usize)| {
        let close = if n + 1 < count || done {
            end - 1
        } else {
            end - 2
        };
        let tokens = from..end;
        from = end;
        TimedSpan {
            start: seconds(tokens.start),
            end: seconds(close),
            tokens,
        }
    };
    (ends.into_iter().enumerate().map(stretch).collect(), next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Words below 10, the end 10, timestamps from 100 on.
    fn tokens() -> SpecialTokens {
        SpecialTokens {
            start: 11,
            end: 10,
            no_timestamps: 99,
            previous: None,
            languages: BTreeMap::new(),
            tasks: BTreeMap::new(),
            suppressed: Vec::new(),
            suppressed_first: Vec::new(),
            latest_start: None,
            alignment_heads: Vec::new(),
        }
    }

    fn found(written: &[u32]) -> (Vec<(i64, i64, Range<usize>)>, usize) {
        let (stretches, next) = split(written, 3000, &tokens());
        let ticks = |seconds: f64| (seconds / TIMESTAMP_SECONDS).round() as i64;
        (
            stretches
                .into_iter()
                .map(|s| (ticks(s.start), ticks(s.end), s.tokens))
                .collect(),
            next,
        )
    }

    #[test]
    fn one_timestamp_at_the_end_ends_the_window() {
        assert_eq!(
            found(&[100, 1, 2, 150, 160, 3, 200]),
            (vec![(0, 50, 0..4), (60, 100, 4..7)], 3000)
        );
        assert_eq!(found(&[100, 1, 2, 150]), (vec![(0, 50, 0..4)], 3000));
    }

    #[test]
    fn what_follows_the_last_pair_is_heard_again() {
        assert_eq!(
            found(&[100, 1, 150, 160, 2, 200, 200, 3, 4]),
            (vec![(0, 50, 0..3), (60, 100, 3..7)], 200)
        );
        assert_eq!(found(&[100, 1, 150, 150]), (vec![(0, 50, 0..4)], 100));
    }

    #[test]
    fn words_without_an_end_are_one_segment() {
        assert_eq!(found(&[100, 1, 2]), (vec![(0, 1500, 0..3)], 3000));
        assert_eq!(found(&[101, 1, 2]), (vec![(0, 1, 0..3)], 3000));
        assert_eq!(found(&[]), (vec![(0, 1500, 0..0)], 3000));
    }
}
