//! CLIP's text tower: a causal transformer over tokens, whose state at the end of the text stands
//! for the whole. Stable Diffusion reads its hidden states, CLIP its projection.

use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::models::config::Config;
use crate::models::folder::ModelFolder;
use crate::models::layers::{Activation, Embedding, LayerNorm, Linear};
use crate::models::offload::tensors;
use crate::models::transformer::{LayerKeys, PreNormLayer, TransformerConfig, load_layers};
use crate::models::weights::{Scope, Weights};
use crate::tensor::Precision;

tensors!(ClipText {
    tokens,
    positions,
    layers,
    norm,
    projection
});

/// Configurations written before transformers 4.31 name this token as the end of a text, which it
/// never was.
const LEGACY_END: i64 = 2;

/// The tower's sizes; the default is ViT-B/32's.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipTextConfig {
    /// Its layers.
    pub tower: TransformerConfig,
    /// Tokens known.
    pub vocab_size: i64,
    /// Tokens of the longest text.
    pub positions: i64,
    /// Width of the projection, where there is one.
    pub projection: i64,
    /// The token that ends a text: its first place is pooled at. None for the highest number in the
    /// text, the rule of old configurations.
    pub end: Option<i64>,
}

impl Default for ClipTextConfig {
    fn default() -> Self {
        let tower = TransformerConfig {
            width: 512,
            heads: 8,
            layers: 12,
            intermediate: 2048,
            activation: Activation::QuickGelu,
            epsilon: 1e-5,
        };
        Self {
            tower,
            vocab_size: 49408,
            positions: 77,
            projection: 512,
            end: Some(49407),
        }
    }
}

impl ClipTextConfig {
    /// From the config.json of a text tower, or from the `text_config` of a whole model's: the
    /// fields of `TransformerConfig::read`, `vocab_size`, `max_position_embeddings`,
    /// `projection_dim` and `eos_token_id`; what is missing is the default's.
    ///
    /// # Errors
    /// Model, where a field is not what it must be.
    pub fn read(config: &Config) -> Result<Self> {
        let default = Self::default();
        let whole = config.field("text_config").is_some();
        // A whole model's projection is as wide as its pictures', and stands beside both towers.
        let projection = if whole {
            config.integer_or("projection_dim", default.projection)?
        } else {
            default.projection
        };
        let section = if whole {
            config.section("text_config")?
        } else {
            config.clone()
        };
        let end = section.integer_or("eos_token_id", default.end.unwrap_or(LEGACY_END))?;
        let read = Self {
            tower: TransformerConfig::read(&section, &default.tower, "quick_gelu")?,
            vocab_size: section.integer_or("vocab_size", default.vocab_size)?,
            positions: section.integer_or("max_position_embeddings", default.positions)?,
            projection: if whole {
                projection
            } else {
                section.integer_or("projection_dim", projection)?
            },
            end: (end != LEGACY_END).then_some(end),
        };
        if read.vocab_size == 0 || read.positions == 0 || read.projection == 0 {
            return Err(section.error(
                "`vocab_size`, `max_position_embeddings` and `projection_dim` must be above 0",
            ));
        }
        Ok(read)
    }
}

/// What the tower makes of texts; all in its precision.
#[derive(Debug)]
pub struct TextStates {
    /// `[n, t, width]` for each state that was asked for, in the order asked.
    pub hidden: Vec<Tensor>,
    /// `[n, t, width]`: the last layer's, through the final layer norm.
    pub last: Tensor,
    /// `[n, width]`: `last` at the end of each text.
    pub pooled: Tensor,
    /// `[n, projection]`: the text's vector, not of length 1; none where the checkpoint has no
    /// projection.
    pub projected: Option<Tensor>,
}

/// The tower with its weights.
#[derive(Debug)]
pub struct ClipText {
    tokens: Embedding,
    positions: Tensor,
    layers: Vec<PreNormLayer>,
    norm: LayerNorm,
    projection: Option<Linear>,
    config: ClipTextConfig,
    device: Device,
}

impl ClipText {
    /// The tower of a folder whose architecture is `CLIPTextModel` or
    /// `CLIPTextModelWithProjection`.
    ///
    /// # Errors
    /// Config, where the folder is another network's; model, where its config or weights do not
    /// fit.
    pub fn load(folder: &ModelFolder, device: Device, precision: Precision) -> Result<Self> {
        let projected = match folder.architecture()? {
            "CLIPTextModel" => false,
            _ => folder
                .expect("CLIPTextModelWithProjection")
                .map(|()| true)?,
        };
        Self::build(
            folder.weights(device, precision)?,
            &ClipTextConfig::read(folder.config())?,
            projected,
        )
    }

    /// The tower of these weights, with its projection or without.
    ///
    /// # Errors
    /// Model, where they do not fit.
    pub fn build(weights: Weights, config: &ClipTextConfig, projected: bool) -> Result<Self> {
        let _frozen = crate::tensor::guard();
        let tower = Self::load_part(&weights.root(), config, projected)?;
        weights.finish()?;
        Ok(tower)
    }

    /// The tower as a part of a model: `text_model` and `text_projection` under `root`. Since
    /// transformers 5 a tower saved alone, without a projection, has no `text_model` before its
    /// keys.
    ///
    /// # Errors
    /// Model, where the weights do not fit.
    pub fn load_part(root: &Scope<'_>, config: &ClipTextConfig, projected: bool) -> Result<Self> {
        let alone = !projected && !root.has("text_model.embeddings.token_embedding.weight");
        let (scope, width) = (
            if alone {
                root.clone()
            } else {
                root / "text_model"
            },
            config.tower.width,
        );
        let embeddings = &scope / "embeddings";
        // Older checkpoints store 0, 1, 2 and so on.
        root.weights().allow_surplus("embeddings.position_ids");
        Ok(Self {
            tokens: Embedding::load(&(&embeddings / "token_embedding"), config.vocab_size, width)?,
            positions: (&embeddings / "position_embedding")
                .take("weight", &[config.positions, width])?,
            layers: load_layers(
                &(&scope / "encoder" / "layers"),
                &config.tower,
                &LayerKeys::CLIP,
            )?,
            norm: LayerNorm::load(&(&scope / "final_layer_norm"), width, config.tower.epsilon)?,
            projection: projected
                .then(|| {
                    Linear::load_biased(
                        &(root / "text_projection"),
                        width,
                        config.projection,
                        false,
                    )
                })
                .transpose()?,
            config: config.clone(),
            device: root.weights().device(),
        })
    }

    /// Where it runs.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Its sizes.
    pub fn config(&self) -> &ClipTextConfig {
        &self.config
    }

    /// TextFeatures `[n, t]` of token numbers, t at most [`positions`](ClipTextConfig::positions),
    /// on any device. `hidden` are the states asked for besides: 0 is the embedded text, n what the
    /// n-th layer makes of it, without the final layer norm.
    ///
    /// # Errors
    /// Model, where the texts have another shape, are too long or hold an unknown token, or a state
    /// is asked for that is not there; overload, where memory is short.
    pub fn forward(&self, tokens: &Tensor, hidden: &[usize]) -> Result<TextStates> {
        let _frozen = crate::tensor::guard();
        let ends = self.ends(tokens)?;
        if let Some(state) = hidden.iter().find(|&&state| state > self.layers.len()) {
            return Err(Error::model(format!(
                "a text tower of {} layers has no hidden state {state}",
                self.layers.len()
            )));
        }
        let (batch, time) = tokens.size2()?;
        let mut x = self
            .tokens
            .forward(&tokens.f_to_device(self.device)?)?
            .f_add(&self.positions.f_narrow(0, 0, time)?)?;
        let mut states = Vec::with_capacity(self.layers.len() + 1);
        for layer in &self.layers {
            let next = layer.forward(&x, true)?;
            states.push(std::mem::replace(&mut x, next));
        }
        let last = self.norm.forward(&x)?;
        states.push(x);
        // The place of each text's end in the texts laid one after another.
        let places: Vec<i64> = ends
            .iter()
            .zip(0..)
            .map(|(end, row)| row * time + end)
            .collect();
        let places = Tensor::f_from_slice(&places)?.f_to_device(self.device)?;
        let pooled = last
            .f_view([batch * time, self.config.tower.width])?
            .f_index_select(0, &places)?;
        let projected = self
            .projection
            .as_ref()
            .map(|projection| projection.forward(&pooled))
            .transpose()?;
        Ok(TextStates {
            hidden: hidden
                .iter()
                .map(|&state| states[state].shallow_clone())
                .collect(),
            last,
            pooled,
            projected,
        })
    }

    /// The final layer norm of a hidden state: what Stable Diffusion reads where it skips layers.
    ///
    /// # Errors
    /// Model, where the shape does not fit.
    pub fn final_norm(&self, hidden: &Tensor) -> Result<Tensor> {
        let _frozen = crate::tensor::guard();
        self.norm.forward(hidden)
    }

    /// Where each text ends; refuses what is no batch of texts.
    fn ends(&self, tokens: &Tensor) -> Result<Vec<i64>> {
        let size = tokens.size();
        if size.len() != 2 || size.contains(&0) || tokens.kind() != Kind::Int64 {
            return Err(Error::model(format!(
                "texts must be 64-bit token numbers [n, t], got {:?} {size:?}",
                tokens.kind()
            )));
        }
        if size[1] > self.config.positions {
            return Err(Error::model(format!(
                "a text of {} tokens is longer than the tower's {}",
                size[1], self.config.positions
            )));
        }
        let rows = Vec::<Vec<i64>>::try_from(tokens.f_to_device(Device::Cpu)?)?;
        rows.iter().map(|row| self.end(row)).collect()
    }

    fn end(&self, row: &[i64]) -> Result<i64> {
        if let Some(token) = row
            .iter()
            .find(|&token| !(0..self.config.vocab_size).contains(token))
        {
            return Err(Error::model(format!(
                "the tokenizer has token {token}, the text tower only {}",
                self.config.vocab_size
            )));
        }
        let end = match self.config.end {
            Some(end) => end,
            None => row.iter().copied().max().unwrap_or(0),
        };
        // As in the reference, a text without an end is read at its start.
        Ok(row.iter().position(|&token| token == end).unwrap_or(0) as i64)
    }
}
