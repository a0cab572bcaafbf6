//! Whisper's network as a whole: sound to what the decoder hears, and texts written from it, many
//! at once. Texts that have ended leave the batch, so that no time goes into them.

use super::alignment;
use super::config::{STRIDE, SpecialTokens, WhisperConfig};
use super::decoder::{AudioContext, Decoder, State};
use super::encoder::Encoder;
use super::logits_processor::{LogitsProcessor, TextState};
use super::mel::Mel;
use crate::error::{Error, Result};
use crate::models::Weights;
use crate::tensor::{Device, Kind, Tensor, guard};

/// Encoder, decoder and what belongs to them.
#[derive(Debug)]
pub struct Network {
    pub(super) config: WhisperConfig,
    pub(super) tokens: SpecialTokens,
    mel: Mel,
    pub(super) encoder: Encoder,
    pub(super) decoder: Decoder,
    logits_processor: LogitsProcessor,
}

/// A text that is to be written about one window.
#[derive(Debug, Clone)]
pub(super) struct DecodeRequest {
    /// What it begins with. As long as that of all others in the batch.
    pub prompt: Vec<u32>,
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

impl Network {
    pub(super) fn new(
        weights: Weights,
        config: WhisperConfig,
        tokens: SpecialTokens,
    ) -> Result<Self> {
        let _frozen = guard();
        // The output layer is the embedding table; some checkpoints carry it twice.
        weights.allow_surplus("proj_out.weight");
        let root = weights.root() / "model";
        let encoder = Encoder::new(&(&root / "encoder"), &config)?;
        let decoder = Decoder::new(&(&root / "decoder"), &config, &tokens)?;
        let device = weights.device();
        let network = Self {
            mel: Mel::new(config.num_mel_bins, device)?,
            logits_processor: LogitsProcessor::new(tokens.clone(), &config, device)?,
            config,
            tokens,
            encoder,
            decoder,
        };
        weights.finish()?;
        Ok(network)
    }

    /// The spectrogram of samples: `[bands, samples / 160]`.
    pub(super) fn spectrogram(&self, samples: &[f32]) -> Result<Tensor> {
        let _frozen = guard();
        self.mel.forward(samples)
    }

    /// What the decoder hears of spectrograms from a frame on each, made as long as a window.
    pub(super) fn hear(&self, from: &[(&Tensor, usize)]) -> Result<AudioContext> {
        let _frozen = guard();
        let whole = self.config.frames() as i64;
        let window = |&(spectrogram, from): &(&Tensor, usize)| -> Result<Tensor> {
            let rest = (spectrogram.size2()?.1 - from as i64).min(whole);
            let part = spectrogram.f_narrow(1, from as i64, rest)?;
            Ok(if rest < whole {
                part.f_constant_pad_nd([0, whole - rest])?
            } else {
                part
            })
        };
        let windows = from.iter().map(window).collect::<Result<Vec<_>>>()?;
        self.decoder
            .listen(&self.encoder.forward(&Tensor::f_stack(&windows, 0)?)?)
    }

    /// The language of each window, and how sure the model is of it among all that it knows.
    pub(super) fn languages(&self, sound: &AudioContext) -> Result<Vec<(String, f32)>> {
        let _frozen = guard();
        let rows = sound.rows();
        if self.tokens.languages.is_empty() {
            return Ok(vec![("en".to_owned(), 1.); rows as usize]);
        }
        let mut state = self.decoder.start(sound, false)?;
        let hidden = self.decoder.read(
            &mut state,
            sound,
            &vec![self.tokens.start; rows as usize],
            1,
        )?;
        let (codes, tokens): (Vec<&String>, Vec<i64>) = self
            .tokens
            .languages
            .iter()
            .map(|(code, &token)| (code, i64::from(token)))
            .unzip();
        let logits = self.decoder.logits(&hidden.f_select(1, 0)?)?;
        let tokens = Tensor::f_from_slice(&tokens)?.f_to(logits.device())?;
        let (most, which) = logits
            .f_index_select(1, &tokens)?
            .f_softmax(1, Kind::Float)?
            .f_max_dim(1, false)?;
        let (most, which) = (
            Vec::<f32>::try_from(most.f_to(Device::Cpu)?)?,
            Vec::<i64>::try_from(which.f_to(Device::Cpu)?)?,
        );
        Ok(which
            .iter()
            .zip(most)
            .map(|(&which, most)| (codes[which as usize].clone(), most))
            .collect())
    }

    /// Writes a text about every window of `sound`, as `orders` ask for; with `aligned`, each
    /// token's time is found. Between tokens, `cancelled` is asked with an order's place: a
    /// cancelled text is left as it is.
    pub(super) fn write(
        &self,
        sound: &AudioContext,
        orders: &[DecodeRequest],
        aligned: bool,
        cancelled: &dyn Fn(usize) -> bool,
    ) -> Result<Vec<DecodeOutput>> {
        let _frozen = guard();
        let Some(first) = orders.first() else {
            return Ok(Vec::new());
        };
        let (columns, before) = (first.prompt.len(), first.before);
        if orders.len() as i64 != sound.rows()
            || orders
                .iter()
                .any(|order| (order.prompt.len(), order.before) != (columns, before))
        {
            return Err(Error::bug("texts of a batch begin alike, one a window"));
        }
        let mut state = self.decoder.start(sound, aligned)?;
        let prompts: Vec<u32> = orders
            .iter()
            .flat_map(|order| order.prompt.iter().copied())
            .collect();
        let hidden = self
            .decoder
            .read(&mut state, sound, &prompts, columns as i64)?;
        let no_speech = self.no_speech(&hidden.f_select(1, before as i64)?)?;
        let mut last = hidden.f_select(1, columns as i64 - 1)?;
        let mut written: Vec<Option<DecodeOutput>> = vec![None; orders.len()];
        let mut live: Vec<usize> = (0..orders.len()).collect();
        let mut texts: Vec<TextState> = orders
            .iter()
            .map(|order| TextState::new(order.temperature, order.seed))
            .collect();
        let mut kept = None;
        loop {
            let heard = kept.as_ref().unwrap_or(sound);
            self.logits_processor
                .choose(&self.decoder.logits(&last)?, &mut texts)?;
            let full = |text: &TextState| {
                text.ended
                    || columns + text.tokens.len() >= self.config.max_target_positions as usize
            };
            let stays: Vec<bool> = live
                .iter()
                .zip(&texts)
                .map(|(&place, text)| !full(text) && !cancelled(place))
                .collect();
            let mut rows = Vec::new();
            let (going, staying): (Vec<_>, Vec<_>) = live
                .into_iter()
                .zip(texts)
                .enumerate()
                .partition(|(row, _)| !stays[*row]);
            for (row, (place, text)) in going {
                let times = if aligned {
                    self.times(&state, heard, row, columns, orders[place].frames)?
                } else {
                    Vec::new()
                };
                let TextState {
                    tokens,
                    log_probabilities,
                    ended,
                    ..
                } = text;
                written[place] = Some(DecodeOutput {
                    tokens,
                    log_probabilities,
                    ended,
                    no_speech: no_speech[place],
                    times,
                });
            }
            if staying.is_empty() {
                break;
            }
            let gone = staying.len() < stays.len();
            (live, texts) = staying
                .into_iter()
                .map(|(row, text)| {
                    rows.push(row);
                    text
                })
                .unzip();
            if gone {
                state.keep(&rows)?;
                kept = Some(heard.keep(&rows)?);
            }
            let next: Vec<u32> = texts
                .iter()
                .filter_map(|text| text.tokens.last().copied())
                .collect();
            let heard = kept.as_ref().unwrap_or(sound);
            last = self
                .decoder
                .read(&mut state, heard, &next, 1)?
                .f_select(1, 0)?;
        }
        written
            .into_iter()
            .map(|written| written.ok_or_else(|| Error::bug("a text was lost from its batch")))
            .collect()
    }

    fn no_speech(&self, hidden: &Tensor) -> Result<Vec<f32>> {
        let probabilities = self.decoder.logits(hidden)?.f_softmax(1, Kind::Float)?;
        Ok(Vec::try_from(
            probabilities
                .f_select(1, i64::from(self.tokens.no_speech()))?
                .f_to(Device::Cpu)?,
        )?)
    }

    /// The times of what `row` has written after its prompt of `columns` tokens, over `frames` of
    /// sound.
    fn times(
        &self,
        state: &State,
        sound: &AudioContext,
        row: usize,
        columns: usize,
        frames: usize,
    ) -> Result<Vec<f64>> {
        let attention = self
            .decoder
            .attention(state, sound, row, columns..state.length())?;
        alignment::times(&attention, frames / STRIDE, self.config.median_filter_width)
    }
}
