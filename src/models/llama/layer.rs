//! A layer's weights, rearranged at load so that a pass is few operations: RMSNorms folded into the
//! projections after them, query, key and value in one, gate and up in one.

use super::config::LlamaConfig;
use crate::error::Result;
use crate::models::layers::{Linear, Mlp};
use crate::tensor::{Device, Kind, Tensor};

#[derive(Debug)]
pub(super) struct Layer {
    pub qkv: Linear,
    pub heads: Option<HeadNorm>,
    pub out: Linear,
    pub mlp: Mlp,
}

/// RMSNorm of each head of queries and keys.
#[derive(Debug)]
pub(super) struct HeadNorm {
    /// `[query heads + key heads, head_dim]`, sqrt(head_dim) in it.
    pub norm_weight: Tensor,
    /// What a head's length does not fall below.
    pub norm_eps: Tensor,
}

/// A layer as the checkpoint has it.
pub(super) struct LayerSource<'a> {
    pub config: &'a LlamaConfig,
    /// Its number.
    pub number: i64,
    /// The number format that it is to have.
    pub kind: Kind,
    /// A tensor by key and shape, f32 on the network's device.
    pub take: &'a dyn Fn(&str, &[i64]) -> Result<Tensor>,
}

impl Layer {
    pub(super) fn load(source: &LayerSource<'_>) -> Result<Self> {
        Ok(Self {
            qkv: source.qkv()?,
            heads: if source.config.head_norm {
                Some(source.head_norm()?)
            } else {
                None
            },
            out: source.out()?,
            mlp: source.mlp()?,
        })
    }
}

impl LayerSource<'_> {
    fn part(&self, name: &str, shape: &[i64]) -> Result<Tensor> {
        (self.take)(&format!("model.layers.{}.{name}", self.number), shape)
    }

    /// `[outputs, inputs]`.
    fn weight(&self, name: &str, outputs: i64, inputs: i64) -> Result<Tensor> {
        self.part(&format!("{name}.weight"), &[outputs, inputs])
    }

    /// As a weight of one column, where the layer has one.
    fn bias(&self, has: bool, name: &str, outputs: i64) -> Result<Option<Tensor>> {
        if !has {
            return Ok(None);
        }
        let bias = self.part(&format!("{name}.bias"), &[outputs])?;
        Ok(Some(bias.f_view([outputs, 1])?))
    }

    /// An RMSNorm's weight, sqrt(width) in it.
    fn norm(&self, name: &str) -> Result<Tensor> {
        let hidden = self.config.hidden_size;
        Ok(self
            .part(name, &[hidden])?
            .f_mul_scalar((hidden as f64).sqrt())?)
    }

    /// Query, key and value, over what the first RMSNorm is folded into.
    fn qkv(&self) -> Result<Linear> {
        let config = self.config;
        let (hidden, dim) = (config.hidden_size, config.head_dim);
        let [q, k, v] = [
            ("self_attn.q_proj", config.num_attention_heads * dim),
            ("self_attn.k_proj", config.num_key_value_heads * dim),
            ("self_attn.v_proj", config.num_key_value_heads * dim),
        ];
        let weights = self.fused(
            &self.weight(q.0, q.1, hidden)?,
            &self.weight(k.0, k.1, hidden)?,
            &self.weight(v.0, v.1, hidden)?,
        )?;
        let bias = |(name, outputs)| self.bias(config.qkv_bias, name, outputs);
        let biases = match (bias(q)?, bias(k)?, bias(v)?) {
            (Some(q), Some(k), Some(v)) => Some(self.fused(&q, &k, &v)?),
            _ => None,
        };
        let norm = self.norm("input_layernorm.weight")?;
        linear(&weights.f_mul(&norm)?, biases, self.kind)
    }

    /// The rows of query, key and value one after the other, query heads ordered so that a group's
    /// are further queries of one key head.
    fn fused(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let (dim, columns) = (self.config.head_dim, v.size()[1]);
        let (kv_heads, group) = (self.config.num_key_value_heads, self.config.group());
        let q = rope_interleaved(q, dim)?
            .f_view([kv_heads, group, dim, columns])?
            .f_transpose(0, 1)?
            .f_reshape([-1, columns])?;
        let k = rope_interleaved(k, dim)?;
        Ok(Tensor::f_cat(&[&q, &k, v], 0)?)
    }

    fn head_norm(&self) -> Result<HeadNorm> {
        let dim = self.config.head_dim;
        let weight = |name: &str, heads: i64| -> Result<Tensor> {
            let column = self.part(name, &[dim])?.f_view([dim, 1])?;
            Ok(rope_interleaved(&column, dim)?
                .f_view([1, dim])?
                .f_expand([heads, dim], false)?)
        };
        let weights = Tensor::f_cat(
            &[
                weight("self_attn.q_norm.weight", self.config.num_attention_heads)?,
                weight("self_attn.k_norm.weight", self.config.num_key_value_heads)?,
            ],
            0,
        )?;
        Ok(HeadNorm {
            norm_eps: norm_eps(dim, self.config, weights.device())?,
            norm_weight: weights.f_mul_scalar((dim as f64).sqrt())?,
        })
    }

    /// The attention's output, over heads ordered as [`fused`](Self::fused) orders them.
    fn out(&self) -> Result<Linear> {
        let config = self.config;
        let (hidden, dim) = (config.hidden_size, config.head_dim);
        let name = "self_attn.o_proj";
        let weight = self
            .weight(name, hidden, config.num_attention_heads * dim)?
            .f_view([hidden, config.num_key_value_heads, config.group(), dim])?
            .f_transpose(1, 2)?
            .f_reshape([hidden, -1])?;
        let bias = self.bias(config.out_bias, name, hidden)?;
        linear(&weight, bias, self.kind)
    }

    /// The feed-forward part, over what the second RMSNorm is folded into.
    fn mlp(&self) -> Result<Mlp> {
        let (hidden, inner) = (self.config.hidden_size, self.config.intermediate_size);
        let [gate, up, down] = ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"];
        let weights = [
            self.weight(gate, inner, hidden)?,
            self.weight(up, inner, hidden)?,
        ];
        let norm = self.norm("post_attention_layernorm.weight")?;
        let weights = Tensor::f_cat(&weights, 0)?.f_mul(&norm)?;
        let bias = |name, outputs| self.bias(self.config.mlp_bias, name, outputs);
        let biases = match (bias(gate, inner)?, bias(up, inner)?) {
            (Some(gate), Some(up)) => Some(Tensor::f_cat(&[gate, up], 0)?),
            _ => None,
        };
        let gate_up = linear(&weights, biases, self.kind)?;
        let weight = self.weight(down, hidden, inner)?;
        let down = linear(&weight, bias(down, hidden)?, self.kind)?;
        Ok(Mlp::gated(gate_up, down))
    }
}

/// RMSNorm's epsilon for lengths: sqrt(width * eps), as a root mean square is a length over
/// sqrt(width).
pub(super) fn norm_eps(width: i64, config: &LlamaConfig, device: Device) -> Result<Tensor> {
    Ok(Tensor::f_full(
        [1],
        (width as f64 * config.rms_norm_eps).sqrt(),
        (Kind::Float, device),
    )?)
}

/// A product in the network's number format; `bias` is a column.
pub(super) fn linear(weight: &Tensor, bias: Option<Tensor>, kind: Kind) -> Result<Linear> {
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
