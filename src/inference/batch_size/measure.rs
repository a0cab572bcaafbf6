//! How large batches should be, found by trying: doubled until that gains little, or memory ends.

use std::time::Duration;

use crate::error::Result;

/// A batch of twice the size must answer this many times as many items a second to be worth it.
const MIN_GAIN: f64 = 1.05;

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::inference) struct MeasuredBatch {
    /// The most items a batch should have.
    pub max_size: usize,
    /// Why no larger size was taken.
    pub end: StopReason,
    /// Sizes tried, with their items per second.
    pub curve: Vec<(usize, f64)>,
}

/// Why measuring ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::inference) enum StopReason {
    /// A larger batch gained too little: the knee.
    Knee,
    /// A larger batch ran out of memory.
    Memory,
    /// The largest size allowed was reached.
    Most,
}

impl StopReason {
    pub const fn as_str(self) -> &'static str {
        match self {
            StopReason::Knee => "knee",
            StopReason::Memory => "memory",
            StopReason::Most => "most",
        }
    }
}

/// Tries batches of 1, 2, 4 and so on up to `most`. `run` gives the time of a batch of a size, none
/// where memory ran out.
///
/// # Errors
/// Those of `run`.
pub(in crate::inference) fn measure(
    most: usize,
    mut run: impl FnMut(usize) -> Result<Option<Duration>>,
) -> Result<MeasuredBatch> {
    let mut curve: Vec<(usize, f64)> = Vec::new();
    let mut size = 1;
    let end = loop {
        let Some(time) = run(size)? else {
            break StopReason::Memory;
        };
        let rate = size as f64 / time.as_secs_f64().max(1e-9);
        let before = curve.last().map_or(0., |(_, rate)| *rate);
        curve.push((size, rate));
        if rate < before * MIN_GAIN {
            let max_size = curve[curve.len() - 2].0;
            return Ok(MeasuredBatch {
                max_size,
                end: StopReason::Knee,
                curve,
            });
        }
        if size == most {
            break StopReason::Most;
        }
        size = (size * 2).min(most);
    };
    // One that does not fit alone fails for whoever asks for it.
    let max_size = curve.last().map_or(1, |(size, _)| *size);
    Ok(MeasuredBatch {
        max_size,
        end,
        curve,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(
        most: usize,
        micros: impl Fn(usize) -> Option<u64>,
    ) -> (usize, StopReason, Vec<usize>) {
        let measured = measure(most, |size| Ok(micros(size).map(Duration::from_micros))).unwrap();
        (
            measured.max_size,
            measured.end,
            measured.curve.iter().map(|(size, _)| *size).collect(),
        )
    }

    #[test]
    fn batches_grow_to_the_knee() {
        // A fixed cost of 1 ms and 100 us an item: 8 items answer 4,444/s, 16 6,154/s, 32 7,619/s,
        // 64 8,649/s, 128 9,275/s, 256 9,624/s.
        let time = |size: usize| Some(1000 + 100 * size as u64);
        assert_eq!(
            found(4096, time),
            (
                128,
                StopReason::Knee,
                vec![1, 2, 4, 8, 16, 32, 64, 128, 256]
            )
        );
        assert_eq!(
            found(4096, |size| Some(100 * size as u64)),
            (1, StopReason::Knee, vec![1, 2]),
            "nothing is gained"
        );
    }

    #[test]
    fn batches_grow_until_memory_ends() {
        let time = |size: usize| (size <= 20).then_some(1000);
        assert_eq!(
            found(4096, time),
            (16, StopReason::Memory, vec![1, 2, 4, 8, 16])
        );
        assert_eq!(found(4096, |_| None), (1, StopReason::Memory, vec![]));
    }

    #[test]
    fn batches_grow_to_what_is_allowed() {
        assert_eq!(
            found(24, |_| Some(1000)),
            (24, StopReason::Most, vec![1, 2, 4, 8, 16, 24])
        );
        assert_eq!(found(1, |_| Some(1000)), (1, StopReason::Most, vec![1]));
    }
}
