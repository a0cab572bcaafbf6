//! The shape of a Llama-family decoder, as its config.json gives it, and the angles of its rotary
//! positions. Defaults are those of transformers' `LlamaConfig`, `MistralConfig`, `Qwen2Config` and
//! `Qwen3Config`.

use crate::error::{Error, Result};
use crate::models::config::Config;
use serde::Deserialize;
use serde_json::Value;

/// The members of the family, which differ in where biases are and what is left out of config.json.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelType {
    /// `LlamaForCausalLM`: biases where config.json asks for them.
    Llama,
    /// `MistralForCausalLM`: no biases, positions that see a window of those before them.
    Mistral,
    /// `Qwen2ForCausalLM`: biases for queries, keys and values.
    Qwen2,
    /// `Qwen3ForCausalLM`: each head of queries and keys normed.
    Qwen3,
}

/// What config.json says of a Llama-family decoder.
#[derive(Debug, Clone)]
pub struct LlamaConfig {
    /// Numbers a position.
    pub hidden_size: i64,
    /// Numbers inside the feed-forward block.
    pub intermediate_size: i64,
    /// Layers.
    pub num_hidden_layers: i64,
    /// Query heads.
    pub num_attention_heads: i64,
    /// Key and value heads; every query head of a group reads the same one.
    pub num_key_value_heads: i64,
    /// Numbers a head.
    pub head_dim: i64,
    /// Rows of the embedding table.
    pub vocab_size: i64,
    /// Added to the mean square before its root.
    pub rms_norm_eps: f64,
    /// Longest sequence the model was made for, and not longer than a position sees.
    pub max_position_embeddings: i64,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether attention's output has one.
    pub out_bias: bool,
    /// Whether the feed-forward block has biases.
    pub mlp_bias: bool,
    /// Whether each head of queries and keys is normed.
    pub head_norm: bool,
    /// Whether the output layer is the embedding table.
    pub tie_word_embeddings: bool,
    rope_theta: f64,
    scaling: Option<Scaling>,
}

#[derive(Debug, Clone, Deserialize)]
struct Scaling {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
}

impl LlamaConfig {
    /// Reads config.json and refuses what [`super::Llama`] would compute wrongly.
    ///
    /// # Errors
    /// Model, naming the field.
    pub fn read(json: &Config, model_type: ModelType) -> Result<Self> {
        let hidden_size = json.integer("hidden_size")?;
        let num_attention_heads = json.integer("num_attention_heads")?;
        let (scaling, rope_theta) = read_rope(json)?;
        let plain_head = hidden_size / num_attention_heads.max(1);
        let (kv_heads, head_dim, positions) = match model_type {
            ModelType::Llama => (num_attention_heads, plain_head, 2048),
            ModelType::Mistral => (8, plain_head, 131_072),
            ModelType::Qwen2 => (32, plain_head, 32_768),
            ModelType::Qwen3 => (32, 128, 32_768),
        };
        // Left out and null are not the same.
        let kv_heads = if json.is_null("num_key_value_heads") {
            num_attention_heads
        } else {
            kv_heads
        };
        let attention_bias = matches!(model_type, ModelType::Llama | ModelType::Qwen3)
            && json.boolean_or("attention_bias", false)?;
        let config = Self {
            hidden_size,
            intermediate_size: json.integer("intermediate_size")?,
            num_hidden_layers: json.integer("num_hidden_layers")?,
            num_attention_heads,
            num_key_value_heads: json.integer_or("num_key_value_heads", kv_heads)?,
            head_dim: json.integer_or("head_dim", head_dim)?,
            vocab_size: json.integer("vocab_size")?,
            rms_norm_eps: json.number_or("rms_norm_eps", 1e-6)?,
            max_position_embeddings: json
                .integer_or("max_position_embeddings", positions)?
                .min(read_window(json, model_type)?),
            qkv_bias: attention_bias || model_type == ModelType::Qwen2,
            out_bias: attention_bias,
            mlp_bias: model_type == ModelType::Llama && json.boolean_or("mlp_bias", false)?,
            head_norm: model_type == ModelType::Qwen3,
            tie_word_embeddings: json.boolean_or("tie_word_embeddings", false)?,
            rope_theta,
            scaling,
        };
        config
            .check()
            .map_err(|error| json.error(error.message()))?;
        match json.string_or("hidden_act", "silu")? {
            "silu" => Ok(config),
            act => Err(json.error(format_args!(
                "hidden_act {act} is not supported, only silu is"
            ))),
        }
    }

    fn check(&self) -> Result<()> {
        let sizes = [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        if let Some((key, size)) = sizes.iter().find(|(_, size)| !(1..=1 << 24).contains(size)) {
            return Err(Error::model(format!("{key} is {size}")));
        }
        if self.num_attention_heads % self.num_key_value_heads != 0 {
            let (q, kv) = (self.num_attention_heads, self.num_key_value_heads);
            return Err(Error::model(format!(
                "{q} query heads cannot share {kv} key heads evenly"
            )));
        }
        if self.head_dim % 2 != 0 {
            return Err(Error::model(format!(
                "head_dim {} is odd, rotary positions need pairs",
                self.head_dim
            )));
        }
        self.frequencies().map(drop)
    }

    /// Query heads that share one key head.
    pub fn group(&self) -> i64 {
        self.num_attention_heads / self.num_key_value_heads
    }

    /// Query, key and value heads together: what one position's fused projection yields.
    pub fn heads(&self) -> i64 {
        self.num_attention_heads + 2 * self.num_key_value_heads
    }

    /// Radians a position, one a pair of numbers of a head.
    pub fn frequencies(&self) -> Result<Vec<f32>> {
        let pairs = self.head_dim / 2;
        let plain = (0..pairs)
            .map(|i| 1.0 / (self.rope_theta as f32).powf((2 * i) as f32 / self.head_dim as f32));
        let Some(scaling) = &self.scaling else {
            return Ok(plain.collect());
        };
        match scaling.rope_type.as_deref().unwrap_or("default") {
            "default" => Ok(plain.collect()),
            "linear" => {
                let factor = scaling.need(scaling.factor, "factor")? as f32;
                Ok(plain.map(|f| f / factor).collect())
            }
            "llama3" => {
                let stretch = scaling.llama3()?;
                Ok(plain.map(stretch).collect())
            }
            other => Err(
                Error::model(format!("rope_scaling {other} is not supported"))
                    .hint("default, linear and llama3 are"),
            ),
        }
    }
}

/// The scaling of rotary positions, where there is one, and the base of their angles. Older files
/// have them in `rope_scaling` and `rope_theta`, newer ones both in `rope_parameters`.
fn read_rope(json: &Config) -> Result<(Option<Scaling>, f64)> {
    let scaling = json
        .field("rope_parameters")
        .or_else(|| json.field("rope_scaling"))
        .map(|value: &Value| {
            serde_json::from_value::<Scaling>(value.clone()).map_err(|e| {
                json.error("the scaling of rotary positions is malformed")
                    .because(e)
            })
        });
    let scaling = scaling.transpose()?;
    let theta = match scaling.as_ref().and_then(|s| s.rope_theta) {
        Some(theta) => theta,
        None => json.number_or("rope_theta", 10_000.0)?,
    };
    Ok((scaling, theta))
}

/// Positions within one sliding window, where nothing slides out of sight.
fn read_window(json: &Config, model_type: ModelType) -> Result<i64> {
    let slides = match model_type {
        ModelType::Llama => false,
        ModelType::Mistral => !json.is_null("sliding_window"),
        ModelType::Qwen2 | ModelType::Qwen3 => json.boolean_or("use_sliding_window", false)?,
    };
    if slides {
        json.integer_or("sliding_window", 4096)
    } else {
        Ok(i64::MAX)
    }
}

impl Scaling {
    fn need(&self, value: Option<f64>, key: &str) -> Result<f64> {
        value
            .filter(|v| v.is_finite() && *v > 0.0)
            .ok_or_else(|| Error::model(format!("rope_scaling needs a positive {key}")))
    }

    /// Slow rotations are stretched by `factor`, fast ones kept, those between blended.
    fn llama3(&self) -> Result<impl Fn(f32) -> f32> {
        let factor = self.need(self.factor, "factor")? as f32;
        let low = self.need(self.low_freq_factor, "low_freq_factor")? as f32;
        let high = self.need(self.high_freq_factor, "high_freq_factor")? as f32;
        let trained = self.need(
            self.original_max_position_embeddings,
            "original_max_position_embeddings",
        )? as f32;
        Ok(move |frequency: f32| {
            let wavelength = 2.0 * std::f32::consts::PI / frequency;
            if wavelength > trained / low {
                frequency / factor
            } else if wavelength < trained / high {
                frequency
            } else {
                let blend = (trained / wavelength - low) / (high - low);
                (1.0 - blend) * frequency / factor + blend * frequency
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn base() -> Value {
        json!({"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100})
    }

    fn with(key: &str, value: Value) -> Value {
        let mut json = base();
        json[key] = value;
        json
    }

    fn read(json: Value) -> Result<LlamaConfig> {
        LlamaConfig::read(&Config::of(json), ModelType::Llama)
    }

    #[test]
    fn absent_keys_take_the_family_defaults() {
        let config = read(base()).unwrap();
        assert_eq!(
            (
                config.num_key_value_heads,
                config.head_dim,
                config.group(),
                config.heads()
            ),
            (4, 16, 1, 12)
        );
        assert_eq!(config.frequencies().unwrap()[0], 1.0);
    }

    #[test]
    fn sequences_end_where_something_would_slide_out_of_sight() {
        for (model_type, keys, positions) in [
            (ModelType::Mistral, json!({}), 4096),
            (ModelType::Mistral, json!({"sliding_window": 512}), 512),
            (ModelType::Mistral, json!({"sliding_window": null}), 131_072),
            (ModelType::Qwen2, json!({"sliding_window": 512}), 32_768),
            (
                ModelType::Qwen2,
                json!({"sliding_window": 512, "use_sliding_window": true}),
                512,
            ),
            (ModelType::Llama, json!({"sliding_window": 512}), 2048),
        ] {
            let mut all = with("num_key_value_heads", Value::Null);
            all.as_object_mut()
                .unwrap()
                .extend(keys.as_object().unwrap().clone());
            let config = LlamaConfig::read(&Config::of(all), model_type).unwrap();
            assert_eq!(
                (config.max_position_embeddings, config.num_key_value_heads),
                (positions, 4),
                "{model_type:?} {keys}"
            );
        }
    }

    #[test]
    fn what_would_be_computed_wrongly_is_refused() {
        for (key, value, word) in [
            ("num_key_value_heads", json!(3), "evenly"),
            ("hidden_act", json!("gelu"), "gelu"),
            ("attention_bias", json!("yes"), "attention_bias"),
            ("head_dim", json!(7), "odd"),
            ("hidden_size", json!(-1), "`hidden_size` must be"),
            (
                "rope_scaling",
                json!({"rope_type": "yarn", "factor": 4.0}),
                "yarn",
            ),
            (
                "rope_scaling",
                json!({"rope_type": "llama3", "factor": 4.0}),
                "low_freq_factor",
            ),
        ] {
            let error = read(with(key, value)).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn llama3_stretches_slow_rotations_only() {
        let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64});
        let plain = read(with("head_dim", json!(16)))
            .unwrap()
            .frequencies()
            .unwrap();
        let scaled = read(with("rope_scaling", scaling))
            .unwrap()
            .frequencies()
            .unwrap();
        assert_eq!(scaled[0], plain[0]);
        assert_eq!(scaled[7], plain[7] / 8.0);
        assert!(
            scaled
                .iter()
                .zip(&plain)
                .any(|(s, p)| s < p && *s > p / 8.0)
        );
    }
}
