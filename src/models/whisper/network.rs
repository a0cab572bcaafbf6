//! Whisper's network as a whole: samples to spectrograms, spectrograms to what the text decoder
//! attends to, and the language that is spoken.

use super::config::{SpecialTokens, WhisperConfig};
use super::decoder::TextDecoder;
use super::encoder::Encoder;
use super::logits_processor::LogitsProcessor;
use super::mel::Mel;
use crate::error::Result;
use crate::models::Weights;
use crate::models::decoder::{CrossContext, Decoder};
use crate::tensor::{Device, Kind, Tensor, guard};

/// Encoder, decoder and what belongs to them.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) config: WhisperConfig,
    pub(super) tokens: SpecialTokens,
    mel: Mel,
    pub(super) encoder: Encoder,
    pub(super) decoder: TextDecoder,
    pub(super) logits_processor: LogitsProcessor,
}

impl Network {
    pub(super) fn load(
        weights: Weights,
        config: WhisperConfig,
        tokens: SpecialTokens,
    ) -> Result<Self> {
        let _frozen = guard();
        // The output layer is the embedding table; some checkpoints carry it twice.
        weights.allow_surplus("proj_out.weight");
        let root = weights.root() / "model";
        let encoder = Encoder::load(&(&root / "encoder"), &config)?;
        let decoder = TextDecoder::load(&(&root / "decoder"), &config, &tokens)?;
        let device = weights.device();
        let network = Self {
            mel: Mel::build(config.num_mel_bins, device)?,
            logits_processor: LogitsProcessor::build(tokens.clone(), &config, device)?,
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

    /// Spectrograms from a frame on each, made as long as a window, as the text decoder attends to
    /// them.
    pub(super) fn encode(&self, from: &[(&Tensor, usize)]) -> Result<CrossContext> {
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
            .audio(&self.encoder.forward(&Tensor::f_stack(&windows, 0)?)?)
    }

    /// The language of each window, and how sure the model is of it among all that it knows.
    pub(super) fn languages(&self, audio: &CrossContext) -> Result<Vec<(String, f32)>> {
        let _frozen = guard();
        let rows = audio.rows();
        if self.tokens.languages.is_empty() {
            return Ok(vec![("en".to_owned(), 1.); rows as usize]);
        }
        let start = [i64::from(self.tokens.start)];
        let prompts = vec![start.as_slice(); rows as usize];
        let (_, logits) = self.decoder.over(audio, false).start(&prompts, 0)?;
        let (codes, tokens): (Vec<&String>, Vec<i64>) = self
            .tokens
            .languages
            .iter()
            .map(|(code, &token)| (code, i64::from(token)))
            .unzip();
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
}
