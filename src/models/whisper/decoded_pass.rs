//! What a pass over a window ended with, and whether to believe it: a text that is unlikely or
//! repeats itself is doubtful, one where nobody speaks is left out.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::decode::DecodeOutput;
use super::network::Network;
use super::transcription::TranscriptionOptions;
use crate::error::{Error, Result};

/// A text that a pass ended with.
pub(super) struct DecodedPass {
    pub written: DecodeOutput,
    pub temperature: f32,
    pub log_probability: f32,
    pub compression_ratio: f32,
    /// Whether it is left out, for nobody speaks.
    pub silent: bool,
    pub doubtful: bool,
}

impl DecodedPass {
    pub(super) fn build(
        written: DecodeOutput,
        options: &TranscriptionOptions,
        temperature: f32,
        network: &Network,
    ) -> Result<Self> {
        let log_probability = written.log_probabilities.iter().sum::<f32>()
            / written.log_probabilities.len().max(1) as f32;
        let end = written.ended.then_some(network.tokens.end);
        let compression_ratio = compression_ratio(
            written.tokens.iter().copied().chain(end),
            network.config.vocab_size,
        )?;
        let unlikely = options.log_probability.map(|least| log_probability < least);
        let silent = options
            .no_speech
            .is_some_and(|most| written.no_speech > most)
            && unlikely.unwrap_or(true);
        let doubtful = unlikely == Some(true)
            || options
                .compression_ratio
                .is_some_and(|most| compression_ratio > most);
        Ok(Self {
            written,
            temperature,
            log_probability,
            compression_ratio,
            silent,
            doubtful: doubtful && !silent,
        })
    }
}

/// Bytes of tokens to bytes of what zlib makes of them.
fn compression_ratio(tokens: impl Iterator<Item = u32>, vocab: i64) -> Result<f32> {
    let width = ((vocab as f64).log2() / 8.) as usize + 1;
    let bytes: Vec<u8> = tokens
        .flat_map(|token| token.to_le_bytes().into_iter().take(width))
        .collect();
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    let packed = encoder.write_all(&bytes).and_then(|()| encoder.finish());
    let packed =
        packed.map_err(|error| Error::bug("tokens cannot be compressed").because(error))?;
    Ok(bytes.len() as f32 / packed.len().max(1) as f32)
}
