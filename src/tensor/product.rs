//! Products by oneDNN on CPUs, with what follows them in the same pass. libtorch multiplies f32 with MKL, which on other CPUs than Intel's
//! is half as fast; its C interface for compiled models (`shim_cpu.h`) reaches oneDNN.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{null, null_mut};

use tch::{Device, Kind, Tensor};

use super::device::cpu_multiplies_bf16;

/// Below this many multiplications oneDNN's set-up outweighs what it saves.
const WORTHWHILE: usize = 1 << 20;

/// What follows a product in the same pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
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

impl Then {
    /// oneDNN's operation and its variant, in libtorch's words.
    const fn words(self) -> (&'static CStr, &'static CStr) {
        match self {
            Then::Nothing => (c"none", c""),
            Then::Relu => (c"relu", c""),
            Then::Gelu => (c"gelu", c"none"),
            Then::GeluTanh => (c"gelu", c"tanh"),
            Then::Silu => (c"swish", c""),
        }
    }
}

/// `[.., input]` times a weight `[output, input]`, plus a bias `[output]`, and `then` of it. None where oneDNN is not the way to it
/// (another device or number format, too small a product) or refuses; libtorch's own operations then say why.
pub fn product(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, then: Then) -> Option<Tensor> {
    let (size, shape) = (x.size(), weight.size());
    let ([.., last], [_, input]) = (size.as_slice(), shape.as_slice()) else { return None };
    let kind = x.kind();
    let served = kind == Kind::Float || kind == Kind::BFloat16 && cpu_multiplies_bf16();
    let whole = [Some(x), Some(weight), bias].into_iter().flatten().all(|part| part.device() == Device::Cpu && part.kind() == kind);
    let rows = if *input > 0 { x.numel() / *input as usize } else { 0 };
    let worthwhile = rows > 1 && rows * weight.numel() >= WORTHWHILE;
    if !(served && whole && worthwhile && last == input && weight.is_contiguous()) {
        return None;
    }
    multiply(x, weight, bias, then)
}

#[allow(unsafe_code)]
fn multiply(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, then: Then) -> Option<Tensor> {
    let handle = |tensor: &Tensor| tensor.as_ptr().cast_mut().cast::<c_void>();
    let (operation, variant) = then.words();
    let (mut bias, variant) = (bias.map(handle), variant.as_ptr());
    let bias = bias.as_mut().map_or(null_mut(), |bias| bias as *mut _);
    let mut result = null_mut();
    // SAFETY: an AtenTensorHandle is a pointer to an at::Tensor, which is what tch holds; the arguments live until the call returns, are
    // not changed by it and have the shapes, device and kind that `product` has checked. It catches what libtorch throws.
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
    // SAFETY: on success `result` is an at::Tensor made by `new`, which nobody else owns; tch deletes it.
    (status == 0 && !result.is_null()).then(|| unsafe { Tensor::from_ptr(result.cast()) })
}

#[allow(unsafe_code)]
unsafe extern "C" {
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
    use super::*;

    fn random(shape: &[i64]) -> Tensor {
        Tensor::randn(shape, (Kind::Float, Device::Cpu))
    }

    #[test]
    fn products_are_libtorchs_with_what_follows() {
        // A view whose rows lie apart is multiplied as any other.
        let (x, weight, bias) = (random(&[20, 3, 256]).transpose(0, 1), random(&[128, 256]) / 16., random(&[128]));
        for bias in [None, Some(&bias)] {
            let plain = x.linear(&weight, bias);
            let followed = [
                (Then::Nothing, plain.shallow_clone()),
                (Then::Relu, plain.relu()),
                (Then::Gelu, plain.gelu("none")),
                (Then::GeluTanh, plain.gelu("tanh")),
                (Then::Silu, plain.silu()),
            ];
            for (then, expected) in followed {
                let found = product(&x, &weight, bias, then).expect("oneDNN serves it");
                assert!(found.allclose(&expected, 1e-5, 1e-5, false), "{then:?}");
            }
        }
    }

    #[test]
    fn what_onednn_does_not_serve_is_left_to_libtorch() {
        let (x, weight) = (random(&[60, 256]), random(&[128, 256]));
        assert!(product(&x, &weight, None, Then::Nothing).is_some());
        let narrow = random(&[60, 255]);
        let doubles = x.to_kind(Kind::Double);
        for (x, weight) in [(&narrow, &weight), (&doubles, &weight), (&x.narrow(0, 0, 1), &weight), (&x, &weight.transpose(0, 1).copy())] {
            assert!(product(x, weight, None, Then::Nothing).is_none(), "{:?} {:?}", x.size(), x.kind());
        }
    }
}
