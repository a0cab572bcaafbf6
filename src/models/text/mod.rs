//! Text from a language model: prompts in, texts out, many at once.

mod beam_search;
mod causal_lm;
mod detokenizer;
mod generate;
mod generation_config;
#[cfg(test)]
pub(super) mod golden;
mod language_model;
mod penalties;
mod sampled;
mod sampler;
mod template;
#[cfg(test)]
mod tests;
mod text_generator;
mod token_ids;
mod tokenizer;

pub use causal_lm::{CausalLm, TextRequest};
pub use generation_config::{
    BeamSearchConfig, EarlyStopping, Finish, Generation, GenerationConfig,
};
pub use language_model::LanguageModel;
pub use penalties::Penalties;
pub use sampler::{Sampler, SamplingConfig};
pub use template::{Message, Template};
pub use text_generator::{GenerationJob, TextGenerator};
pub use token_ids::token_ids;
pub use tokenizer::Tokenizer;
