//! Attention of many heads, of a sequence with itself or with another: Vaswani et al., "Attention
//! Is All You Need" (arXiv:1706.03762). Query, key and value of one input are one product; the keys
//! of a context can be kept and asked again.

use tch::{Kind, Tensor};

use super::layers::Linear;
use super::offload::{Tensors, tensors};
use super::weights::Scope;
use crate::error::Result;
use crate::tensor::{attention, attention_of_one};

/// How attention is computed: the same numbers but for rounding, another use of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AttentionKind {
    /// libtorch's fused kernel, which holds no matrix of scores where the device has one.
    #[default]
    Sdpa,
    /// One head after the other, and of its queries so many at a time that a million scores are in
    /// memory.
    Sliced,
}

/// Scores of a slice.
const SLICE: i64 = 1 << 20;

/// The sizes of an attention.
#[derive(Debug, Clone, Copy)]
pub struct AttentionConfig {
    /// Width of the sequence that asks, and of what comes out.
    pub width: i64,
    /// Width of the sequence that is asked; `width` where that is the sequence itself.
    pub context: i64,
    /// Number of heads.
    pub count: i64,
    /// Width of one head.
    pub dim: i64,
}

impl AttentionConfig {
    /// Of a sequence with itself: `width / count` a head.
    pub fn self_attention(width: i64, count: i64) -> Self {
        Self {
            width,
            context: width,
            count,
            dim: width / count,
        }
    }
}

/// Which of query, key, value and output have a bias.
#[derive(Debug, Clone, Copy)]
pub struct Biases {
    /// The query has one.
    pub query: bool,
    /// The key has one.
    pub key: bool,
    /// The value has one.
    pub value: bool,
    /// The output has one.
    pub out: bool,
}

impl Biases {
    /// All four.
    pub const ALL: Self = Self {
        query: true,
        key: true,
        value: true,
        out: true,
    };
    /// The output only.
    pub const OUT: Self = Self {
        query: false,
        key: false,
        value: false,
        out: true,
    };
}

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

tensors!(Attention { into, out });

impl Tensors for Projection {
    fn each(&mut self, act: &mut dyn FnMut(&mut Tensor) -> Result<()>) -> Result<()> {
        match self {
            Self::Fused(fused) => fused.each(act),
            Self::Split { query, key_value } => query.each(act).and_then(|()| key_value.each(act)),
        }
    }
}

/// The keys and values of a sequence, `[b, count, length, dim]` each.
#[derive(Debug)]
pub struct KeyValue {
    /// What queries are compared with.
    pub keys: Tensor,
    /// What is mixed.
    pub values: Tensor,
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
        let [query, key, value] = parts(scope, names, heads, biases)?;
        let out = Linear::load_biased(
            &(scope / names[3]),
            heads.count * heads.dim,
            heads.width,
            biases.out,
        )?;
        Ok(Self::fused(
            join(&[query, key, value])?,
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
        let [query, key, value] = parts(scope, names, heads, biases)?;
        let out = Linear::load_scaled(
            &(scope / names[3]),
            heads.count * heads.dim,
            heads.width,
            factor,
            factor,
        )?;
        Ok(Self::fused(
            join(&[query, key, value])?,
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
        let into = Projection::Split {
            query,
            key_value: join(&[key, value])?,
        };
        let out = Linear::load_biased(&(scope / names[3]), inner, heads.width, biases.out)?;
        Ok(Self {
            into,
            out,
            heads,
            kind: scope.weights().attention(),
            upcast: false,
        })
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

fn fused(query: &Tensor, keys: &KeyValue, mask: Option<&Tensor>, causal: bool) -> Result<Tensor> {
    if mask.is_none()
        && !causal
        && let Some(mixed) = match attention(query, &keys.keys, &keys.values)? {
            Some(mixed) => Some(mixed),
            None => attention_of_one(query, &keys.keys, &keys.values)?,
        }
    {
        return Ok(mixed);
    }
    Ok(Tensor::f_scaled_dot_product_attention(
        query,
        &keys.keys,
        &keys.values,
        mask,
        0.,
        causal,
        None,
        false,
    )?)
}

fn sliced(query: &Tensor, keys: &KeyValue, mask: Option<&Tensor>, causal: bool) -> Result<Tensor> {
    let (batch, count, time, dim) = query.size4()?;
    let (length, width) = (keys.keys.size4()?.2, keys.values.size4()?.3);
    let (options, scale) = ((query.kind(), query.device()), 1. / (dim as f64).sqrt());
    let mask = mask
        .map(|mask| mask.f_expand([batch, count, time, length], true))
        .transpose()?;
    let most = (SLICE / (batch * length).max(1)).clamp(1, time.max(1));
    let mixed = Tensor::f_empty([batch, time, count, width], options)?;
    for head in 0..count {
        let [q, k, v] = [query, &keys.keys, &keys.values].map(|part| part.f_select(1, head));
        let (q, k, v) = (q?, k?.f_mul_scalar(scale)?.f_transpose(1, 2)?, v?);
        for start in (0..time).step_by(most as usize) {
            let rows = most.min(time - start);
            let mut scores = q.f_narrow(1, start, rows)?.f_matmul(&k)?;
            if let Some(mask) = &mask {
                scores = scores.f_add_(&mask.f_select(1, head)?.f_narrow(1, start, rows)?)?;
            }
            if causal {
                scores = scores.f_add_(
                    &Tensor::f_full([rows, length], f64::NEG_INFINITY, options)?
                        .f_triu(1 + start)?,
                )?;
            }
            let mut place = mixed.f_select(2, head)?.f_narrow(1, start, rows)?;
            place.f_copy_(&scores.f_softmax(-1, query.kind())?.f_matmul(&v)?)?;
        }
    }
    Ok(mixed.f_transpose(1, 2)?)
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

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn random(shape: &[i64]) -> Tensor {
        Tensor::randn(shape, (Kind::Float, Device::Cpu))
    }

    #[test]
    fn slices_give_what_the_fused_kernel_gives() {
        let (query, keys) = (
            random(&[2, 3, 5, 4]),
            KeyValue {
                keys: random(&[2, 3, 7, 4]),
                values: random(&[2, 3, 7, 4]),
            },
        );
        for mask in [
            None,
            Some(random(&[5, 7])),
            Some(random(&[2, 1, 5, 7])),
            Some(random(&[2, 3, 5, 7])),
        ] {
            let (whole, parts) = (
                fused(&query, &keys, mask.as_ref(), false).unwrap(),
                sliced(&query, &keys, mask.as_ref(), false).unwrap(),
            );
            assert!(whole.allclose(&parts, 1e-5, 1e-6, false), "{mask:?}");
        }
        let own = KeyValue {
            keys: random(&[2, 3, 5, 4]),
            values: random(&[2, 3, 5, 4]),
        };
        assert!(fused(&query, &own, None, true).unwrap().allclose(
            &sliced(&query, &own, None, true).unwrap(),
            1e-5,
            1e-6,
            false
        ));
    }

    #[test]
    fn a_long_sequence_is_cut_into_slices_of_queries() {
        let (time, length) = (1600, 1400);
        assert!(
            time * length > 2 * SLICE,
            "three slices, the last one shorter"
        );
        let keys = KeyValue {
            keys: random(&[1, 2, length, 4]),
            values: random(&[1, 2, length, 4]),
        };
        let (query, mask) = (random(&[1, 2, time, 4]), random(&[1, 2, time, length]));
        let whole = fused(&query, &keys, Some(&mask), false).unwrap();
        assert!(whole.allclose(
            &sliced(&query, &keys, Some(&mask), false).unwrap(),
            1e-4,
            1e-5,
            false
        ));
        let own = KeyValue {
            keys: random(&[1, 2, time, 4]),
            values: random(&[1, 2, time, 4]),
        };
        assert!(fused(&query, &own, None, true).unwrap().allclose(
            &sliced(&query, &own, None, true).unwrap(),
            1e-4,
            1e-5,
            false
        ));
    }
}
