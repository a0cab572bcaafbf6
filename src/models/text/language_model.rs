//! A network that writes text from text, whichever it is.

use std::fmt::Debug;

use super::generation_config::Generation;
use super::text_generator::{GenerationJob, TextGenerator};
use crate::error::Result;
use crate::models::decoder::Decoder;

/// A network that writes text from text. Every `Decoder` is one; its cache stays its own affair,
/// so that a table can name networks whose caches differ.
pub trait LanguageModel: Debug {
    /// Refuses a prompt that [`write`](Self::write) would fail on.
    ///
    /// # Errors
    /// As for [`TextGenerator::check`].
    fn check(&self, writer: &TextGenerator, prompt: &[u32]) -> Result<()>;

    /// As [`TextGenerator::write`] over this network.
    ///
    /// # Errors
    /// As for [`TextGenerator::write`].
    fn write(
        &self,
        writer: &TextGenerator,
        jobs: &[GenerationJob<'_>],
        cancelled: &dyn Fn(usize) -> bool,
    ) -> Result<Vec<Vec<Generation>>>;
}

impl<D: Decoder + Debug> LanguageModel for D {
    fn check(&self, writer: &TextGenerator, prompt: &[u32]) -> Result<()> {
        writer.check(prompt, self.vocabulary(), self.positions())
    }

    fn write(
        &self,
        writer: &TextGenerator,
        jobs: &[GenerationJob<'_>],
        cancelled: &dyn Fn(usize) -> bool,
    ) -> Result<Vec<Vec<Generation>>> {
        writer.write(self, jobs, cancelled)
    }
}
