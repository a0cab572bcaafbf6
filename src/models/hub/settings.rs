//! The environment variables that huggingface_hub reads, read as it reads them: where its cache and
//! its token are, which hub is asked, and whether it may be.

use std::fmt;
use std::path::{Path, PathBuf};

use super::HubCache;
use crate::error::{Error, Result};

const HUB: &str = "https://huggingface.co";

/// Where models come from and where they are kept.
#[derive(Clone)]
pub struct HubSettings {
    /// `HF_HUB_CACHE`, else `hub` in `HF_HOME`, else `~/.cache/huggingface/hub`.
    pub cache: HubCache,
    /// `HF_ENDPOINT`: the hub's base URL, without a slash at its end.
    pub endpoint: String,
    /// `HF_HUB_OFFLINE`: whether the hub is never asked.
    pub offline: bool,
    /// `HF_TOKEN_PATH`, else `token` in `HF_HOME`.
    pub token_file: PathBuf,
    /// `HF_TOKEN`, which wins over the file.
    token: Option<String>,
}

impl HubSettings {
    /// Reads the environment, which `variable` looks names up in.
    ///
    /// # Errors
    /// Config, where it names no home folder.
    pub fn of(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let place = |name: &str| set(name).map(|text| PathBuf::from(expanded(&text, &set)));
        let default = || {
            Some(
                place("XDG_CACHE_HOME")
                    .or_else(|| Some(place("HOME")?.join(".cache")))?
                    .join("huggingface"),
            )
        };
        let home = place("HF_HOME").or_else(default);
        let home = home.ok_or_else(|| {
            Error::config("there is no home folder for models from a hub")
                .hint("set HF_HOME or HOME")
        })?;
        let cache = place("HF_HUB_CACHE")
            .or_else(|| place("HUGGINGFACE_HUB_CACHE"))
            .unwrap_or_else(|| home.join("hub"));
        let yes =
            |value: String| matches!(&*value.to_ascii_uppercase(), "1" | "ON" | "YES" | "TRUE");
        Ok(Self {
            cache: HubCache::at(cache),
            endpoint: set("HF_ENDPOINT")
                .unwrap_or_else(|| HUB.to_owned())
                .trim_end_matches('/')
                .to_owned(),
            offline: set("HF_HUB_OFFLINE")
                .or_else(|| set("TRANSFORMERS_OFFLINE"))
                .is_some_and(yes),
            token_file: place("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token")),
            token: set("HF_TOKEN").or_else(|| set("HUGGING_FACE_HUB_TOKEN")),
        })
    }

    /// The token for private and gated models, from the environment or its file; none where there
    /// is neither.
    ///
    /// # Errors
    /// Config, where the file cannot be read, or what is there cannot be a token.
    pub fn token(&self) -> Result<Option<String>> {
        let (token, place) = match &self.token {
            Some(token) => (token.clone(), Path::new("HF_TOKEN")),
            None => match std::fs::read_to_string(&self.token_file) {
                Ok(text) => (text, &*self.token_file),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(error) => {
                    return Err(Error::config(format!(
                        "cannot read the hub's token from {}",
                        self.token_file.display()
                    ))
                    .because(error));
                }
            },
        };
        let token = token.trim();
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(
                Error::config(format!("what {} holds is not a token", place.display()))
                    .hint("a token is one word, like hf_..."),
            );
        }
        Ok(Some(token.to_owned()).filter(|token| !token.is_empty()))
    }
}

impl fmt::Debug for HubSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubSettings")
            .field("cache", &self.cache)
            .field("endpoint", &self.endpoint)
            .field("offline", &self.offline)
            .field("token_file", &self.token_file)
            .field("token", &self.token.as_ref().map(|_| "(redacted)"))
            .finish()
    }
}

/// A path with a leading `~` and every `$NAME` and `${NAME}` filled in; what is not set stays as it
/// is.
fn expanded(text: &str, variable: &impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    if let (Some(behind), Some(home)) = (
        text.strip_prefix('~')
            .filter(|behind| behind.is_empty() || behind.starts_with('/')),
        variable("HOME"),
    ) {
        out.push_str(&home);
        rest = behind;
    }
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let behind = &rest[at + 1..];
        let braced = behind
            .strip_prefix('{')
            .and_then(|inside| inside.split_once('}'));
        let bare = behind
            .find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
            .unwrap_or(behind.len());
        let (name, length) =
            braced.map_or((&behind[..bare], bare), |(name, _)| (name, name.len() + 2));
        match variable(name) {
            Some(value) => out.push_str(&value),
            None => out.push_str(&rest[at..=at + length]),
        }
        rest = &behind[length..];
    }
    out + rest
}
