//! CLIP's tokenizer: byte pairs over lower-case words, between a token that begins the text and one
//! that ends it. Read from tokenizer.json, or from the vocab.json and merges.txt that most folders
//! on the hub have; transformers' `CLIPTokenizer` is the reference.

use std::path::Path;

use serde_json::{Value, json};
use tokenizers::{PaddingParams, PaddingStrategy, TruncationParams};

use crate::error::{Error, Result};
use crate::models::config::Config;

const BEGIN: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";

/// Tokens of a text where the folder does not say.
const LENGTH: i64 = 77;
/// Folders of tokenizers without a limit say a huge number.
const NO_LIMIT: i64 = 1 << 20;

/// What stands between words, and what is a word.
const WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// The tokenizer of a folder.
#[derive(Debug)]
pub struct ClipTokenizer {
    inner: tokenizers::Tokenizer,
    length: usize,
}

impl ClipTokenizer {
    /// Reads `folder`, which may be a part of a pipeline's.
    ///
    /// # Errors
    /// Config, where its files are not there; model, where one is not what it should be.
    pub fn load(folder: &Path) -> Result<Self> {
        let file = |name: &str| Some(folder.join(name)).filter(|path| path.is_file());
        let settings = file("tokenizer_config.json")
            .map(|path| Config::read(&path))
            .transpose()?;
        let special = file("special_tokens_map.json")
            .map(|path| Config::read(&path))
            .transpose()?;
        let named = |key: &str| {
            special
                .iter()
                .chain(&settings)
                .find_map(|config| config.field(key))
        };
        let broken =
            |what: String| Error::model(format!("the tokenizer in {} {what}", folder.display()));
        let inner = match (
            file("tokenizer.json"),
            file("vocab.json"),
            file("merges.txt"),
        ) {
            (Some(path), ..) => tokenizers::Tokenizer::from_file(path)
                .map_err(|error| broken(format!("cannot be read: {error}")))?,
            (None, Some(vocab), Some(merges)) => {
                let text = std::fs::read_to_string(&merges);
                let merges = text.map_err(|error| {
                    Error::external(format!("cannot read {}", merges.display())).because(error)
                })?;
                let whole = assemble(&Config::read(&vocab)?, &merges, &named)?;
                tokenizers::Tokenizer::from_bytes(whole.to_string())
                    .map_err(|error| broken(format!("cannot be made: {error}")))?
            }
            _ => {
                return Err(Error::config(format!(
                    "{} has no tokenizer.json, nor vocab.json and merges.txt",
                    folder.display()
                ))
                .hint(
                    "a text encoder's tokenizer lies beside it or in the pipeline's `tokenizer` \
                     folder",
                ));
            }
        };
        let length = settings.as_ref().map_or(Ok(LENGTH as f64), |settings| {
            settings.number_or("model_max_length", LENGTH as f64)
        })?;
        let length = if (3. ..NO_LIMIT as f64).contains(&length) {
            length as usize
        } else {
            LENGTH as usize
        };
        let pad_token = named("pad_token").and_then(content).unwrap_or(END);
        Self::cut(inner, length, pad_token.to_owned()).map_err(broken)
    }

    /// The tokenizer, with every text padded or cut to `length` tokens.
    fn cut(
        mut inner: tokenizers::Tokenizer,
        length: usize,
        pad_token: String,
    ) -> Result<Self, String> {
        let pad_id = inner
            .token_to_id(&pad_token)
            .ok_or_else(|| format!("does not know its own token {pad_token}"))?;
        let padding = PaddingParams {
            strategy: PaddingStrategy::Fixed(length),
            pad_id,
            pad_token,
            ..PaddingParams::default()
        };
        inner.with_padding(Some(padding));
        let truncation = TruncationParams {
            max_length: length,
            ..TruncationParams::default()
        };
        inner
            .with_truncation(Some(truncation))
            .map_err(|error| format!("cannot be cut to {length} tokens: {error}"))?;
        Ok(Self { inner, length })
    }

    /// Tokens of every text.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The tokens of a text, cut or filled up to [`length`](Self::length).
    ///
    /// # Errors
    /// Model, where the tokenizer refuses the text.
    pub fn tokens(&self, text: &str) -> Result<Vec<i64>> {
        let encoding = self.inner.encode_fast(text, true);
        let encoding = encoding.map_err(|error| {
            Error::model(format!(
                "cannot tokenize a text of {} bytes: {error}",
                text.len()
            ))
        })?;
        Ok(encoding
            .get_ids()
            .iter()
            .map(|&token| i64::from(token))
            .collect())
    }
}

/// A special token is a string, or an object with its string inside.
fn content(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// What transformers makes of vocab.json, merges.txt and the special tokens, as a tokenizer.json.
fn assemble<'a>(
    vocab: &Config,
    merges: &str,
    named: &dyn Fn(&str) -> Option<&'a Value>,
) -> Result<Value> {
    let id = |token: &str| {
        let id = vocab.field(token).and_then(Value::as_u64);
        id.ok_or_else(|| vocab.error(format_args!("the special token `{token}` is missing")))
    };
    let token = |key: &str, default: &'static str| named(key).and_then(content).unwrap_or(default);
    let (begin, end, unknown) = (
        token("bos_token", BEGIN),
        token("eos_token", END),
        token("unk_token", END),
    );
    let mut added: Vec<Value> = Vec::new();
    for key in ["bos_token", "eos_token", "unk_token", "pad_token"] {
        let Some(value) = named(key).filter(|value| content(value).is_some()) else {
            continue;
        };
        let text = content(value).unwrap_or_default();
        if added.iter().any(|other| other["content"] == text) {
            continue;
        }
        let flag = |flag: &str| value.get(flag).and_then(Value::as_bool).unwrap_or(false);
        added.push(json!({
            "id": id(text)?, "content": text, "special": true, "single_word": flag("single_word"), "lstrip": flag("lstrip"),
            "rstrip": flag("rstrip"), "normalized": flag("normalized"),
        }));
    }
    added.sort_by_key(|token| token["id"].as_u64());
    let merges: Vec<&str> = merges
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("#version"))
        .collect();
    let entries: serde_json::Map<String, Value> = vocab
        .fields()
        .map(|(token, id)| (token.to_owned(), id.clone()))
        .collect();
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": { "type": "Sequence", "normalizers": [
            { "type": "NFC" }, { "type": "Replace", "pattern": { "Regex": r"\s+" }, "content": " " }, { "type": "Lowercase" },
        ] },
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": WORDS }, "behavior": "Removed", "invert": true },
            { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        ] },
        "post_processor": {
            "type": "RobertaProcessing", "sep": [end, id(end)?], "cls": [begin, id(begin)?], "trim_offsets": false, "add_prefix_space": false,
        },
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": "", "end_of_word_suffix": "</w>",
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": entries, "merges": merges,
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::golden::{goldens, path};

    /// As PROMPTS and HARD of tests/golden/stable_diffusion.py.
    fn texts() -> Vec<String> {
        let hard = [
            "",
            &"the ".repeat(90),
            "don't <|endoftext|> éa\u{a0}\n b!",
            "日本",
        ]
        .map(str::to_owned);
        [
            "The cat and 2 dogs, in watercolour!",
            "a  bright STREET by night",
        ]
        .map(str::to_owned)
        .into_iter()
        .chain(hard)
        .collect()
    }

    #[test]
    fn tokens_are_those_of_transformers() {
        let golden = goldens("stable_diffusion.safetensors");
        for part in [
            "sd-tiny/tokenizer",
            "sdxl-tiny/tokenizer",
            "sdxl-tiny/tokenizer_2",
        ] {
            let tokenizer = ClipTokenizer::load(&path("tests/golden").join(part)).unwrap();
            let expected = Vec::<Vec<i64>>::try_from(&golden[&part.replace('/', ".")]).unwrap();
            assert_eq!(expected.len(), texts().len());
            for (text, expected) in texts().iter().zip(expected) {
                assert_eq!(
                    tokenizer.tokens(text).unwrap(),
                    expected,
                    "{part}: {text:?}"
                );
            }
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let open = || ClipTokenizer::load(folder.path()).unwrap_err();
        assert!(open().message().contains("merges.txt"));
        std::fs::write(folder.path().join("merges.txt"), "a b\n").unwrap();
        std::fs::write(
            folder.path().join("vocab.json"),
            r#"{"a": 0, "b": 1, "ab": 2}"#,
        )
        .unwrap();
        assert!(
            open().message().contains(END) || open().message().contains(BEGIN),
            "{}",
            open()
        );
    }
}
