//! How a text is written: its length, where it ends, how its tokens are chosen, and how many texts
//! there are for one prompt.

use super::penalties::Penalties;
use super::sampler::SamplingConfig;
use crate::error::{Error, Result};

/// How a text is written.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationConfig {
    /// Tokens at most. The model's own limit cuts earlier.
    pub max_tokens: u32,
    /// The text ends before the first of these.
    pub stop: Vec<String>,
    /// Texts for one prompt: as many draws, each from a seed of its own, or the best beams.
    pub variants: u32,
    /// How tokens are drawn.
    pub sampling: SamplingConfig,
    /// What is held against tokens before.
    pub penalties: Penalties,
    /// How beams are searched.
    pub search: BeamSearchConfig,
}

impl Default for GenerationConfig {
    fn default() -> Self {
        let (sampling, penalties, search) = (
            SamplingConfig::default(),
            Penalties::default(),
            BeamSearchConfig::default(),
        );
        Self {
            max_tokens: 64,
            stop: Vec::new(),
            variants: 1,
            sampling,
            penalties,
            search,
        }
    }
}

/// Beam search, as transformers has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BeamSearchConfig {
    /// Texts that are followed at a time; 1 for no search.
    pub beams: u32,
    /// The log-probability of a finished text is divided by its length to this power: above 0
    /// longer texts win, below 0 shorter ones.
    pub length_penalty: f32,
    /// When the search ends.
    pub early: EarlyStopping,
}

impl Default for BeamSearchConfig {
    fn default() -> Self {
        Self {
            beams: 1,
            length_penalty: 1.0,
            early: EarlyStopping::Heuristic,
        }
    }
}

/// When a beam search ends before the longest text; in each case there are as many finished texts
/// as beams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EarlyStopping {
    /// When the best open text would not be better if it ended now: transformers' `False`.
    Heuristic,
    /// At once: `True`.
    First,
    /// When no open text can become better: `"never"`.
    Never,
}

impl GenerationConfig {
    /// Refuses what has no meaning.
    ///
    /// # Errors
    /// Config, naming the parameter.
    pub fn check(&self) -> Result<()> {
        self.sampling.check()?;
        self.penalties.check()?;
        let Self {
            variants,
            search:
                BeamSearchConfig {
                    beams,
                    length_penalty,
                    ..
                },
            ..
        } = *self;
        let searched = beams > 1;
        let refuse =
            |message: String, hint: &str| Err(Error::config(message).hint(hint.to_owned()));
        if beams == 0 || variants == 0 || !length_penalty.is_finite() {
            return refuse(
                format!(
                    "beams {beams}, variants {variants} and length_penalty {length_penalty} must \
                     be 1 or more, and finite"
                ),
                "1 is the default of each",
            );
        }
        if searched && !self.sampling.is_argmax() {
            return refuse(
                format!("{beams} beams are searched, not drawn"),
                "set temperature to 0, or beams to 1",
            );
        }
        if searched && variants > beams {
            return refuse(
                format!("{beams} beams cannot give {variants} variants"),
                "set beams to at least variants",
            );
        }
        if !searched && variants > 1 && self.sampling.is_argmax() {
            return refuse(
                format!("{variants} variants of the likeliest text would all be the same"),
                "set temperature above 0, or use beam_search",
            );
        }
        Ok(())
    }
}

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model said so, or a stop sequence came.
    Stop,
    /// It reached `max_tokens`, or was cancelled.
    Length,
}

/// A text that was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// The text, without special tokens.
    pub text: String,
    /// Its tokens, the one that ends the text not among them.
    pub tokens: Vec<u32>,
    /// Why it ended. A cancelled text ends by length.
    pub finish: Finish,
    /// What beams are ranked by: the log-probability over the length to the power of the penalty.
    /// None for texts that were not searched for.
    pub score: Option<f32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_contradicts_itself_is_refused() {
        let drawn = SamplingConfig {
            temperature: 1.0,
            ..SamplingConfig::default()
        };
        let beams = |beams| BeamSearchConfig {
            beams,
            ..BeamSearchConfig::default()
        };
        let wrong = [
            GenerationConfig {
                variants: 0,
                ..GenerationConfig::default()
            },
            GenerationConfig {
                variants: 2,
                ..GenerationConfig::default()
            },
            GenerationConfig {
                search: beams(0),
                ..GenerationConfig::default()
            },
            GenerationConfig {
                search: beams(2),
                variants: 3,
                ..GenerationConfig::default()
            },
            GenerationConfig {
                search: beams(2),
                sampling: drawn.clone(),
                ..GenerationConfig::default()
            },
            GenerationConfig {
                search: BeamSearchConfig {
                    length_penalty: f32::NAN,
                    ..beams(2)
                },
                ..GenerationConfig::default()
            },
            GenerationConfig {
                sampling: SamplingConfig {
                    top_p: 2.0,
                    ..SamplingConfig::default()
                },
                ..GenerationConfig::default()
            },
        ];
        for writing in wrong {
            assert_eq!(
                writing.check().unwrap_err().kind(),
                crate::error::Kind::Config,
                "{writing:?}"
            );
        }
        let right = [
            GenerationConfig {
                variants: 3,
                sampling: drawn,
                ..GenerationConfig::default()
            },
            GenerationConfig {
                variants: 3,
                search: beams(3),
                ..GenerationConfig::default()
            },
            GenerationConfig::default(),
        ];
        assert!(right.iter().all(|writing| writing.check().is_ok()));
    }
}
