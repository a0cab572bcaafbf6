//! Llama-family decoders (Llama, SmolLM2, TinyLlama, Mistral, Qwen2, Qwen3), as transformers
//! computes them: RMSNorm, rotary positions, grouped-query attention, SwiGLU. Weights are
//! rearranged at load so that a layer is few operations: norm_weights folded into the projections
//! after them, query, key and value fused, gate and up fused, query heads ordered so that a group's
//! heads are further queries of one key head, rotary pairs laid side by side as complex numbers.

mod cache;
mod config;

pub use cache::Cache;
pub use config::{LlamaConfig, ModelType};

use crate::error::{Error, Result};
use crate::models::decoder::{Decoder, LayerCache};
use crate::models::layers::{Linear, Mlp};
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

#[derive(Debug)]
struct Layer {
    qkv: Linear,
    heads: Option<HeadNorm>,
    out: Linear,
    mlp: Mlp,
}

/// RMSNorm of each head of queries and keys.
#[derive(Debug)]
struct HeadNorm {
    /// `[query heads + key heads, head_dim]`, sqrt(head_dim) in it.
    norm_weight: Tensor,
    /// What a head's length does not fall below.
    norm_eps: Tensor,
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
        let layers = (0..config.num_hidden_layers)
            .map(|n| Layer::new(&config, n, kind, &take))
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

    /// What config.json said.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    fn attend(
        &self,
        layer: &Layer,
        x: &Tensor,
        mut slot: LayerCache,
        rope_slice: &Tensor,
        mask: Option<&Tensor>,
        columns: i64,
    ) -> Result<Tensor> {
        let LlamaConfig {
            num_attention_heads: q_heads,
            num_key_value_heads: kv_heads,
            head_dim,
            ..
        } = self.config;
        let rows = x.size()[0] / columns;
        let mut qkv = layer.qkv.forward(x)?;
        if self.kind != Kind::Float {
            qkv = qkv.f_to_kind(Kind::Float)?;
        }
        let qkv = qkv.f_view([rows, columns, self.config.heads(), head_dim])?;
        let mut turned = qkv.f_narrow(2, 0, q_heads + kv_heads)?;
        if let Some(HeadNorm {
            norm_weight,
            norm_eps,
        }) = &layer.heads
        {
            turned = turned
                .f_div_(&length(&turned, norm_eps)?)?
                .f_mul_(norm_weight)?;
        }
        let pairs = turned.f_view([rows, columns, q_heads + kv_heads, head_dim / 2, 2])?;
        let _ = pairs.f_view_as_complex()?.f_mul_(rope_slice)?;
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
            mask,
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

/// RMSNorm's epsilon for lengths: sqrt(width * eps), as a root mean square is a length over
/// sqrt(width).
fn norm_eps(width: i64, config: &LlamaConfig, device: Device) -> Result<Tensor> {
    Ok(Tensor::f_full(
        [1],
        (width as f64 * config.rms_norm_eps).sqrt(),
        (Kind::Float, device),
    )?)
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
        Cache::new(&self.config, columns, self.cached, self.device)
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
        for (layer, slot) in self.layers.iter().zip(slots) {
            let attended = self.attend(
                layer,
                &self.normed(&x)?,
                slot,
                &rope_slice,
                mask.as_ref(),
                columns,
            )?;
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

impl Layer {
    fn new(
        config: &LlamaConfig,
        n: i64,
        kind: Kind,
        take: &dyn Fn(&str, &[i64]) -> Result<Tensor>,
    ) -> Result<Self> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let (q_heads, kv_heads, dim, group) = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
            config.group(),
        );
        let part = |name: &str, shape: &[i64]| take(&format!("model.layers.{n}.{name}"), shape);
        let weight = |name: &str, outputs: i64, inputs: i64| {
            part(&format!("{name}.weight"), &[outputs, inputs])
        };
        // As a weight of one column.
        let bias = |name: &str, outputs: i64| {
            Ok::<_, Error>(part(&format!("{name}.bias"), &[outputs])?.f_view([outputs, 1])?)
        };
        let scale = (hidden as f64).sqrt();

        let fused = |q: &Tensor, k: &Tensor, v: Tensor| -> Result<Tensor> {
            let columns = v.size()[1];
            let q = rope_interleaved(q, dim)?
                .f_view([kv_heads, group, dim, columns])?
                .f_transpose(0, 1)?
                .f_reshape([-1, columns])?;
            Ok(Tensor::f_cat(&[q, rope_interleaved(k, dim)?, v], 0)?)
        };
        let [q, k, v] = [
            ("self_attn.q_proj", q_heads),
            ("self_attn.k_proj", kv_heads),
            ("self_attn.v_proj", kv_heads),
        ];
        let norm_weight = part("input_layernorm.weight", &[hidden])?.f_mul_scalar(scale)?;
        let weights = fused(
            &weight(q.0, q.1 * dim, hidden)?,
            &weight(k.0, k.1 * dim, hidden)?,
            weight(v.0, v.1 * dim, hidden)?,
        )?;
        let biases = || {
            fused(
                &bias(q.0, q.1 * dim)?,
                &bias(k.0, k.1 * dim)?,
                bias(v.0, v.1 * dim)?,
            )
        };
        let qkv = linear(
            &weights.f_mul(&norm_weight)?,
            config.qkv_bias.then(biases).transpose()?,
            kind,
        )?;

        let heads = || -> Result<HeadNorm> {
            let norm_weight = |name: &str, heads: i64| -> Result<Tensor> {
                Ok(
                    rope_interleaved(&part(name, &[dim])?.f_view([dim, 1])?, dim)?
                        .f_view([1, dim])?
                        .f_expand([heads, dim], false)?,
                )
            };
            let norm_weights = Tensor::f_cat(
                &[
                    norm_weight("self_attn.q_norm.weight", q_heads)?,
                    norm_weight("self_attn.k_norm.weight", kv_heads)?,
                ],
                0,
            )?;
            Ok(HeadNorm {
                norm_eps: norm_eps(dim, config, norm_weights.device())?,
                norm_weight: norm_weights.f_mul_scalar((dim as f64).sqrt())?,
            })
        };
        let heads = config.head_norm.then(heads).transpose()?;

        let out = weight("self_attn.o_proj", hidden, q_heads * dim)?;
        let out = out
            .f_view([hidden, kv_heads, group, dim])?
            .f_transpose(1, 2)?
            .f_reshape([hidden, -1])?;
        let out = linear(
            &out,
            config
                .out_bias
                .then(|| bias("self_attn.o_proj", hidden))
                .transpose()?,
            kind,
        )?;

        let norm_weight =
            part("post_attention_layernorm.weight", &[hidden])?.f_mul_scalar(scale)?;
        let [gate, up] = ["mlp.gate_proj", "mlp.up_proj"];
        let weights = Tensor::f_cat(
            &[weight(gate, inner, hidden)?, weight(up, inner, hidden)?],
            0,
        )?
        .f_mul(&norm_weight)?;
        let biases = || Ok::<_, Error>(Tensor::f_cat(&[bias(gate, inner)?, bias(up, inner)?], 0)?);
        let gate_up = linear(&weights, config.mlp_bias.then(biases).transpose()?, kind)?;
        let down = weight("mlp.down_proj", hidden, inner)?;
        let down = linear(
            &down,
            config
                .mlp_bias
                .then(|| bias("mlp.down_proj", hidden))
                .transpose()?,
            kind,
        )?;
        Ok(Self {
            qkv,
            heads,
            out,
            mlp: Mlp::gated(gate_up, down),
        })
    }
}

/// A product in the network's number format; `bias` is a column.
fn linear(weight: &Tensor, bias: Option<Tensor>, kind: Kind) -> Result<Linear> {
    let bias = bias
        .map(|bias| bias.f_view([-1])?.f_to_kind(kind))
        .transpose()?;
    Linear::new(weight.f_to_kind(kind)?, bias).packed()
}

/// Lays the two numbers that are rotated together side by side; the checkpoint has them half a head
/// apart.
fn rope_interleaved(weight: &Tensor, head_dim: i64) -> Result<Tensor> {
    let (outputs, hidden) = weight.size2()?;
    Ok(weight
        .f_view([-1, 2, head_dim / 2, hidden])?
        .f_transpose(1, 2)?
        .f_reshape([outputs, hidden])?)
}

#[cfg(test)]
mod tests;
