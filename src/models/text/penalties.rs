//! What makes tokens less likely because of what is written already, as transformers' logits
//! processors do: repetition penalty, no repeated n-grams, a least length.

use std::collections::BTreeSet;

use crate::error::{Error, Result};

/// What is held against tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Penalties {
    /// Scores of tokens already in the text are divided by it where positive, multiplied where
    /// negative; 1 for none.
    pub repetition: f32,
    /// No sequence of this many tokens comes twice, the prompt's included; 0 for any.
    pub ngram: u32,
    /// The text does not end before this many tokens.
    pub min_tokens: u32,
}

impl Default for Penalties {
    fn default() -> Self {
        Self {
            repetition: 1.0,
            ngram: 0,
            min_tokens: 0,
        }
    }
}

impl Penalties {
    /// Refuses what has no meaning.
    ///
    /// # Errors
    /// Config, naming the parameter.
    pub fn check(&self) -> Result<()> {
        if (0.01..=100.0).contains(&self.repetition) {
            return Ok(());
        }
        Err(Error::config(format!(
            "repetition_penalty {} is not between 0.01 and 100",
            self.repetition
        )))
    }

    /// Whether there are none, so that scores need not be looked at.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Changes the scores of the token that would follow `prompt` and `written`; `ends` are the
    /// tokens that end a text.
    pub fn apply(&self, scores: &mut [f32], prompt: &[u32], written: &[u32], ends: &[u32]) {
        let forbid = |scores: &mut [f32], token: u32| {
            if let Some(score) = scores.get_mut(token as usize) {
                *score = f32::NEG_INFINITY;
            }
        };
        if self.repetition != 1.0 {
            for token in prompt.iter().chain(written).collect::<BTreeSet<_>>() {
                if let Some(score) = scores.get_mut(*token as usize) {
                    *score = if *score > 0.0 {
                        *score / self.repetition
                    } else {
                        *score * self.repetition
                    };
                }
            }
        }
        let size = self.ngram as usize;
        if size > 0 && prompt.len() + written.len() >= size {
            let text: Vec<u32> = prompt.iter().chain(written).copied().collect();
            let latest = &text[text.len() + 1 - size..];
            for gram in text
                .windows(size)
                .filter(|gram| gram[..size - 1] == *latest)
            {
                forbid(scores, gram[size - 1]);
            }
        }
        if (written.len() as u32) < self.min_tokens {
            ends.iter().for_each(|&end| forbid(scores, end));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(penalties: &Penalties, prompt: &[u32], written: &[u32]) -> Vec<f32> {
        let mut scores = vec![1.0, 0.9, -1.0, 0.5];
        penalties.apply(&mut scores, prompt, written, &[3]);
        scores
    }

    const FORBIDDEN: f32 = f32::NEG_INFINITY;

    #[test]
    fn repetition_is_penalised_in_prompt_and_text() {
        let penalties = Penalties {
            repetition: 2.0,
            ..Penalties::default()
        };
        assert_eq!(after(&penalties, &[0, 0], &[2]), [0.5, 0.9, -2.0, 0.5]);
        assert_eq!(
            after(&penalties, &[9], &[]),
            [1.0, 0.9, -1.0, 0.5],
            "a token that the network does not know"
        );
    }

    #[test]
    fn no_sequence_comes_twice() {
        let pairs = Penalties {
            ngram: 2,
            ..Penalties::default()
        };
        assert_eq!(after(&pairs, &[0, 1], &[2, 0]), [1.0, FORBIDDEN, -1.0, 0.5]);
        assert_eq!(after(&pairs, &[0], &[]), [1.0, 0.9, -1.0, 0.5]);
        let single = Penalties {
            ngram: 1,
            ..Penalties::default()
        };
        assert_eq!(after(&single, &[0], &[2]), [FORBIDDEN, 0.9, FORBIDDEN, 0.5]);
        let triples = Penalties {
            ngram: 3,
            ..Penalties::default()
        };
        assert_eq!(
            after(&triples, &[2, 1, 0, 1], &[2, 1]),
            [FORBIDDEN, 0.9, -1.0, 0.5]
        );
    }

    #[test]
    fn a_text_does_not_end_early() {
        let penalties = Penalties {
            min_tokens: 2,
            ..Penalties::default()
        };
        assert_eq!(
            after(&penalties, &[0, 1], &[2]),
            [1.0, 0.9, -1.0, FORBIDDEN]
        );
        assert_eq!(after(&penalties, &[0, 1], &[2, 2]), [1.0, 0.9, -1.0, 0.5]);
    }

    #[test]
    fn penalties_without_meaning_are_refused() {
        for repetition in [0.0, f32::NAN, -1.0] {
            assert_eq!(
                Penalties {
                    repetition,
                    ..Penalties::default()
                }
                .check()
                .unwrap_err()
                .kind(),
                crate::error::Kind::Config
            );
        }
        assert!(Penalties::default().check().is_ok() && Penalties::default().is_none());
    }
}
