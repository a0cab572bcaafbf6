//! Which token comes next: what must not be written is left out, timestamps come in pairs and never
//! go back, and where all timestamps together are likelier than any word, one of them comes. After
//! transformers' `WhisperTimeStampLogitsProcessor` and its neighbours.

use super::config::{SpecialTokens, WhisperConfig};
use crate::error::Result;
use crate::models::text::{Sampler, SamplingConfig};
use crate::tensor::{Device, Kind, Tensor};

/// What is never chosen, laid out for the logits of a whole batch.
#[derive(Debug)]
pub struct LogitsProcessor {
    tokens: SpecialTokens,
    /// `[vocab]`: 0, or minus infinity for what is never written.
    always: Tensor,
    /// The same for the first token.
    first: Tensor,
    /// 0, 1, 2... for every timestamp.
    ticks: Tensor,
}

/// A text under way, as far as the choice of its next token needs to know it.
#[derive(Debug)]
pub struct TextState {
    /// The tokens chosen so far, without the one that ends it.
    pub tokens: Vec<u32>,
    /// The logarithm of each one's probability; with that of the end where it has ended.
    pub log_probabilities: Vec<f32>,
    /// Whether it has ended by its own.
    pub ended: bool,
    sampler: Option<Sampler>,
}

/// What may come next in one text.
#[derive(Debug, Clone, Copy)]
struct Allowed {
    words: bool,
    /// The earliest timestamp; none where none may come.
    from: Option<u32>,
}

/// What the device finds for each text.
#[derive(Debug, Clone, Copy)]
struct Best {
    /// The likeliest, its logit and the logarithm of the sum of all exponentials.
    word: (u32, f32, f32),
    time: (u32, f32, f32),
}

impl TextState {
    /// Of nothing yet. At a temperature above 0 tokens are drawn, from `seed` on.
    pub fn new(temperature: f32, seed: u64) -> Self {
        let sampling = SamplingConfig {
            temperature,
            seed,
            ..SamplingConfig::default()
        };
        let sampler = (temperature > 0.).then(|| Sampler::new(sampling));
        Self {
            tokens: Vec::new(),
            log_probabilities: Vec::new(),
            ended: false,
            sampler,
        }
    }

    fn allowed(&self, tokens: &SpecialTokens) -> Allowed {
        let last = self
            .tokens
            .last()
            .copied()
            .filter(|&last| tokens.is_timestamp(last));
        let before =
            self.tokens.len() < 2 || tokens.is_timestamp(self.tokens[self.tokens.len() - 2]);
        match (last, before) {
            // After two timestamps, or the first of all, words begin.
            (Some(_), true) => Allowed {
                words: true,
                from: None,
            },
            // After words, the timestamp that ends them is followed by one that begins the next, or
            // by the end.
            (Some(last), false) => Allowed {
                words: false,
                from: Some(last),
            },
            (None, _) => {
                let latest = self
                    .tokens
                    .iter()
                    .rev()
                    .find(|&&token| tokens.is_timestamp(token));
                Allowed {
                    words: true,
                    from: Some(latest.map_or(tokens.first_timestamp(), |latest| latest + 1)),
                }
            }
        }
    }
}

impl LogitsProcessor {
    pub(super) fn build(
        tokens: SpecialTokens,
        config: &WhisperConfig,
        device: Device,
    ) -> Result<Self> {
        let vocab = config.vocab_size as usize;
        let never = f32::NEG_INFINITY;
        let mut always = vec![0.; vocab];
        tokens
            .suppressed
            .iter()
            .for_each(|&token| always[token as usize] = never);
        always[tokens.no_timestamps as usize] = never;
        let mut first = always.clone();
        let begin = tokens.first_timestamp() as usize;
        first[..begin].fill(never);
        tokens
            .suppressed_first
            .iter()
            .for_each(|&token| first[token as usize] = never);
        if let Some(latest) = tokens.latest_start {
            first[(begin + latest as usize + 1).min(vocab)..].fill(never);
        }
        let place =
            |values: &[f32]| -> Result<Tensor> { Ok(Tensor::f_from_slice(values)?.f_to(device)?) };
        let ticks = Tensor::f_arange(vocab as i64 - begin as i64, (Kind::Int64, device))?;
        Ok(Self {
            always: place(&always)?,
            first: place(&first)?,
            ticks,
            tokens,
        })
    }

    /// Chooses the next token of every text by its row of `logits` `[texts, vocab]`.
    ///
    /// # Errors
    /// Model, where no logit is a number; overload, where memory is short.
    pub fn choose(&self, logits: &Tensor, texts: &mut [TextState]) -> Result<()> {
        let begins = texts.iter().all(|text| text.tokens.is_empty());
        let mask = if begins { &self.first } else { &self.always };
        let scores = logits.f_add(mask)?;
        let begin = i64::from(self.tokens.first_timestamp());
        let words = scores.f_narrow(1, 0, begin)?;
        let times = scores.f_narrow(1, begin, scores.size()[1] - begin)?;
        if !begins {
            let allowed: Vec<Allowed> = texts
                .iter()
                .map(|text| text.allowed(&self.tokens))
                .collect();
            self.forbid(&words, &times, &allowed)?;
        }
        let best = best(&words, &times)?;
        for (row, (text, best)) in texts.iter_mut().zip(best).enumerate() {
            let timed = best.time.2 > best.word.1;
            let total = if timed {
                best.time.2
            } else {
                log_sum(best.word.2, best.time.2)
            };
            let (token, logit) = match &mut text.sampler {
                Some(sampler) => {
                    let mut values =
                        Vec::<f32>::try_from(scores.f_select(0, row as i64)?.f_to(Device::Cpu)?)?;
                    if timed {
                        values[..begin as usize].fill(f32::NEG_INFINITY);
                    }
                    let unscaled = values.clone();
                    let token = sampler.choose(&values)?;
                    (token, unscaled[token as usize])
                }
                None if !timed && best.word.1 >= best.time.1 => (best.word.0, best.word.1),
                None => (best.time.0 + begin as u32, best.time.1),
            };
            text.log_probabilities.push(logit - total);
            if token == self.tokens.end {
                text.ended = true;
            } else {
                text.tokens.push(token);
            }
        }
        Ok(())
    }

    fn forbid(&self, words: &Tensor, times: &Tensor, allowed: &[Allowed]) -> Result<()> {
        let begin = self.tokens.first_timestamp();
        for (row, _) in allowed
            .iter()
            .enumerate()
            .filter(|(_, allowed)| !allowed.words)
        {
            let _ = words
                .f_select(0, row as i64)?
                .f_narrow(0, 0, i64::from(self.tokens.end))?
                .f_fill_(f64::NEG_INFINITY)?;
        }
        let from: Vec<i64> = allowed
            .iter()
            .map(|allowed| {
                allowed
                    .from
                    .map_or(i64::MAX, |from| i64::from(from - begin))
            })
            .collect();
        let from = Tensor::f_from_slice(&from)?
            .f_to(times.device())?
            .f_view([-1, 1])?;
        let mut times = times.shallow_clone();
        let _ = times.f_masked_fill_(&self.ticks.f_lt_tensor(&from)?, f64::NEG_INFINITY)?;
        Ok(())
    }
}

/// Six numbers a text, in one transfer from the device.
fn best(words: &Tensor, times: &Tensor) -> Result<Vec<Best>> {
    let numbers = |scores: &Tensor| -> Result<[Tensor; 3]> {
        let (most, which) = scores.f_max_dim(1, false)?;
        Ok([
            which.f_to_kind(Kind::Float)?,
            most,
            scores.f_logsumexp(1, false)?,
        ])
    };
    let ([word, words, word_sum], [time, times, time_sum]) = (numbers(words)?, numbers(times)?);
    let all =
        Tensor::f_stack(&[word, words, word_sum, time, times, time_sum], 1)?.f_to(Device::Cpu)?;
    let all = Vec::<Vec<f32>>::try_from(all)?;
    Ok(all
        .iter()
        .map(|n| Best {
            word: (n[0] as u32, n[1], n[2]),
            time: (n[3] as u32, n[4], n[5]),
        })
        .collect())
}

/// ln(e^a + e^b).
fn log_sum(a: f32, b: f32) -> f32 {
    let (high, low) = if a > b { (a, b) } else { (b, a) };
    if low == f32::NEG_INFINITY {
        high
    } else {
        high + (low - high).exp().ln_1p()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Words 0..4, end 4, no speech 5, no timestamps 6, timestamps 7..17.
    fn tokens() -> SpecialTokens {
        SpecialTokens {
            start: 3,
            end: 4,
            no_timestamps: 6,
            previous: None,
            languages: BTreeMap::new(),
            tasks: BTreeMap::new(),
            suppressed: vec![2],
            suppressed_first: vec![4],
            latest_start: Some(1),
            alignment_heads: Vec::new(),
        }
    }

    fn logits_processor() -> LogitsProcessor {
        let json = serde_json::json!({"num_mel_bins": 80, "d_model": 8, "encoder_layers": 1, "encoder_attention_heads": 2,
            "encoder_ffn_dim": 8, "decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 8, "max_source_positions": 9,
            "max_target_positions": 20, "vocab_size": 17});
        let config = WhisperConfig::read(&crate::models::Config::of(json)).unwrap();
        LogitsProcessor::build(tokens(), &config, Device::Cpu).unwrap()
    }

    /// The token that follows `written` where one token stands out.
    fn next(written: &[u32], likeliest: &[(usize, f32)]) -> u32 {
        let mut logits = vec![-20f32; 17];
        likeliest
            .iter()
            .for_each(|&(token, logit)| logits[token] = logit);
        let mut text = TextState::new(0., 0);
        text.tokens = written.to_vec();
        logits_processor()
            .choose(
                &Tensor::from_slice(&logits).view([1, -1]),
                std::slice::from_mut(&mut text),
            )
            .unwrap();
        assert!(
            text.log_probabilities[0] <= 1e-6,
            "{}",
            text.log_probabilities[0]
        );
        if text.ended {
            4
        } else {
            text.tokens[written.len()]
        }
    }

    #[test]
    fn a_text_begins_with_an_early_timestamp() {
        assert_eq!(next(&[], &[(0, 9.), (4, 9.), (8, 1.), (12, 5.)]), 8);
    }

    #[test]
    fn timestamps_come_in_pairs() {
        assert_eq!(next(&[7], &[(9, 9.), (1, 1.)]), 1, "words after the first");
        assert_eq!(
            next(&[7, 1, 9], &[(1, 9.), (8, 5.), (10, 1.)]),
            10,
            "one after that which ends words, and none before it"
        );
        assert_eq!(
            next(&[7, 1, 9], &[(1, 9.), (9, 1.)]),
            9,
            "it may be the same"
        );
        assert_eq!(next(&[7, 1, 9], &[(1, 9.), (4, 1.)]), 4, "or the end");
        assert_eq!(
            next(&[7, 1, 9, 9], &[(12, 9.), (1, 1.)]),
            1,
            "words after a pair"
        );
    }

    #[test]
    fn time_does_not_stand_still_over_words() {
        assert_eq!(next(&[9, 1], &[(9, 9.), (8, 9.), (10, 5.), (1, 1.)]), 10);
    }

    #[test]
    fn what_is_suppressed_is_never_written() {
        assert_eq!(next(&[7], &[(2, 9.), (6, 9.), (1, 1.)]), 1);
    }

    #[test]
    fn timestamps_are_weighed_together() {
        assert_eq!(next(&[7, 1], &[(0, 2.), (10, 1.8), (11, 1.7)]), 10);
        assert_eq!(next(&[7, 1], &[(0, 2.), (10, 0.8), (11, 0.7)]), 0);
    }

    #[test]
    fn probabilities_are_of_what_may_come() {
        let mut logits = vec![f32::NEG_INFINITY; 17];
        (logits[0], logits[1], logits[2]) = (1., 1., 30.);
        let mut text = TextState::new(0., 0);
        text.tokens = vec![7];
        logits_processor()
            .choose(
                &Tensor::from_slice(&logits).view([1, -1]),
                std::slice::from_mut(&mut text),
            )
            .unwrap();
        assert!((text.log_probabilities[0] + std::f32::consts::LN_2).abs() < 1e-6);
    }

    #[test]
    fn at_a_temperature_tokens_are_drawn_by_the_seed() {
        let draw = |seed| {
            let mut text = TextState::new(1., seed);
            text.tokens = vec![7];
            let logits = Tensor::from_slice(&[[0f32, 0., 9.].as_slice(), &[-20.; 14]].concat())
                .view([1, -1]);
            logits_processor()
                .choose(&logits, std::slice::from_mut(&mut text))
                .unwrap();
            text.tokens[1]
        };
        let drawn: Vec<u32> = (0..20).map(draw).collect();
        assert_eq!(drawn, (0..20).map(draw).collect::<Vec<_>>());
        assert!(
            drawn.contains(&0) && drawn.contains(&1) && drawn.iter().all(|&token| token < 2),
            "{drawn:?}"
        );
    }
}
