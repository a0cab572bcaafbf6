//! A language model as a whole: a decoder that writes text from text, with its tokenizer.

use super::generation_config::{Generation, GenerationConfig};
use super::text_generator::{GenerationJob, TextGenerator};
use super::token_ids::token_ids;
use super::tokenizer::Tokenizer;
use crate::error::Result;
use crate::models::ModelFolder;
use crate::models::config::Config;
use crate::models::decoder::Decoder;
use crate::models::gpt2::Gpt2;
use crate::models::llama::Llama;
use crate::tensor::{Device, Precision};

/// A text that is asked for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TextRequest {
    /// What the user says.
    pub prompt: String,
    /// What the system says; the chat template may have words of its own where this is none.
    pub system: Option<String>,
    /// How the answer is written.
    pub writing: GenerationConfig,
}

/// A language model with its tokenizer.
#[derive(Debug)]
pub struct CausalLm {
    pub(super) network: Network,
    pub(super) writer: TextGenerator,
}

/// The networks that write text from text.
#[derive(Debug)]
pub(super) enum Network {
    Llama(Llama),
    Gpt2(Gpt2),
}

impl CausalLm {
    /// The architectures it reads.
    pub const ARCHITECTURES: [&str; 5] = [
        "LlamaForCausalLM",
        "MistralForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen3ForCausalLM",
        "GPT2LMHeadModel",
    ];

    /// Reads a model folder: config.json, weights, tokenizer, and where they are there
    /// generation_config.json and the chat template.
    ///
    /// # Errors
    /// Config, where the folder lacks a file or is another network's; model, where a file is not
    /// what it should be; external, where one cannot be read; overload, where memory is short.
    pub fn load(folder: &ModelFolder, device: Device, precision: Precision) -> Result<Self> {
        let tokenizer = Tokenizer::load(folder)?;
        let network = match folder.architecture()? {
            "GPT2LMHeadModel" => Network::Gpt2(Gpt2::load(folder, device, precision)?),
            _ => Network::Llama(Llama::load(folder, device, precision)?),
        };
        let ends = match folder.file("generation_config.json") {
            Some(path) => token_ids(&Config::read(&path)?, "eos_token_id")?,
            None => Vec::new(),
        };
        let ends = if ends.is_empty() {
            token_ids(folder.config(), "eos_token_id")?
        } else {
            ends
        };
        let ends = if ends.is_empty() {
            tokenizer.eos().into_iter().collect()
        } else {
            ends
        };
        Ok(Self {
            network,
            writer: TextGenerator::new(tokenizer, ends),
        })
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        self.writer.tokenizer()
    }

    /// Refuses a request that [`generate`](Self::generate) would fail on, with all those beside it.
    ///
    /// # Errors
    /// Config, where a parameter has no meaning; model, where the prompt is empty or too long for
    /// the model, or its chat template or tokenizer refuses it.
    pub fn check(&self, request: &TextRequest) -> Result<()> {
        self.encode(request).map(drop)
    }

    /// Writes the texts of every request, in their order, all in one batch: see
    /// [`TextGenerator::write`].
    ///
    /// # Errors
    /// As for [`check`](Self::check); overload, where memory is short: fewer requests at once may
    /// pass.
    pub fn generate(
        &self,
        requests: &[TextRequest],
        cancelled: &dyn Fn(usize) -> bool,
    ) -> Result<Vec<Vec<Generation>>> {
        let prompts = requests
            .iter()
            .map(|request| self.encode(request))
            .collect::<Result<Vec<_>>>()?;
        let jobs: Vec<GenerationJob<'_>> = requests
            .iter()
            .zip(&prompts)
            .map(|(request, prompt)| GenerationJob {
                prompt,
                begin: 0,
                writing: &request.writing,
            })
            .collect();
        match &self.network {
            Network::Llama(network) => self.writer.write(network, &jobs, cancelled),
            Network::Gpt2(network) => self.writer.write(network, &jobs, cancelled),
        }
    }

    fn encode(&self, request: &TextRequest) -> Result<Vec<u32>> {
        request.writing.check()?;
        let tokens = self
            .tokenizer()
            .encode_chat(request.system.as_deref(), &request.prompt)?;
        let (vocabulary, positions) = match &self.network {
            Network::Llama(network) => (network.vocabulary(), network.positions()),
            Network::Gpt2(network) => (network.vocabulary(), network.positions()),
        };
        self.writer.check(&tokens, vocabulary, positions)?;
        Ok(tokens)
    }
}
