//! Text to tokens and back: tokenizer.json, with the special tokens and the chat template that lie
//! beside it.

use super::template::{Message, Template};
use crate::error::{Error, Result};
use crate::models::ModelFolder;
use crate::models::config::Config;
use serde_json::Value;
use std::path::Path;
use tokenizers::{PostProcessor, TruncationDirection};

/// A model's tokenizer.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    template: Option<Template>,
    eos: Option<String>,
    pad: Option<String>,
}

impl Tokenizer {
    /// Reads tokenizer.json, and tokenizer_config.json and chat_template.jinja where they are
    /// there.
    ///
    /// # Errors
    /// Config, where tokenizer.json is missing; model, where a file is not what it should be.
    pub fn load(folder: &ModelFolder) -> Result<Self> {
        let place = folder.path().display();
        let path = folder.file("tokenizer.json").ok_or_else(|| {
            Error::config(format!("{place} has no tokenizer.json"))
                .hint("a text model's folder needs its tokenizer in Hugging Face's fast format")
        })?;
        let mut inner = tokenizers::Tokenizer::from_file(&path)
            .map_err(|e| Error::model(format!("{} is not a tokenizer: {e}", path.display())))?;
        // Files often carry the padding and truncation of their training.
        inner.with_padding(None);
        inner
            .with_truncation(None)
            .map_err(|e| Error::model(format!("{}: {e}", path.display())))?;
        let config = folder
            .file("tokenizer_config.json")
            .map(|path| Config::read(&path))
            .transpose()?;
        let field = |key: &str| config.as_ref().and_then(|config| config.field(key));
        let special = |key: &str| field(key).and_then(special_token);
        let source = match folder.file("chat_template.jinja") {
            Some(path) => Some(read(&path)?),
            None => field("chat_template").and_then(default_template),
        };
        let (bos, eos) = (special("bos_token"), special("eos_token"));
        let template = source
            .map(|s| {
                Template::build(
                    &s,
                    bos.as_deref().unwrap_or(""),
                    eos.as_deref().unwrap_or(""),
                )
            })
            .transpose();
        let template = template.map_err(|error| error.context(place))?;
        Ok(Self {
            inner,
            template,
            eos,
            pad: special("pad_token"),
        })
    }

    /// The tokens of a text, special tokens in it understood, none added.
    ///
    /// # Errors
    /// Model, where the tokenizer refuses the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.tokens(text, false)
    }

    /// The tokens of a text with the special tokens that stand around it, at most `limit` of them:
    /// of a text that is too long the end is left off, of the special tokens none.
    ///
    /// # Errors
    /// Model, where the tokenizer refuses the text, or its special tokens alone are more.
    pub fn encode_within(&self, text: &str, limit: usize) -> Result<Vec<u32>> {
        let refused = |e| {
            Error::model(format!(
                "cannot tokenize a text of {} bytes: {e}",
                text.len()
            ))
        };
        let special = self
            .inner
            .get_post_processor()
            .map_or(0, |processor| processor.added_tokens(false));
        let room = limit.checked_sub(special).ok_or_else(|| {
            Error::model(format!("{special} special tokens do not fit into {limit}"))
        })?;
        let mut encoding = self.inner.encode_fast(text, false).map_err(refused)?;
        encoding.truncate(room, 0, TruncationDirection::Right);
        Ok(self
            .inner
            .post_process(encoding, None, true)
            .map_err(refused)?
            .get_ids()
            .to_vec())
    }

    /// The tokens of what the model reads to answer `prompt`.
    ///
    /// # Errors
    /// Model, where the chat template or the tokenizer refuses it.
    pub fn encode_chat(&self, system: Option<&str>, prompt: &str) -> Result<Vec<u32>> {
        match &self.template {
            Some(_) => self.encode(&self.render(system, prompt)?),
            None => self.tokens(&self.render(system, prompt)?, true),
        }
    }

    /// What the model reads to answer `prompt`: by the chat template, or as it is where there is
    /// none.
    ///
    /// # Errors
    /// Model, where the chat template refuses it.
    pub fn render(&self, system: Option<&str>, prompt: &str) -> Result<String> {
        let Some(template) = &self.template else {
            return Ok(system.map_or_else(
                || prompt.to_owned(),
                |system| format!("{system}\n\n{prompt}"),
            ));
        };
        let user = Message {
            role: "user",
            content: prompt,
        };
        match system {
            Some(content) => template.render(&[
                Message {
                    role: "system",
                    content,
                },
                user,
            ]),
            None => template.render(&[user]),
        }
    }

    /// The text of tokens, without special ones. A character whose bytes are not all there yet is
    /// left off.
    ///
    /// # Errors
    /// Model, where a token is unknown to the tokenizer's decoder.
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        let mut text = self.decode_lossy(tokens)?;
        text.truncate(text.trim_end_matches(char::REPLACEMENT_CHARACTER).len());
        Ok(text)
    }

    /// The text of tokens, without special ones, with a replacement character for bytes that are
    /// none.
    ///
    /// # Errors
    /// As for [`decode`](Self::decode).
    pub fn decode_lossy(&self, tokens: &[u32]) -> Result<String> {
        self.inner
            .decode(tokens, true)
            .map_err(|e| Error::model(format!("cannot decode tokens: {e}")))
    }

    fn tokens(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, special).map_err(|e| {
            Error::model(format!(
                "cannot tokenize a text of {} bytes: {e}",
                text.len()
            ))
        })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The number of a token, where there is one of this text.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token that tokenizer_config.json says ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.eos.as_deref().and_then(|token| self.id(token))
    }

    /// The token that tokenizer_config.json fills short texts up with.
    pub fn pad(&self) -> Option<u32> {
        self.pad.as_deref().and_then(|token| self.id(token))
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path)
        .map_err(|e| Error::external(format!("cannot read {}", path.display())).because(e))
}

/// A special token is a string, or an object with its string inside.
fn special_token(value: &Value) -> Option<String> {
    value
        .as_str()
        .or_else(|| value.get("content")?.as_str())
        .map(str::to_owned)
}

/// A chat template is a string, or a list of named ones.
fn default_template(value: &Value) -> Option<String> {
    let named = || value.as_array()?.iter().find(|t| t["name"] == "default")?["template"].as_str();
    value.as_str().or_else(named).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn special_tokens_and_templates_come_in_two_forms() {
        assert_eq!(special_token(&json!("</s>")).as_deref(), Some("</s>"));
        assert_eq!(
            special_token(&json!({"content": "</s>", "lstrip": false})).as_deref(),
            Some("</s>")
        );
        assert_eq!(
            default_template(
                &json!([{"name": "rag", "template": "R"}, {"name": "default", "template": "D"}])
            )
            .as_deref(),
            Some("D")
        );
        assert_eq!(default_template(&json!(["x"])), None);
    }
}
