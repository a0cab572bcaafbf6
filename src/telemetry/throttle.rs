//! Keeps a stage that fails on every packet from filling the log with one line a packet: the first
//! lines pass, then one every few seconds, which says how many were left out. What failed is
//! counted elsewhere, each time.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lines that pass at once after a quiet time.
const BURST: u32 = 5;
/// Pause between two lines after that.
const PAUSE: Duration = Duration::from_secs(5);

/// Lets some of many alike lines pass. One for each stage and thing that it may say, shared by all
/// its streams.
#[derive(Debug, Default)]
pub struct Throttle(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// When the lines that have passed would all be paid for, at one every `PAUSE`.
    paid: Option<Instant>,
    left_out: u64,
}

impl Throttle {
    /// Whether a line may be written now, and if so how many were left out since the last one.
    pub fn pass(&self) -> Option<u64> {
        self.pass_at(Instant::now())
    }

    /// How many lines were left out since the last one that passed; to be asked
    /// for when no more are to come. The count starts again at 0.
    pub fn take_left_out(&self) -> u64 {
        std::mem::take(&mut self.0.lock().left_out)
    }

    fn pass_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        let paid = state.paid.map_or(now, |paid| paid.max(now));
        if paid - now > PAUSE * (BURST - 1) {
            state.left_out += 1;
            return None;
        }
        state.paid = Some(paid + PAUSE);
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a line each tenth of a second comes to, by the second in which it passed.
    fn passed(
        throttle: &Throttle,
        begin: Instant,
        seconds: std::ops::Range<u64>,
    ) -> Vec<(u64, u64)> {
        let tenths = seconds.start * 10..seconds.end * 10;
        tenths
            .filter_map(|tenth| {
                Some((
                    tenth / 10,
                    throttle.pass_at(begin + Duration::from_millis(tenth * 100))?,
                ))
            })
            .collect()
    }

    #[test]
    fn the_first_lines_pass_and_then_one_every_few_seconds_with_the_number_left_out() {
        let (throttle, begin) = (Throttle::default(), Instant::now());
        assert_eq!(
            passed(&throttle, begin, 0..16),
            [
                (0, 0),
                (0, 0),
                (0, 0),
                (0, 0),
                (0, 0),
                (5, 45),
                (10, 49),
                (15, 49)
            ]
        );
        assert_eq!(throttle.take_left_out(), 9, "what was left out since");
        assert_eq!(throttle.take_left_out(), 0, "it is counted once");
    }

    #[test]
    fn after_a_quiet_time_the_first_lines_pass_again() {
        let (throttle, begin) = (Throttle::default(), Instant::now());
        assert_eq!(passed(&throttle, begin, 0..1).len(), 5);
        assert_eq!(
            passed(&throttle, begin, 11..12),
            [(11, 5), (11, 0)],
            "two pauses earn two lines"
        );
        assert_eq!(passed(&throttle, begin, 600..601).len(), 5);
    }

    #[test]
    fn what_fails_now_and_then_is_always_said() {
        let (throttle, begin) = (Throttle::default(), Instant::now());
        let said = (0..1000)
            .filter_map(|n| throttle.pass_at(begin + PAUSE * n))
            .collect::<Vec<_>>();
        assert_eq!(said, vec![0; 1000]);
    }
}
