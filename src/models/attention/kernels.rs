//! Scaled dot-product attention, in the two ways that [`AttentionKind`](super::AttentionKind)
//! names: by fused kernels, or in slices that bound the scores in memory.

use tch::Tensor;

use crate::error::Result;
use crate::tensor::{attention, attention_of_one};

/// Scores of a slice.
const SLICE: i64 = 1 << 20;

/// The keys and values of a sequence, `[b, count, length, dim]` each.
#[derive(Debug)]
pub struct KeyValue {
    /// What queries are compared with.
    pub keys: Tensor,
    /// What is mixed.
    pub values: Tensor,
}

pub(super) fn fused(
    query: &Tensor,
    keys: &KeyValue,
    mask: Option<&Tensor>,
    causal: bool,
) -> Result<Tensor> {
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

pub(super) fn sliced(
    query: &Tensor,
    keys: &KeyValue,
    mask: Option<&Tensor>,
    causal: bool,
) -> Result<Tensor> {
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

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

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
