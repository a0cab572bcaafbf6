//! Texts written about windows of audio, many at once, over [`Decoder`]'s contract. Whisper's rules
//! look at the whole text so far, at whether anybody speaks, and at the attention that times words,
//! so they have a loop of their own. Texts that have ended leave the batch, so that no time goes
//! into them.

use std::mem::take;

use super::alignment;
use super::config::STRIDE;
use super::decoder::AudioTextCache;
use super::logits_processor::TextState;
use super::network::Network;
use crate::error::{Error, Result};
use crate::models::decoder::{Cache, CrossContext, Decoder};
use crate::tensor::{Device, Kind, Tensor, guard};

/// Room for this many tokens is made at the start; the cache grows beyond in steps.
const ROOM: i64 = 64;

/// A text that is to be written about one window.
#[derive(Debug, Clone)]
pub(super) struct DecodeRequest {
    /// What it begins with. As long as that of all others in the batch.
    pub prompt: Vec<i64>,
    /// Tokens of the prompt before that which begins the text.
    pub before: usize,
    /// Frames of sound in the window.
    pub frames: usize,
    /// 0, or that at which tokens are drawn.
    pub temperature: f32,
    /// What draws begin with.
    pub seed: u64,
}

/// A text that was written.
#[derive(Debug, Clone)]
pub(super) struct DecodeOutput {
    /// Its tokens, without that which ends it.
    pub tokens: Vec<u32>,
    /// The logarithm of each one's probability, with that of the end where it ended by its own.
    pub log_probabilities: Vec<f32>,
    /// Whether it ended by its own.
    pub ended: bool,
    /// How sure the model is that nobody speaks.
    pub no_speech: f32,
    /// When each token ends, in seconds since the window began; empty where this was not asked for.
    pub times: Vec<f64>,
}

/// The texts under way, a row of the cache each.
struct Live {
    /// The request of each row.
    places: Vec<usize>,
    texts: Vec<TextState>,
}

impl Network {
    /// Writes a text about every window of `audio`, as `requests` ask for; with `aligned`, each
    /// token's time is found. Between tokens, `cancelled` is asked with a request's place: a
    /// cancelled text is left as it is.
    pub(super) fn decode(
        &self,
        audio: &CrossContext,
        requests: &[DecodeRequest],
        aligned: bool,
        cancelled: &dyn Fn(usize) -> bool,
    ) -> Result<Vec<DecodeOutput>> {
        let _frozen = guard();
        let Some(first) = requests.first() else {
            return Ok(Vec::new());
        };
        let (columns, before) = (first.prompt.len(), first.before);
        if requests.len() as i64 != audio.rows()
            || requests
                .iter()
                .any(|request| (request.prompt.len(), request.before) != (columns, before))
        {
            return Err(Error::bug("texts of a batch begin alike, one a window"));
        }
        let decoder = self.decoder.over(audio, aligned);
        let prompts: Vec<&[i64]> = requests.iter().map(|r| r.prompt.as_slice()).collect();
        let (mut cache, hidden) = decoder.start_whole(&prompts, ROOM)?;
        let no_speech = self.no_speech(&decoder.logits(&hidden.f_select(1, before as i64)?)?)?;
        let mut logits = decoder.logits(&hidden.f_select(1, columns as i64 - 1)?)?;
        let mut outputs: Vec<Option<DecodeOutput>> = vec![None; requests.len()];
        let mut live = Live::new(requests);
        loop {
            self.logits_processor.choose(&logits, &mut live.texts)?;
            let longest = (self.config.max_target_positions as usize).saturating_sub(columns);
            let (rows, ended) = live.split(longest, cancelled);
            for (row, place, text) in ended {
                let times = if aligned {
                    self.times(&cache, row, &requests[place])?
                } else {
                    Vec::new()
                };
                outputs[place] = Some(DecodeOutput::new(text, no_speech[place], times));
            }
            if rows.is_empty() {
                break;
            }
            cache.keep(&rows)?;
            logits = decoder.step(&mut cache, &live.last_tokens())?;
        }
        outputs
            .into_iter()
            .map(|output| output.ok_or_else(|| Error::bug("a text was lost from its batch")))
            .collect()
    }

    /// How sure the model is that nobody speaks, from the logits after the token that begins a
    /// text.
    fn no_speech(&self, logits: &Tensor) -> Result<Vec<f32>> {
        let probabilities = logits.f_softmax(1, Kind::Float)?;
        Ok(Vec::try_from(
            probabilities
                .f_select(1, i64::from(self.tokens.no_speech()))?
                .f_to(Device::Cpu)?,
        )?)
    }

    /// The times of what `row` has written after its prompt.
    fn times(
        &self,
        cache: &AudioTextCache,
        row: usize,
        request: &DecodeRequest,
    ) -> Result<Vec<f64>> {
        let written = request.prompt.len()..cache.len();
        let attention = self.decoder.attention(cache, row, written)?;
        let positions = request.frames / STRIDE;
        alignment::times(&attention, positions, self.config.median_filter_width)
    }
}

impl Live {
    fn new(requests: &[DecodeRequest]) -> Self {
        Self {
            places: (0..requests.len()).collect(),
            texts: requests
                .iter()
                .map(|request| TextState::new(request.temperature, request.seed))
                .collect(),
        }
    }

    /// Takes out the texts that have ended, are `longest` tokens long or cancelled: each with its
    /// row and the place of its request. The rows to go on with come first.
    fn split(
        &mut self,
        longest: usize,
        cancelled: &dyn Fn(usize) -> bool,
    ) -> (Vec<usize>, Vec<(usize, usize, TextState)>) {
        let (places, texts) = (take(&mut self.places), take(&mut self.texts));
        let (mut rows, mut ended) = (Vec::new(), Vec::new());
        for (row, (place, text)) in places.into_iter().zip(texts).enumerate() {
            if text.ended || text.tokens.len() >= longest || cancelled(place) {
                ended.push((row, place, text));
            } else {
                rows.push(row);
                self.places.push(place);
                self.texts.push(text);
            }
        }
        (rows, ended)
    }

    /// What every text reads next.
    fn last_tokens(&self) -> Vec<i64> {
        let last = |text: &TextState| text.tokens.last().map(|&token| i64::from(token));
        self.texts.iter().filter_map(last).collect()
    }
}

impl DecodeOutput {
    fn new(text: TextState, no_speech: f32, times: Vec<f64>) -> Self {
        Self {
            tokens: text.tokens,
            log_probabilities: text.log_probabilities,
            ended: text.ended,
            no_speech,
            times,
        }
    }
}
