//! Attention by oneDNN's products, a strip of queries at a time: on CPUs libtorch's fused kernel
//! multiplies small blocks by MKL, which takes up to three times as long.

use tch::{Device, Kind, Tensor};

use super::device::onednn_serves;
use super::matmul::{PostOp, product};
use crate::error::Result;

/// Scores that are in memory at once.
const STRIP: i64 = 1 << 20;

/// With fewer scores a head, the fused kernel is as fast.
const WORTHWHILE: i64 = 1 << 14;

/// Queries `[b, heads, t, dim]` over keys and values `[b, heads, length, dim]`: `softmax(q k^T /
/// sqrt(dim)) v`, `[b, heads, t, dim]`, in memory as `[b, t, heads, dim]`. Scores are f32 whatever
/// the number format. None where libtorch's kernel is the way (another device or number format,
/// short sequences).
///
/// # Errors
/// Model, where shapes do not fit; overload, where memory is short.
pub fn attention(query: &Tensor, keys: &Tensor, values: &Tensor) -> Result<Option<Tensor>> {
    let ((batch, heads, time, dim), length, width) =
        (query.size4()?, keys.size4()?.2, values.size4()?.3);
    let kind = query.kind();
    let here = [query, keys, values]
        .iter()
        .all(|part| part.device() == Device::Cpu && part.kind() == kind);
    if !(onednn_serves(kind) && here && time > 1 && time * length >= WORTHWHILE) {
        return Ok(None);
    }
    let query = query
        .f_to_kind(Kind::Float)?
        .f_mul_scalar(1. / (dim as f64).sqrt())?
        .f_contiguous()?;
    let keys = keys.f_to_kind(Kind::Float)?.f_contiguous()?;
    let values = values.f_transpose(2, 3)?.f_contiguous()?;
    let out = Tensor::f_empty([batch, time, heads, width], (kind, Device::Cpu))?;
    let strips = (time * length / STRIP + 1).min(time);
    for head in 0..batch * heads {
        let (item, head) = (head / heads, head % heads);
        let of = |part: &Tensor| part.f_select(0, item)?.f_select(0, head);
        let (query, keys, values) = (of(&query)?, of(&keys)?, of(&values)?);
        let mixed = out.f_select(0, item)?.f_select(1, head)?;
        for strip in query
            .f_tensor_split(strips, 0)?
            .iter()
            .zip(mixed.f_tensor_split(strips, 0)?)
        {
            let (asked, mut mixed) = strip;
            let weights = times(asked, &keys)?
                .f_softmax(-1, Kind::Float)?
                .f_to_kind(kind)?;
            mixed.f_copy_(&times(&weights, &values)?)?;
        }
    }
    Ok(Some(out.f_transpose(1, 2)?))
}

/// Fewer keys than this the fused kernel reads as fast, in f32.
const MANY: i64 = 512;

/// The same for a single query a head, as a decoder asks token by token: two plain products. In
/// half precision libtorch's fused kernel takes up to nine times as long. None where that kernel is
/// the way (another device, several queries, few keys).
///
/// # Errors
/// As for [`attention`].
pub fn attention_of_one(query: &Tensor, keys: &Tensor, values: &Tensor) -> Result<Option<Tensor>> {
    let ((_, _, time, dim), length) = (query.size4()?, keys.size4()?.2);
    if time != 1 || query.device() != Device::Cpu || query.kind() == Kind::Float && length < MANY {
        return Ok(None);
    }
    let scores = query
        .f_mul_scalar(1. / (dim as f64).sqrt())?
        .f_matmul(&keys.f_transpose(2, 3)?)?;
    Ok(Some(scores.f_softmax(-1, query.kind())?.f_matmul(values)?))
}

/// `[n, k]` times `[m, k]`.
fn times(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    match product(x, weight, None, PostOp::Nothing) {
        Some(product) => Ok(product),
        None => Ok(x.f_linear(weight, None::<&Tensor>)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::device::cpu_multiplies_bf16;

    fn random(shape: &[i64], kind: Kind) -> Tensor {
        (Tensor::randn(shape, (Kind::Float, Device::Cpu)) * 2.).to_kind(kind)
    }

    fn fused(query: &Tensor, keys: &Tensor, values: &Tensor) -> Tensor {
        Tensor::scaled_dot_product_attention(
            query,
            keys,
            values,
            None::<&Tensor>,
            0.,
            false,
            None,
            false,
        )
    }

    #[test]
    fn strips_give_what_the_fused_kernel_gives() {
        for (time, length) in [(300, 130), (2049, 1031), (20_000, 2)] {
            let parts = [[2, time, 3, 16], [2, length, 3, 16], [2, length, 3, 16]]
                .map(|shape| random(&shape, Kind::Float).transpose(1, 2));
            let [query, keys, values] = &parts;
            let found = attention(query, keys, values)
                .unwrap()
                .expect("it is worthwhile");
            assert!(
                found.allclose(&fused(query, keys, values), 1e-4, 1e-5, false),
                "{time} over {length}"
            );
        }
    }

    #[test]
    fn halves_are_as_near_as_the_fused_kernel() {
        if !cpu_multiplies_bf16() {
            return;
        }
        let [query, keys, values] = [[1, 2, 200, 32], [1, 2, 300, 32], [1, 2, 300, 32]]
            .map(|shape| random(&shape, Kind::BFloat16));
        let [q, k, v] = [&query, &keys, &values].map(|part| part.to_kind(Kind::Float));
        let expected = fused(&q, &k, &v);
        let error = |found: Tensor| {
            (found.to_kind(Kind::Float) - &expected)
                .norm()
                .double_value(&[])
                / expected.norm().double_value(&[])
        };
        let found = attention(&query, &keys, &values)
            .unwrap()
            .expect("it is worthwhile");
        assert_eq!(found.kind(), Kind::BFloat16);
        let (found, theirs) = (error(found), error(fused(&query, &keys, &values)));
        assert!(found < 1.5 * theirs, "{found} against {theirs}");
    }

    #[test]
    fn one_query_is_answered_as_by_the_fused_kernel() {
        for (kind, length) in [
            (Kind::Float, 700),
            (Kind::BFloat16, 700),
            (Kind::BFloat16, 9),
            (Kind::Half, 30),
        ] {
            let [query, keys, values] = [
                [2, 3, 1, 16],
                [2, 3, length + 5, 16],
                [2, 3, length + 5, 16],
            ]
            .map(|shape| random(&shape, kind));
            // As a cache gives them: room for more behind them.
            let [keys, values] = [keys, values].map(|part| part.narrow(2, 0, length));
            let found = attention_of_one(&query, &keys, &values)
                .unwrap()
                .expect("it is worthwhile");
            let [q, k, v] = [&query, &keys, &values].map(|part| part.to_kind(Kind::Float));
            let tolerance = if kind == Kind::Float { 1e-5 } else { 3e-2 };
            let expected = fused(&q, &k, &v);
            let error = (found.to_kind(Kind::Float) - &expected)
                .norm()
                .double_value(&[])
                / expected.norm().double_value(&[]);
            assert!(error < tolerance, "{kind:?} over {length}: {error}");
        }
        let of = |time, length| {
            attention_of_one(
                &random(&[1, 1, time, 8], Kind::Float),
                &random(&[1, 1, length, 8], Kind::Float),
                &random(&[1, 1, length, 8], Kind::Float),
            )
        };
        assert!(of(2, 700).unwrap().is_none() && of(1, 100).unwrap().is_none());
    }

    #[test]
    fn what_is_short_or_of_another_kind_is_left_to_libtorch() {
        let of = |time, kind| random(&[1, 2, time, 8], kind);
        assert!(
            attention(
                &of(50, Kind::Float),
                &of(50, Kind::Float),
                &of(50, Kind::Float)
            )
            .unwrap()
            .is_none()
        );
        assert!(
            attention(
                &of(1, Kind::Float),
                &of(30_000, Kind::Float),
                &of(30_000, Kind::Float)
            )
            .unwrap()
            .is_none()
        );
        assert!(
            attention(
                &of(300, Kind::Half),
                &of(300, Kind::Half),
                &of(300, Kind::Half)
            )
            .unwrap()
            .is_none()
        );
    }
}
