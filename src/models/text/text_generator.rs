//! What every way of choosing tokens shares: the job of one prompt, and the tokenizer that turns
//! tokens back into text.

use super::generation_config::GenerationConfig;
use super::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::tensor::{Device, Kind, Tensor};

/// A text that is to follow a prompt.
#[derive(Debug, Clone, Copy)]
pub struct GenerationJob<'a> {
    /// The prompt, not empty.
    pub prompt: &'a [u32],
    /// How many of its last tokens are part of the text.
    pub begin: usize,
    /// How to go on.
    pub writing: &'a GenerationConfig,
}

/// What turns the tokens of a network into texts.
#[derive(Debug)]
pub struct TextGenerator {
    tokenizer: Tokenizer,
    ends: Vec<u32>,
}

/// A row goes on: as the one that `row` was, of those of its prompt, with `token`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NextToken {
    pub row: usize,
    pub token: u32,
}

impl TextGenerator {
    /// Of a tokenizer and the tokens that end a text.
    pub fn new(tokenizer: Tokenizer, ends: Vec<u32>) -> Self {
        Self { tokenizer, ends }
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The tokens that end a text.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// The text of `tokens` after the prompt, with what it begins with; `stopped` is the text
    /// without, where a stop sequence has ended it.
    pub(super) fn text(
        &self,
        job: &GenerationJob<'_>,
        tokens: &[u32],
        stopped: Option<String>,
    ) -> Result<String> {
        if job.begin == 0 {
            return stopped.map_or_else(|| self.tokenizer.decode(tokens), Ok);
        }
        let begin = &job.prompt[job.prompt.len() - job.begin..];
        let mut text = self.tokenizer.decode(&[begin, tokens].concat())?;
        if stopped.is_some() {
            let after = self.tokenizer.decode(begin)?.len().min(text.len());
            if let Some(end) = text
                .get(after..)
                .and_then(|rest| first_of(&job.writing.stop, rest))
            {
                text.truncate(after + end);
            }
        }
        Ok(text)
    }

    /// Refuses a prompt that a network of `vocabulary` tokens and texts of `positions` cannot go on
    /// with.
    ///
    /// # Errors
    /// Model, where it is empty, too long, or has tokens that the network has not.
    pub fn check(&self, prompt: &[u32], vocabulary: i64, positions: i64) -> Result<()> {
        if prompt.is_empty() {
            return Err(Error::model("an empty prompt"));
        }
        if prompt.len() as i64 >= positions {
            let long = format!(
                "a prompt of {} tokens fills the model's {positions}",
                prompt.len()
            );
            return Err(Error::model(long).hint("shorten the prompt"));
        }
        match prompt.iter().find(|&&token| i64::from(token) >= vocabulary) {
            Some(token) => Err(Error::model(format!(
                "the tokenizer has token {token}, the network only {vocabulary}"
            ))),
            None => Ok(()),
        }
    }
}

/// Where the first of `stops` begins in `text`.
pub(super) fn first_of(stops: &[String], text: &str) -> Option<usize> {
    stops
        .iter()
        .filter(|stop| !stop.is_empty())
        .filter_map(|stop| text.find(stop.as_str()))
        .min()
}

/// A row of numbers as they are, off the device.
pub(super) fn on_host(row: &Tensor) -> Result<Vec<f32>> {
    let row = row
        .f_to(Device::Cpu)?
        .f_to_kind(Kind::Float)?
        .f_contiguous()?;
    let mut values = vec![0.0; row.numel()];
    row.f_copy_data(&mut values, row.numel())?;
    Ok(values)
}
