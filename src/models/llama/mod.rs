//! Llama-family decoders (Llama, SmolLM2, TinyLlama, Mistral, Qwen2, Qwen3), as transformers
//! computes them: RMSNorm, rotary positions, grouped-query attention, SwiGLU. Weights are
//! rearranged at load so that a layer is few operations: norm_weights folded into the projections
//! after them, query, key and value fused, gate and up fused, query heads ordered so that a group's
//! heads are further queries of one key head, rotary pairs laid side by side as complex numbers.

mod cache;
mod config;
mod layer;

pub use cache::Cache;
pub use config::{LlamaConfig, ModelType};

use layer::{HeadNorm, Layer, LayerSource, linear, norm_eps};

use crate::error::Result;
use crate::models::decoder::{Decoder, LayerCache};
use crate::models::layers::Linear;
use crate::models::network_spec::{Load, NetworkSpec, NetworkTask};
use crate::models::{ModelFolder, Weights};
use crate::tensor::{Device, Kind, Precision, Tensor, guard};

/// Its entry in the table of networks.
pub const NETWORK: NetworkSpec = NetworkSpec {
    classes: &[
        (LLAMA, NetworkTask::GenerateText),
        (MISTRAL, NetworkTask::GenerateText),
        (QWEN2, NetworkTask::GenerateText),
        (QWEN3, NetworkTask::GenerateText),
    ],
    load: Load::LanguageModel(|folder, device, precision| {
        Ok(Box::new(Llama::load(folder, device, precision)?))
    }),
};

const LLAMA: &str = "LlamaForCausalLM";
const MISTRAL: &str = "MistralForCausalLM";
const QWEN2: &str = "Qwen2ForCausalLM";
const QWEN3: &str = "Qwen3ForCausalLM";

/// A Llama-family decoder.
#[derive(Debug)]
pub struct Llama {
    config: LlamaConfig,
    layers: Vec<Layer>,
    /// `[vocab, hidden]`.
    embedding: Tensor,
    /// `[hidden]`.
    norm_weight: Tensor,
    head: Linear,
    /// What the length of the residual stream does not fall below.
    norm_eps: Tensor,
    kind: Kind,
    cached: Kind,
    device: Device,
}

/// What a pass of all layers has in common.
struct Pass<'a> {
    /// The rotations of its positions.
    rope: &'a Tensor,
    mask: Option<&'a Tensor>,
    columns: i64,
}

impl Llama {
    /// Reads a folder's config.json and weights.
    ///
    /// # Errors
    /// Config, where the folder is another network's; model, where config.json or the weights do
    /// not fit; external, where they cannot be read; overload, where memory is short.
    pub fn load(folder: &ModelFolder, device: Device, precision: Precision) -> Result<Self> {
        let model_type = match folder.architecture()? {
            MISTRAL => ModelType::Mistral,
            QWEN2 => ModelType::Qwen2,
            QWEN3 => ModelType::Qwen3,
            _ => folder.expect(LLAMA).map(|()| ModelType::Llama)?,
        };
        let config = LlamaConfig::read(folder.config(), model_type)?;
        let weights = folder.weights(device, precision)?;
        // Some checkpoints carry what is computed here, or the embedding table a second time.
        weights.allow_surplus("rotary_emb.inv_freq");
        if config.tie_word_embeddings {
            weights.allow_surplus("lm_head.weight");
        }
        let network = Self::build(config, &weights)?;
        weights.finish()?;
        Ok(network)
    }

    fn build(config: LlamaConfig, weights: &Weights) -> Result<Self> {
        let _frozen = guard();
        let (hidden, vocab) = (config.hidden_size, config.vocab_size);
        let (device, kind) = (weights.device(), weights.precision().kind());
        let take = |key: &str, shape: &[i64]| -> Result<Tensor> {
            Ok(weights.take_f32(key, shape)?.f_to(device)?)
        };
        let embedding = take("model.embed_tokens.weight", &[vocab, hidden])?.f_to_kind(kind)?;
        let head = match config.tie_word_embeddings {
            true => linear(&embedding, None, kind)?,
            false => linear(&take("lm_head.weight", &[vocab, hidden])?, None, kind)?,
        };
        let norm_weight =
            take("model.norm.weight", &[hidden])?.f_mul_scalar((hidden as f64).sqrt())?;
        let layer = |number| {
            Layer::load(&LayerSource {
                config: &config,
                number,
                kind,
                take: &take,
            })
        };
        let layers = (0..config.num_hidden_layers)
            .map(layer)
            .collect::<Result<_>>()?;
        let norm_eps = norm_eps(hidden, &config, device)?;
        // On a CPU attention is faster in f32 than in halves, and the cache is small beside the
        // weights.
        let cached = if device.is_cuda() { kind } else { Kind::Float };
        Ok(Self {
            config,
            layers,
            embedding,
            norm_weight,
            head,
            norm_eps,
            kind,
            cached,
            device,
        })
    }

    /// Query, key and value of `x`, `[rows * columns, hidden]`, in f32, queries and keys rotated:
    /// `[rows, columns, heads, head_dim]`.
    fn project(&self, layer: &Layer, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let config = &self.config;
        let (rotated, dim) = (
            config.num_attention_heads + config.num_key_value_heads,
            config.head_dim,
        );
        let rows = x.size()[0] / pass.columns;
        let mut qkv = layer.qkv.forward(x)?;
        if self.kind != Kind::Float {
            qkv = qkv.f_to_kind(Kind::Float)?;
        }
        let qkv = qkv.f_view([rows, pass.columns, config.heads(), dim])?;
        let mut turned = qkv.f_narrow(2, 0, rotated)?;
        if let Some(HeadNorm {
            norm_weight,
            norm_eps,
        }) = &layer.heads
        {
            turned = turned
                .f_div_(&length(&turned, norm_eps)?)?
                .f_mul_(norm_weight)?;
        }
        let pairs = turned.f_view([rows, pass.columns, rotated, dim / 2, 2])?;
        let _ = pairs.f_view_as_complex()?.f_mul_(pass.rope)?;
        Ok(qkv)
    }

    /// What `x`, `[rows * columns, hidden]`, finds in the texts so far and itself: `[rows * columns,
    /// query heads * head_dim]`.
    fn attend(
        &self,
        layer: &Layer,
        x: &Tensor,
        mut slot: LayerCache,
        pass: &Pass<'_>,
    ) -> Result<Tensor> {
        let LlamaConfig {
            num_attention_heads: q_heads,
            num_key_value_heads: kv_heads,
            head_dim,
            ..
        } = self.config;
        let columns = pass.columns;
        let rows = x.size()[0] / columns;
        let qkv = self.project(layer, x, pass)?;
        slot.fresh
            .f_copy_(&qkv.f_narrow(2, q_heads, 2 * kv_heads)?.f_transpose(1, 2)?)?;
        let queries = qkv.f_narrow(2, 0, q_heads)?.f_reshape([
            rows,
            columns * self.config.group(),
            kv_heads,
            head_dim,
        ])?;
        let queries = queries.f_transpose(1, 2)?.f_to_kind(self.cached)?;
        let scale = None::<f64>;
        let out = Tensor::f_scaled_dot_product_attention(
            &queries,
            &slot.seen.keys,
            &slot.seen.values,
            pass.mask,
            0.0,
            false,
            scale,
            false,
        )?;
        let out = out
            .f_transpose(1, 2)?
            .f_reshape([rows * columns, q_heads * head_dim])?;
        Ok(if self.cached == self.kind {
            out
        } else {
            out.f_to_kind(self.kind)?
        })
    }

    /// `x` divided by its length; the factor to its root mean square lies in the weights.
    fn normed(&self, x: &Tensor) -> Result<Tensor> {
        let normed = self.divided_by_length(x)?;
        Ok(if self.kind == Kind::Float {
            normed
        } else {
            normed.f_to_kind(self.kind)?
        })
    }

    fn divided_by_length(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_div(&length(x, &self.norm_eps)?)?)
    }
}

/// The length of each vector that the last dimension is of, not below `norm_eps`.
fn length(x: &Tensor, norm_eps: &Tensor) -> Result<Tensor> {
    Ok(x.f_norm_scalaropt_dim(2, -1i64, true)?.f_hypot_(norm_eps)?)
}

impl Decoder for Llama {
    type Cache = Cache;

    fn vocabulary(&self) -> i64 {
        self.config.vocab_size
    }

    fn positions(&self) -> i64 {
        self.config.max_position_embeddings
    }

    fn empty(&self, columns: i64) -> Result<Cache> {
        Cache::build(&self.config, columns, self.cached, self.device)
    }

    fn pass(&self, cache: &mut Cache, tokens: &[i64], columns: i64) -> Result<Tensor> {
        let slots = cache.columns.open(columns)?;
        let rope_slice = cache.rope_slice(columns)?;
        let mask = cache.columns.mask(columns, self.config.group())?;
        let tokens = Tensor::f_from_slice(tokens)?.f_to(self.device)?;
        // A copy, as the residual stream is added to in place.
        let mut x = self
            .embedding
            .f_index_select(0, &tokens)?
            .f_to_kind(Kind::Float)?;
        let pass = Pass {
            rope: &rope_slice,
            mask: mask.as_ref(),
            columns,
        };
        for (layer, slot) in self.layers.iter().zip(slots) {
            let attended = self.attend(layer, &self.normed(&x)?, slot, &pass)?;
            x = x.f_add_(&layer.out.forward(&attended)?)?;
            x = x.f_add_(&layer.mlp.forward(&self.normed(&x)?)?)?;
        }
        Ok(x)
    }

    fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let x = self
            .divided_by_length(hidden)?
            .f_mul_(&self.norm_weight)?
            .f_to_kind(self.kind)?;
        Ok(self.head.forward(&x)?.f_to_kind(Kind::Float)?)
    }
}

#[cfg(test)]
mod tests;
