//! What a Whisper folder says of its network (config.json) and of its tokens
//! (generation_config.json).

use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::models::config::Config;
use crate::models::layers::Activation;

/// Samples a second.
pub const SAMPLE_RATE: usize = 16_000;
/// Samples from one frame of the spectrogram to the next.
pub const HOP: usize = 160;
/// Frames a position of the encoder stands for.
pub const STRIDE: usize = 2;
/// Seconds from one frame to the next.
pub const FRAME_SECONDS: f64 = HOP as f64 / SAMPLE_RATE as f64;
/// Seconds from one timestamp to the next.
pub const TIMESTAMP_SECONDS: f64 = (HOP * STRIDE) as f64 / SAMPLE_RATE as f64;

/// The sizes of the network.
#[derive(Debug, Clone)]
pub struct WhisperConfig {
    /// Bands of the spectrogram: 80, or 128 since large-v3.
    pub num_mel_bins: i64,
    /// Width.
    pub d_model: i64,
    /// Layers of the encoder.
    pub encoder_layers: i64,
    /// Heads of its attention.
    pub encoder_attention_heads: i64,
    /// Width inside its feed-forward blocks.
    pub encoder_ffn_dim: i64,
    /// Layers of the decoder.
    pub decoder_layers: i64,
    /// Heads of its attention.
    pub decoder_attention_heads: i64,
    /// Width inside its feed-forward blocks.
    pub decoder_ffn_dim: i64,
    /// Positions of the encoder; 1500 for 30 s.
    pub max_source_positions: i64,
    /// Tokens that the decoder reads and writes at most, together.
    pub max_target_positions: i64,
    /// Tokens.
    pub vocab_size: i64,
    /// Width of the filter that smooths the attention before words are aligned.
    pub median_filter_width: usize,
    /// Between the layers of a feed-forward block.
    pub activation: Activation,
}

impl WhisperConfig {
    /// Reads config.json.
    ///
    /// # Errors
    /// Model, naming the field.
    pub fn read(json: &Config) -> Result<Self> {
        let config = Self {
            num_mel_bins: json.integer("num_mel_bins")?,
            d_model: json.integer("d_model")?,
            encoder_layers: json.integer("encoder_layers")?,
            encoder_attention_heads: json.integer("encoder_attention_heads")?,
            encoder_ffn_dim: json.integer("encoder_ffn_dim")?,
            decoder_layers: json.integer("decoder_layers")?,
            decoder_attention_heads: json.integer("decoder_attention_heads")?,
            decoder_ffn_dim: json.integer("decoder_ffn_dim")?,
            max_source_positions: json.integer("max_source_positions")?,
            max_target_positions: json.integer("max_target_positions")?,
            vocab_size: json.integer("vocab_size")?,
            median_filter_width: json.integer_or("median_filter_width", 7)? as usize,
            activation: Activation::read(json, "activation_function", "gelu")?,
        };
        config
            .check()
            .map_err(|error| json.error(error.message()))?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        let sizes = [
            ("num_mel_bins", self.num_mel_bins),
            ("d_model", self.d_model),
            ("encoder_layers", self.encoder_layers),
            ("encoder_attention_heads", self.encoder_attention_heads),
            ("encoder_ffn_dim", self.encoder_ffn_dim),
            ("decoder_layers", self.decoder_layers),
            ("decoder_attention_heads", self.decoder_attention_heads),
            ("decoder_ffn_dim", self.decoder_ffn_dim),
            ("max_source_positions", self.max_source_positions),
            ("max_target_positions", self.max_target_positions),
            ("vocab_size", self.vocab_size),
        ];
        if let Some((key, size)) = sizes.iter().find(|(_, size)| !(1..=1 << 20).contains(size)) {
            return Err(Error::model(format!("`{key}` is {size}")));
        }
        for heads in [self.encoder_attention_heads, self.decoder_attention_heads] {
            if self.d_model % heads != 0 {
                return Err(Error::model(format!(
                    "{heads} heads cannot share a width of {} evenly",
                    self.d_model
                )));
            }
        }
        if self.median_filter_width.is_multiple_of(2) {
            return Err(Error::model(format!(
                "`median_filter_width` must be odd, it is {}",
                self.median_filter_width
            )));
        }
        Ok(())
    }

    /// Frames of a window's spectrogram: 3000 for 30 s.
    pub fn frames(&self) -> usize {
        self.max_source_positions as usize * STRIDE
    }

    /// Samples of the longest window: 480,000 for 30 s.
    pub fn samples(&self) -> usize {
        self.frames() * HOP
    }
}

/// The tokens that steer the decoder, and those that it must not write.
#[derive(Debug, Clone)]
pub struct SpecialTokens {
    /// Begins every text.
    pub start: u32,
    /// Ends every text.
    pub end: u32,
    /// Says that no timestamps follow; those come right after it, one for every 20 ms.
    pub no_timestamps: u32,
    /// Goes before the text that was written before, where the checkpoint says which token that is.
    pub previous: Option<u32>,
    /// Token of each language by its code; empty for a model of English only.
    pub languages: BTreeMap<String, u32>,
    /// Token of each task; empty for a model of English only.
    pub tasks: BTreeMap<String, u32>,
    /// Never written.
    pub suppressed: Vec<u32>,
    /// Not written first.
    pub suppressed_first: Vec<u32>,
    /// The latest first timestamp, counted from 0; none for any.
    pub latest_start: Option<u32>,
    /// The heads (layer, head) whose attention follows the sound; empty where the checkpoint does
    /// not say.
    pub alignment_heads: Vec<(usize, usize)>,
}

impl SpecialTokens {
    /// Reads generation_config.json and holds it against the network's sizes.
    ///
    /// # Errors
    /// Model, naming the field.
    pub fn read(json: &Config, config: &WhisperConfig) -> Result<Self> {
        let token = |key: &str| -> Result<u32> {
            u32::try_from(json.integer(key)?)
                .map_err(|_| json.error(format_args!("`{key}` is too large")))
        };
        let list = |key: &str| -> Result<Vec<u32>> {
            Ok(json
                .integers_or(key, &[])?
                .into_iter()
                .map(|id| id as u32)
                .collect())
        };
        let suppressed = list("suppress_tokens")?;
        let previous = match json.field("prev_sot_token_id") {
            Some(_) => Some(token("prev_sot_token_id")?),
            // Where it is not named, it is the last but one that is suppressed.
            None => suppressed.len().checked_sub(2).map(|at| suppressed[at]),
        };
        let latest_start = json
            .field("max_initial_timestamp_index")
            .map(|_| token("max_initial_timestamp_index"))
            .transpose()?;
        let multilingual = json.boolean_or("is_multilingual", true)?;
        let map = |key: &str| {
            if multilingual {
                tokens(json, key)
            } else {
                Ok(BTreeMap::new())
            }
        };
        let found = Self {
            start: token("decoder_start_token_id")?,
            end: token("eos_token_id")?,
            no_timestamps: token("no_timestamps_token_id")?,
            previous,
            languages: map("lang_to_id")?,
            tasks: map("task_to_id")?,
            suppressed,
            suppressed_first: list("begin_suppress_tokens")?,
            latest_start,
            alignment_heads: heads(json)?,
        };
        found
            .check(config)
            .map_err(|error| json.error(error.message()))?;
        Ok(found)
    }

    fn check(&self, config: &WhisperConfig) -> Result<()> {
        let single = [self.start, self.end, self.no_timestamps];
        let listed = self
            .suppressed
            .iter()
            .chain(&self.suppressed_first)
            .chain(self.languages.values())
            .chain(self.tasks.values());
        if let Some(token) = single
            .iter()
            .chain(listed)
            .chain(&self.previous)
            .find(|token| i64::from(**token) >= config.vocab_size)
        {
            return Err(Error::model(format!(
                "token {token} is none of the network's {}",
                config.vocab_size
            )));
        }
        let timestamps = config.vocab_size - i64::from(self.first_timestamp());
        if timestamps <= config.max_source_positions {
            return Err(Error::model(format!(
                "{timestamps} timestamps do not reach the end of {} positions",
                config.max_source_positions
            )));
        }
        if self.end >= self.no_timestamps {
            return Err(Error::model(
                "`eos_token_id` must lie before `no_timestamps_token_id`",
            ));
        }
        let layers = (
            config.decoder_layers as usize,
            config.decoder_attention_heads as usize,
        );
        match self
            .alignment_heads
            .iter()
            .find(|(layer, head)| *layer >= layers.0 || *head >= layers.1)
        {
            Some(head) => Err(Error::model(format!(
                "`alignment_heads` names {head:?}, the decoder has {layers:?}"
            ))),
            None => Ok(()),
        }
    }

    /// The token of time 0.
    pub fn first_timestamp(&self) -> u32 {
        self.no_timestamps + 1
    }

    /// The token that says that nobody speaks.
    pub fn no_speech(&self) -> u32 {
        self.no_timestamps - 1
    }

    /// Whether it is one of the timestamps.
    pub fn is_timestamp(&self, token: u32) -> bool {
        token > self.no_timestamps
    }
}

/// An object of tokens whose keys may stand in `<|` and `|>`.
fn tokens(json: &Config, key: &str) -> Result<BTreeMap<String, u32>> {
    let Some(field) = json.field(key) else {
        return Ok(BTreeMap::new());
    };
    let read = |map: &serde_json::Map<String, Value>| -> Option<BTreeMap<String, u32>> {
        let code = |name: &str| {
            name.trim_start_matches("<|")
                .trim_end_matches("|>")
                .to_owned()
        };
        map.iter()
            .map(|(name, id)| Some((code(name), u32::try_from(id.as_u64()?).ok()?)))
            .collect()
    };
    field
        .as_object()
        .and_then(read)
        .ok_or_else(|| json.error(format_args!("`{key}` must be an object of tokens' numbers")))
}

fn heads(json: &Config) -> Result<Vec<(usize, usize)>> {
    let Some(field) = json.field("alignment_heads") else {
        return Ok(Vec::new());
    };
    let pair = |pair: &Value| match pair.as_array()?.as_slice() {
        [layer, head] => Some((
            usize::try_from(layer.as_u64()?).ok()?,
            usize::try_from(head.as_u64()?).ok()?,
        )),
        _ => None,
    };
    let read = field
        .as_array()
        .and_then(|list| list.iter().map(pair).collect());
    read.ok_or_else(|| json.error("`alignment_heads` must be a list of [layer, head]"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sizes() -> Value {
        json!({"num_mel_bins": 80, "d_model": 8, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 8,
            "decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 8, "max_source_positions": 10,
            "max_target_positions": 20, "vocab_size": 40})
    }

    fn words() -> Value {
        json!({"decoder_start_token_id": 21, "eos_token_id": 20, "no_timestamps_token_id": 28, "suppress_tokens": [1, 25, 26],
            "lang_to_id": {"<|en|>": 22, "<|de|>": 23}, "task_to_id": {"transcribe": 24}, "alignment_heads": [[1, 0]]})
    }

    #[test]
    fn tokens_come_from_where_checkpoints_have_them() {
        let config = WhisperConfig::read(&Config::of(sizes())).unwrap();
        let tokens = SpecialTokens::read(&Config::of(words()), &config).unwrap();
        assert_eq!(
            (
                tokens.first_timestamp(),
                tokens.no_speech(),
                tokens.previous
            ),
            (29, 27, Some(25))
        );
        assert_eq!(tokens.languages["de"], 23);
        assert_eq!(tokens.alignment_heads, [(1, 0)]);
        let mut english = words();
        english["is_multilingual"] = json!(false);
        assert!(
            SpecialTokens::read(&Config::of(english), &config)
                .unwrap()
                .languages
                .is_empty()
        );
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (key, value, word) in [
            ("d_model", json!(9), "evenly"),
            ("vocab_size", json!(0), "`vocab_size` is 0"),
            ("median_filter_width", json!(4), "odd"),
            ("activation_function", json!("tanh"), "tanh"),
        ] {
            let mut json = sizes();
            json[key] = value;
            let error = WhisperConfig::read(&Config::of(json))
                .unwrap_err()
                .to_string();
            assert!(error.contains(word), "{error}");
        }
        let config = WhisperConfig::read(&Config::of(sizes())).unwrap();
        for (key, value, word) in [
            ("alignment_heads", json!([[2, 0]]), "(2, 0)"),
            ("alignment_heads", json!([3]), "list of [layer, head]"),
            ("suppress_tokens", json!([40]), "token 40"),
            ("no_timestamps_token_id", json!(35), "4 timestamps"),
            ("lang_to_id", json!({"en": "x"}), "lang_to_id"),
        ] {
            let mut json = words();
            json[key] = value;
            let error = SpecialTokens::read(&Config::of(json), &config)
                .unwrap_err()
                .to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
