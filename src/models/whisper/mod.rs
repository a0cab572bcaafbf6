//! Whisper, speech to text: Radford et al., "Robust Speech Recognition via Large-Scale Weak
//! Supervision" (arXiv:2212.04356). A window of at most 30 s becomes segments with their times, and
//! words with theirs, as transformers' `WhisperForConditionalGeneration.generate` has them.

mod alignment;
mod capabilities;
mod config;
mod decode;
mod decoded_pass;
mod decoder;
mod encoder;
mod logits_processor;
mod mel;
mod model;
mod network;
mod passes;
mod segments;
#[cfg(test)]
pub(in crate::models) mod tests;
mod transcription;
mod words;

pub use capabilities::Capabilities;
pub use config::{SAMPLE_RATE, SpecialTokens, WhisperConfig};
pub use model::Whisper;
pub use transcription::{
    Segment, Task, Transcription, TranscriptionOptions, TranscriptionRequest, Word,
};

use crate::models::network_spec::{Load, NetworkSpec, NetworkTask};

/// Its entry in the table of networks.
pub const NETWORK: NetworkSpec = NetworkSpec {
    classes: &[(capabilities::CLASS, NetworkTask::Transcribe)],
    load: Load::Checked(|folder, device, precision| {
        Whisper::load(folder, device, precision).map(drop)
    }),
};
