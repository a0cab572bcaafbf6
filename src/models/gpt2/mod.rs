//! GPT-2 (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019), as
//! transformers' `GPT2LMHeadModel` computes it: learned positions, normalisation before attention
//! and feed-forward, GELU by its tanh, the head tied to the embedding.

use super::attention::{Attention, AttentionConfig};
use super::config::Config;
use super::decoder::{Cache as Rows, Decoder, KvCache, KvCacheConfig};
use super::folder::ModelFolder;
use super::layers::{Activation, Embedding, LayerNorm, Linear, Mlp};
use super::network_spec::{Load, NetworkSpec, NetworkTask};
use super::transformer::PreNormLayer;
use super::weights::{Scope, Weights};
use crate::error::Result;
use crate::tensor::{Device, Kind, Precision, Tensor, guard};

/// Its entry in the table of networks.
pub const NETWORK: NetworkSpec = NetworkSpec {
    classes: &[("GPT2LMHeadModel", NetworkTask::GenerateText)],
    load: Load::LanguageModel(|folder, device, precision| {
        Ok(Box::new(Gpt2::load(folder, device, precision)?))
    }),
};

/// The network's sizes.
#[derive(Debug, Clone)]
pub struct Gpt2Config {
    /// Numbers a position.
    pub width: i64,
    /// Layers.
    pub layers: i64,
    /// Heads.
    pub heads: i64,
    /// Width of the feed-forward part.
    pub inner: i64,
    /// Tokens.
    pub vocabulary: i64,
    /// Longest text.
    pub positions: i64,
    /// Added to the variance.
    pub epsilon: f64,
    /// In the feed-forward part.
    pub activation: Activation,
    /// Whether the head is the embedding table.
    pub tied: bool,
}

impl Gpt2Config {
    /// From config.json, and refuses what would be computed otherwise.
    ///
    /// # Errors
    /// Model, naming the field.
    pub fn read(config: &Config) -> Result<Self> {
        let width = config.integer("n_embd")?;
        let read = Self {
            width,
            layers: config.integer("n_layer")?,
            heads: config.integer("n_head")?,
            inner: config.integer_or("n_inner", 4 * width)?,
            vocabulary: config.integer("vocab_size")?,
            positions: config.integer_or("n_positions", 1024)?,
            epsilon: config.number_or("layer_norm_epsilon", 1e-5)?,
            activation: Activation::read(config, "activation_function", "gelu_new")?,
            tied: config.boolean_or("tie_word_embeddings", true)?,
        };
        if read.heads == 0 || width == 0 || width % read.heads != 0 || read.positions == 0 {
            return Err(
                config.error("`n_embd` must be a multiple of `n_head`, and `n_positions` not 0")
            );
        }
        let wrong = [
            ("scale_attn_weights", true),
            ("scale_attn_by_inverse_layer_idx", false),
            ("add_cross_attention", false),
        ];
        for (field, needed) in wrong {
            if config.boolean_or(field, needed)? != needed {
                return Err(
                    config.error(format_args!("`{field}` is not supported but as {needed}"))
                );
            }
        }
        Ok(read)
    }
}

/// The network with its weights.
#[derive(Debug)]
pub struct Gpt2 {
    config: Gpt2Config,
    tokens: Embedding,
    positions: Embedding,
    layers: Vec<PreNormLayer>,
    last: LayerNorm,
    head: Linear,
    kind: Kind,
    device: Device,
}

/// Texts under way.
#[derive(Debug)]
pub struct Cache(KvCache);

impl Rows for Cache {
    fn columns(&mut self) -> &mut KvCache {
        &mut self.0
    }

    fn keep(&mut self, rows: &[usize]) -> Result<()> {
        self.0.keep(rows)
    }
}

impl Gpt2 {
    /// The network of a folder whose architecture is `GPT2LMHeadModel`.
    ///
    /// # Errors
    /// Config, where the folder is another network's; model, where its config or weights do not
    /// fit; overload, where memory is short.
    pub fn load(folder: &ModelFolder, device: Device, precision: Precision) -> Result<Self> {
        NETWORK.expect(folder)?;
        Self::build(
            folder.weights(device, precision)?,
            Gpt2Config::read(folder.config())?,
        )
    }

    /// The network of these weights.
    ///
    /// # Errors
    /// Model, where they do not fit.
    pub fn build(weights: Weights, config: Gpt2Config) -> Result<Self> {
        let _frozen = guard();
        // Old checkpoints carry the causal mask as weights.
        for computed in [".attn.bias", ".attn.masked_bias"] {
            weights.allow_surplus(computed);
        }
        if config.tied {
            weights.allow_surplus("lm_head.weight");
        }
        let (width, epsilon) = (config.width, config.epsilon);
        // OpenAI's own checkpoint is of the network without its head, so its keys have no prefix.
        let root = if weights.has("wte.weight") {
            weights.root()
        } else {
            weights.root() / "transformer"
        };
        let tokens = root.take("wte.weight", &[config.vocabulary, width])?;
        let head = if config.tied {
            tokens.shallow_clone()
        } else {
            weights.take("lm_head.weight", &[config.vocabulary, width])?
        };
        let network = Self {
            tokens: Embedding::new(tokens),
            positions: Embedding::load(&(&root / "wpe"), config.positions, width)?,
            layers: (0..config.layers)
                .map(|n| layer(&(&root / "h" / n), &config))
                .collect::<Result<_>>()?,
            last: LayerNorm::load(&(&root / "ln_f"), width, epsilon)?,
            head: Linear::new(head, None).packed()?,
            kind: weights.precision().kind(),
            device: weights.device(),
            config,
        };
        weights.finish()?;
        Ok(network)
    }
}

fn layer(scope: &Scope<'_>, config: &Gpt2Config) -> Result<PreNormLayer> {
    let (width, inner, epsilon) = (config.width, config.inner, config.epsilon);
    let (attn, mlp) = (scope / "attn", scope / "mlp");
    let attention = Attention::fused(
        conv1d(&(&attn / "c_attn"), width, 3 * width)?,
        conv1d(&(&attn / "c_proj"), width, width)?,
        AttentionConfig::self_attention(width, config.heads),
        scope.weights().attention(),
    );
    let mlp = Mlp::new(
        conv1d(&(&mlp / "c_fc"), width, inner)?,
        config.activation,
        conv1d(&(&mlp / "c_proj"), inner, width)?,
    );
    Ok(PreNormLayer::new(
        LayerNorm::load(&(scope / "ln_1"), width, epsilon)?,
        attention,
        LayerNorm::load(&(scope / "ln_2"), width, epsilon)?,
        mlp,
    ))
}

/// OpenAI's Conv1D: a fully connected layer whose weight lies `[input, output]`.
fn conv1d(scope: &Scope<'_>, input: i64, output: i64) -> Result<Linear> {
    let weight = scope.take("weight", &[input, output])?.f_tr()?;
    Linear::new(weight, Some(scope.take("bias", &[output])?)).packed()
}

impl Decoder for Gpt2 {
    type Cache = Cache;

    fn vocabulary(&self) -> i64 {
        self.config.vocabulary
    }

    fn positions(&self) -> i64 {
        self.config.positions
    }

    fn empty(&self, columns: i64) -> Result<Cache> {
        let Gpt2Config {
            width,
            layers,
            heads,
            positions,
            ..
        } = self.config;
        let shape = KvCacheConfig {
            layers,
            heads,
            dim: width / heads,
            positions,
        };
        Ok(Cache(KvCache::build(
            shape,
            columns,
            self.kind,
            self.device,
        )?))
    }

    fn pass(&self, cache: &mut Cache, tokens: &[i64], columns: i64) -> Result<Tensor> {
        let slots = cache.0.open(columns)?;
        let mask = cache.0.mask(columns, 1)?;
        let tokens = Tensor::f_from_slice(tokens)?
            .f_to(self.device)?
            .f_view([-1, columns])?;
        let mut x = self
            .tokens
            .forward(&tokens)?
            .f_add(&cache.0.embed_positions(self.positions.weight(), columns)?)?;
        for (layer, mut slot) in self.layers.iter().zip(slots) {
            x = layer.forward_cached(&x, &mut slot, mask.as_ref())?;
        }
        Ok(x)
    }

    fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        Ok(self
            .head
            .forward(&self.last.forward(hidden)?)?
            .f_to_kind(Kind::Float)?)
    }
}

#[cfg(test)]
pub(in crate::models) mod tests;
