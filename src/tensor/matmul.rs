//! Products by oneDNN on CPUs, with what follows them in the same pass. libtorch multiplies f32
//! with MKL, which on other CPUs than Intel's is half as fast; its C interface for compiled models
//! (`shim_cpu.h`) reaches oneDNN.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::ManuallyDrop;
use std::ptr::{null, null_mut};

use tch::{Device, Tensor};

use super::device::onednn_serves;
use crate::error::Result;

/// Below this many multiplications oneDNN's set-up outweighs what it saves.
const WORTHWHILE: usize = 1 << 20;

/// Below this many numbers a weight is read in no time however it lies.
const LARGE: usize = 1 << 16;

/// What follows a product in the same pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostOp {
    /// Nothing.
    Nothing,
    /// max(x, 0).
    Relu,
    /// x * Phi(x).
    Gelu,
    /// GELU by its tanh approximation.
    GeluTanh,
    /// x * sigmoid(x).
    Silu,
}

impl PostOp {
    /// oneDNN's operation and its variant, in libtorch's words.
    pub(super) const fn words(self) -> (&'static CStr, &'static CStr) {
        match self {
            PostOp::Nothing => (c"none", c""),
            PostOp::Relu => (c"relu", c""),
            PostOp::Gelu => (c"gelu", c"none"),
            PostOp::GeluTanh => (c"gelu", c"tanh"),
            PostOp::Silu => (c"swish", c""),
        }
    }
}

/// A weight `[output, input]` laid out as oneDNN reads it fastest, to be given to [`product`] and
/// to nothing else: few rows are bound by how fast a weight is read. None where oneDNN is not the
/// way (another device or number format), or the weight is small.
///
/// # Errors
/// Overload, where memory is short.
pub fn pack(weight: &Tensor) -> Result<Option<Tensor>> {
    if weight.device() != Device::Cpu
        || !onednn_serves(weight.kind())
        || weight.dim() != 2
        || weight.numel() < LARGE
        || weight.is_mkldnn()
    {
        return Ok(None);
    }
    Ok(reorder(&weight.f_contiguous()?))
}

/// `[.., input]` times a weight `[output, input]`, [packed](pack) or not, plus a bias `[output]`,
/// and `post_op` of it. None where oneDNN is not the way to it (another device or number format, too
/// small a product) or refuses; libtorch's own operations then say why.
pub fn product(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    post_op: PostOp,
) -> Option<Tensor> {
    let (size, shape) = (x.size(), weight.size());
    let ([.., last], [_, input]) = (size.as_slice(), shape.as_slice()) else {
        return None;
    };
    let kind = x.kind();
    let whole = [Some(x), Some(weight), bias]
        .into_iter()
        .flatten()
        .all(|part| part.device() == Device::Cpu && part.kind() == kind);
    let rows = if *input > 0 {
        x.numel() / *input as usize
    } else {
        0
    };
    let lies_well =
        || rows > 1 && rows * (shape[0] * input) as usize >= WORTHWHILE && weight.is_contiguous();
    if !(onednn_serves(kind)
        && whole
        && rows > 0
        && last == input
        && (weight.is_mkldnn() || lies_well()))
    {
        return None;
    }
    multiply(x, weight, bias, post_op)
}

#[allow(unsafe_code)]
fn multiply(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, post_op: PostOp) -> Option<Tensor> {
    let handle = |tensor: &Tensor| tensor.as_ptr().cast_mut().cast::<c_void>();
    let (operation, variant) = post_op.words();
    let (mut bias, variant) = (bias.map(handle), variant.as_ptr());
    let bias = bias.as_mut().map_or(null_mut(), |bias| bias as *mut _);
    let mut result = null_mut();
    // SAFETY: an AtenTensorHandle is a pointer to an at::Tensor, which is what tch holds; the
    // arguments live until the call returns, are not changed by it and have the shapes, device and
    // kind that `product` has checked. It catches what libtorch throws.
    let status = unsafe {
        aoti_torch_cpu__linear_pointwise(
            handle(x),
            handle(weight),
            bias,
            operation.as_ptr(),
            null(),
            0,
            &raw const variant,
            &raw mut result,
        )
    };
    // SAFETY: on success `result` is an at::Tensor made by `new`, which nobody else owns; tch
    // deletes it.
    (status == 0 && !result.is_null()).then(|| unsafe { Tensor::from_ptr(result.cast()) })
}

#[allow(unsafe_code)]
fn reorder(weight: &Tensor) -> Option<Tensor> {
    let taken = ManuallyDrop::new(weight.shallow_clone());
    // The tensor, and no number of rows: the layout that serves them all.
    let mut stack = [taken.as_ptr() as u64, 0];
    // SAFETY: the stack holds the operator's two arguments as shim.h lays them out, a tensor's
    // handle and 0 for an absent number. The callee takes the tensor over, which is why it is not
    // dropped here; it catches what libtorch throws.
    let status = unsafe {
        aoti_torch_call_dispatcher(
            c"mkldnn::_reorder_linear_weight".as_ptr(),
            c"".as_ptr(),
            stack.as_mut_ptr(),
        )
    };
    // SAFETY: on success the first place holds the result, an at::Tensor made by `new`, which
    // nobody else owns; tch deletes it.
    (status == 0 && stack[0] != 0).then(|| unsafe { Tensor::from_ptr(stack[0] as *mut _) })
}

#[allow(unsafe_code)]
unsafe extern "C" {
    /// torch/csrc/inductor/aoti_torch/c/shim.h, libtorch 2.11: a `StableIValue` is 64 bits.
    fn aoti_torch_call_dispatcher(
        operator: *const c_char,
        overload: *const c_char,
        stack: *mut u64,
    ) -> c_int;

    /// torch/csrc/inductor/aoti_torch/c/shim_cpu.h, libtorch 2.11.
    fn aoti_torch_cpu__linear_pointwise(
        x: *mut c_void,
        weight: *mut c_void,
        bias: *mut *mut c_void,
        operation: *const c_char,
        scalars: *const *const f64,
        scalar_count: i64,
        variant: *const *const c_char,
        result: *mut *mut c_void,
    ) -> c_int;
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;
    use crate::tensor::device::cpu_multiplies_bf16;

    fn random(shape: &[i64]) -> Tensor {
        Tensor::randn(shape, (Kind::Float, Device::Cpu))
    }

    #[test]
    fn products_are_libtorchs_with_what_follows() {
        // A view whose rows lie apart is multiplied as any other.
        let (x, weight, bias) = (
            random(&[20, 3, 256]).transpose(0, 1),
            random(&[128, 256]) / 16.,
            random(&[128]),
        );
        for bias in [None, Some(&bias)] {
            let plain = x.linear(&weight, bias);
            let followed = [
                (PostOp::Nothing, plain.shallow_clone()),
                (PostOp::Relu, plain.relu()),
                (PostOp::Gelu, plain.gelu("none")),
                (PostOp::GeluTanh, plain.gelu("tanh")),
                (PostOp::Silu, plain.silu()),
            ];
            for (post_op, expected) in followed {
                let found = product(&x, &weight, bias, post_op).expect("oneDNN serves it");
                assert!(found.allclose(&expected, 1e-5, 1e-5, false), "{post_op:?}");
            }
        }
    }

    #[test]
    fn packed_weights_multiply_as_they_did_and_can_be_had_back() {
        for kind in [Kind::Float, Kind::BFloat16] {
            let (weight, bias) = (
                (random(&[384, 256]) / 16.).to_kind(kind),
                random(&[384]).to_kind(kind),
            );
            let Some(packed) = pack(&weight).unwrap() else {
                assert!(kind == Kind::BFloat16 && !cpu_multiplies_bf16());
                continue;
            };
            assert!(packed.to_dense(None, false).equal(&weight));
            let tolerance = if kind == Kind::Float { 1e-5 } else { 2e-2 };
            for rows in [1, 2, 50, 300] {
                let x = random(&[rows, 256]).to_kind(kind);
                let found =
                    product(&x, &packed, Some(&bias), PostOp::Gelu).expect("oneDNN serves it");
                let expected = x
                    .to_kind(Kind::Float)
                    .linear(
                        &weight.to_kind(Kind::Float),
                        Some(&bias.to_kind(Kind::Float)),
                    )
                    .gelu("none");
                assert!(
                    found
                        .to_kind(Kind::Float)
                        .allclose(&expected, tolerance, tolerance, false),
                    "{rows} rows of {kind:?}"
                );
            }
            assert!(
                product(
                    &random(&[2, 255]).to_kind(kind),
                    &packed,
                    None,
                    PostOp::Nothing
                )
                .is_none()
            );
        }
        assert!(pack(&random(&[100, 100])).unwrap().is_none(), "too small");
        assert!(
            pack(&random(&[384, 256]).to_kind(Kind::Double))
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn what_onednn_does_not_serve_is_left_to_libtorch() {
        let (x, weight) = (random(&[60, 256]), random(&[128, 256]));
        assert!(product(&x, &weight, None, PostOp::Nothing).is_some());
        let narrow = random(&[60, 255]);
        let doubles = x.to_kind(Kind::Double);
        for (x, weight) in [
            (&narrow, &weight),
            (&doubles, &weight),
            (&x.narrow(0, 0, 1), &weight),
            (&x, &weight.transpose(0, 1).copy()),
        ] {
            assert!(
                product(x, weight, None, PostOp::Nothing).is_none(),
                "{:?} {:?}",
                x.size(),
                x.kind()
            );
        }
    }
}
