//! When each token was said: the attention of the heads that follow the sound, smoothed, and the
//! cheapest way through it by dynamic time warping. After Whisper's word timing and transformers'
//! `_extract_token_timestamps`.

use super::config::TIMESTAMP_SECONDS;
use crate::error::Result;
use crate::tensor::{Device, Tensor};

/// The time at which each of a text's tokens ends, in seconds since the window began; the last two
/// are the same. `attention` is `[heads, tokens - 1, positions]`: that of every token but the last
/// when it had been read. Only the first `positions` are of the sound.
pub(super) fn times(attention: &Tensor, positions: usize, median: usize) -> Result<Vec<f64>> {
    let (heads, tokens, width) = attention.size3()?;
    let positions = positions.min(width as usize);
    if tokens == 0 || positions == 0 {
        return Ok(vec![0.; tokens as usize + 1]);
    }
    let attention = attention.f_narrow(2, 0, positions as i64)?;
    let deviation = attention
        .f_std_dim(1, false, true)?
        .f_clamp_min(f64::from(f32::MIN_POSITIVE))?;
    let normed = attention
        .f_sub(&attention.f_mean_dim(1, true, None)?)?
        .f_div_(&deviation)?;
    let values = Vec::<f32>::try_from(normed.f_to(Device::Cpu)?.f_reshape(-1)?)?;
    let (heads, tokens) = (heads as usize, tokens as usize);
    let mut cost = vec![0f32; tokens * positions];
    let mut smooth = Median::new(positions, median);
    for head in values.chunks_exact(tokens * positions) {
        for (sum, row) in cost
            .chunks_exact_mut(positions)
            .zip(head.chunks_exact(positions))
        {
            sum.iter_mut()
                .zip(smooth.filter(row))
                .for_each(|(sum, value)| *sum -= value / heads as f32);
        }
    }
    let mut times: Vec<f64> = warp(&cost, positions)
        .into_iter()
        .map(|position| position as f64 * TIMESTAMP_SECONDS)
        .collect();
    times.extend(times.last().copied());
    Ok(times)
}

/// A median filter over rows of one length, mirrored at the ends.
struct Median {
    width: usize,
    /// The row once for each place of the filter.
    lanes: Vec<Vec<f32>>,
}

impl Median {
    fn new(length: usize, width: usize) -> Self {
        Self {
            width,
            lanes: vec![vec![0.; length]; width],
        }
    }

    /// Works on all places of the row at once: the largest of the lanes moves to the last, then the
    /// next, down to the middle.
    fn filter(&mut self, row: &[f32]) -> &[f32] {
        let (half, length) = (self.width / 2, row.len());
        if length <= half {
            self.lanes[half].copy_from_slice(row);
            return &self.lanes[half];
        }
        for (shift, lane) in self.lanes.iter_mut().enumerate() {
            for (at, value) in lane.iter_mut().enumerate() {
                let from = (at + shift).abs_diff(half);
                *value = row[if from < length {
                    from
                } else {
                    2 * (length - 1) - from
                }];
            }
        }
        for last in (half + 1..self.width).rev() {
            for lane in 0..last {
                let (low, high) = self.lanes.split_at_mut(lane + 1);
                order(&mut low[lane], &mut high[0]);
            }
        }
        for lane in 0..half {
            let (low, high) = self.lanes.split_at_mut(lane + 1);
            order(&mut low[lane], &mut high[0]);
        }
        &self.lanes[half]
    }
}

fn order(low: &mut [f32], high: &mut [f32]) {
    for (low, high) in low.iter_mut().zip(high) {
        (*low, *high) = if *high < *low {
            (*high, *low)
        } else {
            (*low, *high)
        };
    }
}

/// The position at which each row's stretch of the cheapest path begins; the path goes from the
/// first row and position to the last of both.
fn warp(cost: &[f32], positions: usize) -> Vec<usize> {
    let rows = cost.len() / positions;
    let wide = positions + 1;
    let mut sums = vec![f32::INFINITY; (rows + 1) * wide];
    let mut steps = vec![Step::Right; (rows + 1) * wide];
    sums[0] = 0.;
    for row in 1..=rows {
        for position in 1..=positions {
            let here = row * wide + position;
            let (diagonal, down, right) =
                (sums[here - wide - 1], sums[here - wide], sums[here - 1]);
            let (least, step) = if diagonal < down && diagonal < right {
                (diagonal, Step::Diagonal)
            } else if down < diagonal && down < right {
                (down, Step::Down)
            } else {
                (right, Step::Right)
            };
            sums[here] =
                (f64::from(cost[(row - 1) * positions + position - 1]) + f64::from(least)) as f32;
            steps[here] = step;
        }
    }
    let mut begins = vec![0; rows];
    let (mut row, mut position) = (rows, positions);
    while row > 0 {
        begins[row - 1] = position.saturating_sub(1);
        match if position == 0 {
            Step::Down
        } else {
            steps[row * wide + position]
        } {
            Step::Diagonal => (row, position) = (row - 1, position - 1),
            Step::Down => row -= 1,
            Step::Right => position -= 1,
        }
    }
    begins
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Diagonal,
    Down,
    Right,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_those_of_sorting() {
        let row: Vec<f32> = (0..40)
            .map(|n| f32::from((n * 37 % 29) as u8) - 11.)
            .collect();
        for width in [1, 3, 5, 7] {
            let half = width / 2;
            let mut filter = Median::new(row.len(), width);
            let found = filter.filter(&row).to_vec();
            for (at, found) in found.into_iter().enumerate() {
                let mirrored = |from: i64| {
                    if from < 0 {
                        -from
                    } else if from > 39 {
                        78 - from
                    } else {
                        from
                    }
                };
                let mut near: Vec<f32> = (0..width)
                    .map(|n| row[mirrored(at as i64 + n as i64 - half as i64) as usize])
                    .collect();
                near.sort_by(f32::total_cmp);
                assert_eq!(found, near[half], "{width} at {at}");
            }
        }
        assert_eq!(
            Median::new(2, 7).filter(&[1., 2.]),
            [1., 2.],
            "too short to be smoothed"
        );
    }

    #[test]
    fn the_path_follows_the_valley() {
        let mut cost = vec![1f32; 3 * 8];
        for (row, positions) in [(0, 0..2), (1, 2..5), (2, 5..8)] {
            positions.for_each(|position| cost[row * 8 + position] = -1.);
        }
        assert_eq!(warp(&cost, 8), [0, 2, 5]);
    }

    #[test]
    fn tokens_without_sound_have_time_nought() {
        let attention = Tensor::zeros([2, 3, 10], (tch::Kind::Float, Device::Cpu));
        assert_eq!(times(&attention, 0, 7).unwrap(), [0.; 4]);
        let none = Tensor::zeros([2, 0, 10], (tch::Kind::Float, Device::Cpu));
        assert_eq!(times(&none, 10, 7).unwrap(), [0.]);
        assert_eq!(
            times(&attention, 10, 7).unwrap().len(),
            4,
            "attention that is everywhere the same gives times, too"
        );
    }
}
