//! Tokens to text while they come, so that stop sequences are seen as soon as they are written.

use super::tokenizer::Tokenizer;
use crate::error::Result;

/// Text that grows token by token, so that what it says can be looked at while it is written.
#[derive(Debug, Default)]
pub struct IncrementalDetokenizer {
    text: String,
    /// Tokens from here on are decoded again with each new one: a word's start may depend on the
    /// token before it.
    from: usize,
    /// Tokens up to here are in `text`.
    to: usize,
}

impl IncrementalDetokenizer {
    /// What is written, now that `tokens` are all there are.
    ///
    /// # Errors
    /// As for [`Tokenizer::decode`].
    pub fn read(&mut self, tokenizer: &Tokenizer, tokens: &[u32]) -> Result<&mut String> {
        let before = tokenizer.decode_lossy(&tokens[self.from..self.to])?;
        let after = tokenizer.decode_lossy(&tokens[self.from..])?;
        if after.len() > before.len() && !after.ends_with(char::REPLACEMENT_CHARACTER) {
            self.text
                .push_str(after.get(before.len()..).unwrap_or_default());
            (self.from, self.to) = (self.to, tokens.len());
        }
        Ok(&mut self.text)
    }
}
