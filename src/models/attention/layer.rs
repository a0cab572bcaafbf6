//! Attention with its four projections. Query, key and value of one input are one product; the keys
//! and values of a context can be kept and attended to again.

use tch::{Kind, Tensor};

use super::config::{AttentionConfig, AttentionKind, Biases};
use super::kernels::{KeyValue, fused, sliced};
use crate::error::Result;
use crate::models::layers::Linear;
use crate::models::offload::{Tensors, tensors};
use crate::models::weights::Scope;

tensors!(Attention { into, out });

/// Attention with its four projections.
#[derive(Debug)]
pub struct Attention {
    into: Projection,
    out: Linear,
    heads: AttentionConfig,
    kind: AttentionKind,
    upcast: bool,
}

#[derive(Debug)]
enum Projection {
    /// Query, key and value of one sequence: `[3 * count * dim, width]`.
    Fused(Linear),
    /// The query, and key and value of the context: `[2 * count * dim, context]`.
    Split { query: Linear, key_value: Linear },
}

impl Tensors for Projection {
    fn each(&mut self, act: &mut dyn FnMut(&mut Tensor) -> Result<()>) -> Result<()> {
        match self {
            Self::Fused(fused) => fused.each(act),
            Self::Split { query, key_value } => query.each(act).and_then(|()| key_value.each(act)),
        }
    }
}

impl Attention {
    /// Of a sequence with itself. `names` are those of query, key, value and output under `scope`.
    ///
    /// # Errors
    /// Model, where the weights do not fit.
    pub fn load_self(
        scope: &Scope<'_>,
        names: [&str; 4],
        heads: AttentionConfig,
        biases: Biases,
    ) -> Result<Self> {
        let inner = heads.count * heads.dim;
        let out = Linear::load_biased(&(scope / names[3]), inner, heads.width, biases.out)?;
        let into = parts(scope, names, heads, biases)?;
        Ok(Self::fused(
            join(&into)?,
            out,
            heads,
            scope.weights().attention(),
        ))
    }

    /// The same, its output (which has a bias) multiplied by `factor`, `[width]`.
    ///
    /// # Errors
    /// Model, where the weights do not fit.
    pub fn load_self_scaled(
        scope: &Scope<'_>,
        names: [&str; 4],
        heads: AttentionConfig,
        biases: Biases,
        factor: &Tensor,
    ) -> Result<Self> {
        let inner = heads.count * heads.dim;
        let out = Linear::load_scaled(&(scope / names[3]), inner, heads.width, factor, factor)?;
        let into = parts(scope, names, heads, biases)?;
        Ok(Self::fused(
            join(&into)?,
            out,
            heads,
            scope.weights().attention(),
        ))
    }

    /// Of a sequence with another. `names` as in [`load_self`](Self::load_self).
    ///
    /// # Errors
    /// Model, where the weights do not fit.
    pub fn load_cross(
        scope: &Scope<'_>,
        names: [&str; 4],
        heads: AttentionConfig,
        biases: Biases,
    ) -> Result<Self> {
        let inner = heads.count * heads.dim;
        let [query, key, value] = parts(scope, names, heads, biases)?;
        let out = Linear::load_biased(&(scope / names[3]), inner, heads.width, biases.out)?;
        let kind = scope.weights().attention();
        Ok(Self::split(query, join(&[key, value])?, out, heads, kind))
    }

    /// Of a sequence with itself, from projections that lie elsewhere: `fused` gives `[.., 3 *
    /// count * dim]`, query before key before value.
    pub fn fused(fused: Linear, out: Linear, heads: AttentionConfig, kind: AttentionKind) -> Self {
        Self {
            into: Projection::Fused(fused),
            out,
            heads,
            kind,
            upcast: false,
        }
    }

    /// The same, with the scores of slices computed in f32 whatever the precision, for networks
    /// whose scores leave the range of f16. The fused kernel always computes them so.
    #[must_use]
    pub fn upcast(self, upcast: bool) -> Self {
        Self { upcast, ..self }
    }

    /// Of a sequence with another, from projections that lie elsewhere: `key_value` gives `[.., 2 *
    /// count * dim]`, key before value.
    pub fn split(
        query: Linear,
        key_value: Linear,
        out: Linear,
        heads: AttentionConfig,
        kind: AttentionKind,
    ) -> Self {
        Self {
            into: Projection::Split { query, key_value },
            out,
            heads,
            kind,
            upcast: false,
        }
    }

    /// The same with its weights laid out for oneDNN: see [`Linear::packed`].
    ///
    /// # Errors
    /// Overload, where memory is short.
    pub fn packed(self) -> Result<Self> {
        let into = match self.into {
            Projection::Fused(fused) => Projection::Fused(fused.packed()?),
            Projection::Split { query, key_value } => Projection::Split {
                query: query.packed()?,
                key_value: key_value.packed()?,
            },
        };
        Ok(Self {
            into,
            out: self.out.packed()?,
            ..self
        })
    }

    /// `[b, t, width]` mixed with itself. `mask`, broadcast to `[b, count, t, t]`, is added to the
    /// scores; `causal` hides what comes later.
    ///
    /// # Errors
    /// Model, where shapes do not fit; overload, where memory is short.
    pub fn forward(&self, x: &Tensor, mask: Option<&Tensor>, causal: bool) -> Result<Tensor> {
        match &self.into {
            Projection::Fused(fused) => {
                let (query, keys) = self.project(fused, x)?;
                self.mix(&query, &keys, mask, causal)
            }
            Projection::Split { .. } => self.attend(x, &self.keys(x)?, mask),
        }
    }

    /// The query `[b, count, t, dim]` and the keys of a sequence `[b, t, width]`, for callers that
    /// keep earlier keys.
    ///
    /// # Errors
    /// As for [`forward`](Self::forward).
    pub fn queries(&self, x: &Tensor) -> Result<(Tensor, KeyValue)> {
        match &self.into {
            Projection::Fused(fused) => self.project(fused, x),
            Projection::Split { .. } => Ok((self.query(x)?, self.keys(x)?)),
        }
    }

    /// The keys of a context `[b, length, context]`.
    ///
    /// # Errors
    /// As for [`forward`](Self::forward).
    pub fn keys(&self, context: &Tensor) -> Result<KeyValue> {
        match &self.into {
            Projection::Fused(fused) => Ok(self.project(fused, context)?.1),
            Projection::Split { key_value, .. } => {
                let both = self.split_heads(&key_value.forward(context)?, 2)?;
                Ok(KeyValue {
                    keys: both.f_select(0, 0)?,
                    values: both.f_select(0, 1)?,
                })
            }
        }
    }

    /// `[b, t, width]` mixed with what `keys` were made of. `mask`, broadcast to `[b, count, t,
    /// length]`, is added to the scores.
    ///
    /// # Errors
    /// As for [`forward`](Self::forward).
    pub fn attend(&self, x: &Tensor, keys: &KeyValue, mask: Option<&Tensor>) -> Result<Tensor> {
        self.mix(&self.query(x)?, keys, mask, false)
    }

    /// The query `[b, count, t, dim]` of a sequence `[b, t, width]`, for callers that look at it.
    ///
    /// # Errors
    /// As for [`forward`](Self::forward).
    pub fn query(&self, x: &Tensor) -> Result<Tensor> {
        match &self.into {
            Projection::Fused(fused) => Ok(self.project(fused, x)?.0),
            Projection::Split { query, .. } => {
                Ok(self.split_heads(&query.forward(x)?, 1)?.f_select(0, 0)?)
            }
        }
    }

    /// The output for queries `[b, count, t, dim]`: `[b, t, width]`.
    ///
    /// # Errors
    /// As for [`forward`](Self::forward).
    pub fn mix(
        &self,
        query: &Tensor,
        keys: &KeyValue,
        mask: Option<&Tensor>,
        causal: bool,
    ) -> Result<Tensor> {
        let mixed = match self.kind {
            AttentionKind::Sdpa => fused(query, keys, mask, causal)?,
            AttentionKind::Sliced if self.upcast => {
                let [query, keys, values] =
                    [query, &keys.keys, &keys.values].map(|part| part.f_to_kind(Kind::Float));
                let mask = mask.map(|mask| mask.f_to_kind(Kind::Float)).transpose()?;
                let mixed = sliced(
                    &query?,
                    &KeyValue {
                        keys: keys?,
                        values: values?,
                    },
                    mask.as_ref(),
                    causal,
                )?;
                mixed.f_to_kind(self.out.weight().kind())?
            }
            AttentionKind::Sliced => sliced(query, keys, mask, causal)?,
        };
        let (batch, _, time, _) = query.size4()?;
        self.out.forward(&mixed.f_transpose(1, 2)?.f_reshape([
            batch,
            time,
            self.heads.count * self.heads.dim,
        ])?)
    }

    fn project(&self, fused: &Linear, x: &Tensor) -> Result<(Tensor, KeyValue)> {
        let split = self.split_heads(&fused.forward(x)?, 3)?;
        Ok((
            split.f_select(0, 0)?,
            KeyValue {
                keys: split.f_select(0, 1)?,
                values: split.f_select(0, 2)?,
            },
        ))
    }

    /// `[b, t, parts * count * dim]` to `[parts, b, count, t, dim]`.
    fn split_heads(&self, x: &Tensor, parts: i64) -> Result<Tensor> {
        let (batch, time, _) = x.size3()?;
        Ok(
            x.f_view([batch, time, parts, self.heads.count, self.heads.dim])?
                .f_permute([2, 0, 3, 1, 4])?,
        )
    }
}

fn parts(
    scope: &Scope<'_>,
    names: [&str; 4],
    heads: AttentionConfig,
    biases: Biases,
) -> Result<[Linear; 3]> {
    let inner = heads.count * heads.dim;
    Ok([
        Linear::load_biased(&(scope / names[0]), heads.width, inner, biases.query)?,
        Linear::load_biased(&(scope / names[1]), heads.context, inner, biases.key)?,
        Linear::load_biased(&(scope / names[2]), heads.context, inner, biases.value)?,
    ])
}

/// Layers of one input as one layer; a bias that is missing beside others is 0.
fn join(layers: &[Linear]) -> Result<Linear> {
    let weights: Vec<&Tensor> = layers.iter().map(Linear::weight).collect();
    let weight = Tensor::f_cat(&weights, 0)?;
    if layers.iter().all(|layer| layer.bias().is_none()) {
        return Ok(Linear::new(weight, None));
    }
    let mut biases = Vec::new();
    for layer in layers {
        biases.push(match layer.bias() {
            Some(bias) => bias.shallow_clone(),
            None => layer.weight().f_select(1, 0)?.f_zeros_like()?,
        });
    }
    Ok(Linear::new(weight, Some(Tensor::f_cat(&biases, 0)?)))
}
