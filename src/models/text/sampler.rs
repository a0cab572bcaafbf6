//! The draw of the next token from its logits, in the order transformers has: temperature, top k,
//! top p, draw. Penalties come before it.

use crate::error::{Error, Result};

/// How tokens are chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingConfig {
    /// Logits are divided by it; 0 always takes the likeliest.
    pub temperature: f32,
    /// Only the likeliest tokens that together have at least this probability; 1 for all.
    pub top_p: f32,
    /// Only this many of the likeliest tokens; 0 for all.
    pub top_k: u32,
    /// What the draws start from: the same text for the same seed.
    pub seed: u64,
}

impl Default for SamplingConfig {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            seed: 0,
        }
    }
}

impl SamplingConfig {
    /// Refuses what has no meaning.
    ///
    /// # Errors
    /// Config, naming the parameter.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: &str, value: f32, range: &str| {
            Err(Error::config(format!("{what} {value} is not {range}")))
        };
        if !(0.0..=100.0).contains(&self.temperature) {
            return refuse("temperature", self.temperature, "between 0 and 100");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return refuse("top_p", self.top_p, "above 0 and at most 1");
        }
        Ok(())
    }

    /// Whether the likeliest token is always the one.
    pub fn is_argmax(&self) -> bool {
        self.temperature == 0.0
    }

    /// The same for the `n`th of several texts for one prompt: from a seed of its own, which for
    /// the first is the one given.
    #[must_use]
    pub fn variant(&self, n: u32) -> Self {
        let seed = if n == 0 {
            self.seed
        } else {
            SplitMix64(self.seed ^ SplitMix64(u64::from(n)).next_u64()).next_u64()
        };
        Self {
            seed,
            ..self.clone()
        }
    }
}

/// The choices of one text.
#[derive(Debug)]
pub struct Sampler {
    sampling: SamplingConfig,
    random: SplitMix64,
}

impl Sampler {
    /// From the seed on.
    pub fn new(sampling: SamplingConfig) -> Self {
        let random = SplitMix64(sampling.seed);
        Self { sampling, random }
    }

    /// The next token.
    ///
    /// # Errors
    /// Model, where no logit is a number to choose by.
    pub fn choose(&mut self, logits: &[f32]) -> Result<u32> {
        let SamplingConfig {
            temperature,
            top_p,
            top_k,
            ..
        } = self.sampling;
        let (likeliest, top) =
            argmax(logits).ok_or_else(|| Error::model("the network yields no finite logits"))?;
        if temperature == 0.0 {
            return Ok(likeliest);
        }
        // Relative to the likeliest, so that no exponential overflows.
        let scale = 1.0 / f64::from(temperature);
        let weigh = |logit: f32| {
            if logit.is_nan() {
                0.0
            } else {
                (f64::from(logit - top) * scale).exp()
            }
        };
        Ok(draw(
            logits,
            weigh,
            top_k as usize,
            f64::from(top_p),
            self.random.next_f64(),
        ))
    }
}

fn argmax(logits: &[f32]) -> Option<(u32, f32)> {
    let mut best = None;
    for (token, &logit) in logits.iter().enumerate() {
        if logit.is_finite() && best.is_none_or(|(_, top)| logit > top) {
            best = Some((token as u32, logit));
        }
    }
    best
}

/// The token at `unit` (0 up to 1) of the probability that `top_k` and `top_p` leave.
fn draw(logits: &[f32], weigh: impl Fn(f32) -> f64, top_k: usize, top_p: f64, unit: f64) -> u32 {
    let limit = if top_k == 0 {
        logits.len()
    } else {
        top_k.min(logits.len())
    };
    if limit == logits.len() && top_p >= 1.0 {
        return draw_of_all(logits, weigh, unit);
    }
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    // Ties go to the lower number, so that the choice does not depend on how the selection went
    // about it.
    let rank = |a: &u32, b: &u32| {
        logits[*b as usize]
            .total_cmp(&logits[*a as usize])
            .then(a.cmp(b))
    };
    let mut best = |count: usize| {
        if count < order.len() {
            order.select_nth_unstable_by(count, rank);
        }
        let mut chosen = order[..count].to_vec();
        chosen.sort_unstable_by(rank);
        chosen
            .into_iter()
            .map(|token| (token, weigh(logits[token as usize])))
            .collect::<Vec<_>>()
    };
    // The nucleus is nearly always a few hundred of many thousand tokens: a full sort would cost
    // more than the network.
    let whole = limit == logits.len();
    let all = if whole {
        logits.iter().map(|&logit| weigh(logit)).sum::<f64>()
    } else {
        0.0
    };
    let mut count = if whole { limit.min(256) } else { limit };
    loop {
        let mut chosen = best(count);
        let total = if whole {
            all
        } else {
            chosen.iter().map(|(_, weight)| weight).sum()
        };
        let mut mass = 0.0;
        let last = chosen.iter().position(|(_, weight)| {
            mass += weight;
            mass >= top_p * total
        });
        if let Some(last) = last {
            chosen.truncate(last + 1);
        } else if count < limit {
            count = (count * 8).min(limit);
            continue;
        }
        return at(chosen.into_iter(), unit * mass);
    }
}

/// The token at `unit` of the probability of all.
fn draw_of_all(logits: &[f32], weigh: impl Fn(f32) -> f64, unit: f64) -> u32 {
    let all = logits
        .iter()
        .enumerate()
        .map(|(token, &logit)| (token as u32, weigh(logit)));
    let total = logits.iter().map(|&logit| weigh(logit)).sum::<f64>();
    at(all, unit * total)
}

/// The token that `place` falls on when weights are laid end to end.
fn at(weights: impl Iterator<Item = (u32, f64)>, place: f64) -> u32 {
    let mut sum = 0.0;
    let mut last = 0;
    for (token, weight) in weights {
        if weight > 0.0 {
            sum += weight;
            last = token;
            if place < sum {
                break;
            }
        }
    }
    last
}

/// SplitMix64: the same draws on every machine and in every version, as cached texts must not
/// change with a dependency.
#[derive(Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn next_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f32::consts::LN_2;

    /// Probabilities 0.5, 0.25, 0.125, 0.125.
    const LOGITS: [f32; 4] = [LN_2, 0.0, -LN_2, -LN_2];

    fn counts(sampling: SamplingConfig, draws: u32) -> [f64; 4] {
        let mut sampler = Sampler::new(sampling);
        let mut counts = [0.0; 4];
        for _ in 0..draws {
            counts[sampler.choose(&LOGITS).unwrap() as usize] += 1.0 / f64::from(draws);
        }
        counts
    }

    fn near(found: [f64; 4], expected: [f64; 4]) {
        let apart = found
            .iter()
            .zip(expected)
            .map(|(f, e)| (f - e).abs())
            .fold(0.0, f64::max);
        assert!(apart < 0.01, "{found:?} is not {expected:?}");
    }

    #[test]
    fn draws_follow_the_softmax() {
        near(
            counts(
                SamplingConfig {
                    temperature: 1.0,
                    ..SamplingConfig::default()
                },
                40_000,
            ),
            [0.5, 0.25, 0.125, 0.125],
        );
    }

    #[test]
    fn top_p_keeps_the_smallest_set_that_reaches_it() {
        let p = |top_p| SamplingConfig {
            temperature: 1.0,
            top_p,
            seed: 3,
            ..SamplingConfig::default()
        };
        near(counts(p(0.7), 40_000), [2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]);
        near(
            counts(p(0.8), 40_000),
            [0.5 / 0.875, 0.25 / 0.875, 0.125 / 0.875, 0.0],
        );
        assert!(counts(p(0.01), 200)[0] > 0.999);
    }

    #[test]
    fn top_k_then_top_p_as_transformers() {
        let sampling = SamplingConfig {
            temperature: 1.0,
            top_k: 2,
            top_p: 0.66,
            ..SamplingConfig::default()
        };
        assert!(counts(sampling, 200)[0] > 0.999);
        near(
            counts(
                SamplingConfig {
                    temperature: 1.0,
                    top_k: 2,
                    ..SamplingConfig::default()
                },
                40_000,
            ),
            [2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0],
        );
    }

    #[test]
    fn temperature_sharpens() {
        near(
            counts(
                SamplingConfig {
                    temperature: 0.5,
                    ..SamplingConfig::default()
                },
                40_000,
            ),
            [16.0 / 22.0, 4.0 / 22.0, 1.0 / 22.0, 1.0 / 22.0],
        );
    }

    #[test]
    fn the_same_seed_draws_the_same_tokens() {
        let run = |seed| {
            let mut sampler = Sampler::new(SamplingConfig {
                temperature: 1.0,
                top_p: 0.95,
                seed,
                ..SamplingConfig::default()
            });
            (0..64)
                .map(|_| sampler.choose(&LOGITS).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
        let mut random = SplitMix64(0);
        assert_eq!(
            random.next_f64(),
            (0xe220_a839_7b1d_cdaf_u64 >> 11) as f64 / (1u64 << 53) as f64
        );
    }

    #[test]
    fn a_wide_nucleus_is_found_beyond_the_first_candidates() {
        let logits = vec![0.0f32; 1200];
        let mut sampler = Sampler::new(SamplingConfig {
            temperature: 1.0,
            top_p: 0.5,
            ..SamplingConfig::default()
        });
        let drawn: Vec<u32> = (0..600).map(|_| sampler.choose(&logits).unwrap()).collect();
        let highest = drawn.iter().max().copied().unwrap();
        assert!((560..=600).contains(&highest), "{highest}");
    }

    #[test]
    fn variants_draw_each_from_a_seed_of_its_own() {
        let sampling = SamplingConfig {
            temperature: 1.0,
            seed: 7,
            ..SamplingConfig::default()
        };
        let seeds: std::collections::BTreeSet<u64> = (0..8)
            .flat_map(|n| {
                [
                    sampling.variant(n).seed,
                    SamplingConfig {
                        seed: 8,
                        ..sampling.clone()
                    }
                    .variant(n)
                    .seed,
                ]
            })
            .collect();
        assert_eq!((seeds.len(), sampling.variant(0).seed), (16, 7));
    }

    #[test]
    fn logits_that_are_no_numbers_are_an_error() {
        let mut sampler = Sampler::new(SamplingConfig::default());
        assert_eq!(
            sampler.choose(&[f32::NAN, f32::NAN]).unwrap_err().kind(),
            crate::error::Kind::Model
        );
        assert_eq!(sampler.choose(&[f32::NAN, -3.0]).unwrap(), 1);
    }

    #[test]
    fn parameters_without_meaning_are_refused() {
        let wrong = [
            SamplingConfig {
                temperature: -1.0,
                ..SamplingConfig::default()
            },
            SamplingConfig {
                temperature: f32::NAN,
                ..SamplingConfig::default()
            },
            SamplingConfig {
                top_p: 0.0,
                ..SamplingConfig::default()
            },
            SamplingConfig {
                top_p: 1.5,
                ..SamplingConfig::default()
            },
        ];
        for sampling in wrong {
            assert_eq!(
                sampling.check().unwrap_err().kind(),
                crate::error::Kind::Config,
                "{sampling:?}"
            );
        }
        assert!(SamplingConfig::default().check().is_ok());
    }
}
