//! A language model as a whole: a decoder that writes text from text, with its tokenizer.

use super::generation_config::{Generation, GenerationConfig};
use super::language_model::LanguageModel;
use super::text_generator::{GenerationJob, TextGenerator};
use super::token_ids::token_ids;
use super::tokenizer::Tokenizer;
use crate::error::Result;
use crate::models::ModelFolder;
use crate::models::config::Config;

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
    pub(super) network: Box<dyn LanguageModel>,
    pub(super) writer: TextGenerator,
}

impl CausalLm {
    /// Reads a model folder: tokenizer, by `network` its network, and where they are there
    /// generation_config.json and the chat template.
    ///
    /// # Errors
    /// Config, where the folder lacks a file or is another network's; model, where a file is not
    /// what it should be; external, where one cannot be read; overload, where memory is short.
    pub fn load(
        folder: &ModelFolder,
        network: impl FnOnce(&ModelFolder) -> Result<Box<dyn LanguageModel>>,
    ) -> Result<Self> {
        let tokenizer = Tokenizer::load(folder)?;
        let network = network(folder)?;
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
        self.network.write(&self.writer, &jobs, cancelled)
    }

    fn encode(&self, request: &TextRequest) -> Result<Vec<u32>> {
        request.writing.check()?;
        let tokens = self
            .tokenizer()
            .encode_chat(request.system.as_deref(), &request.prompt)?;
        self.network.check(&self.writer, &tokens)?;
        Ok(tokens)
    }
}
