//! Convolutions by oneDNN on CPUs with weights laid out for it beforehand: libtorch's own lays them
//! out again in every call, which for wide layers over small pictures takes longer than the
//! convolution. Reached, as products are, through libtorch's C interface for compiled models.

use std::ffi::{c_char, c_int, c_void};
use std::ptr::{null, null_mut};

use tch::{Device, Tensor};

use super::device::onednn_serves;
use super::matmul::PostOp;
use crate::error::Result;

/// Where the kernel of a convolution over pictures goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2dParams {
    /// Pixels from one output to the next.
    pub stride: [i64; 2],
    /// Zeros around the picture.
    pub padding: [i64; 2],
    /// Pixels from one tap of the kernel to the next.
    pub dilation: [i64; 2],
}

impl Conv2dParams {
    /// Of taps that lie side by side.
    pub const fn dense(stride: [i64; 2], padding: [i64; 2]) -> Self {
        Self {
            stride,
            padding,
            dilation: [1, 1],
        }
    }

    /// A weight `[output, input, h, w]` as oneDNN wants it for pictures of the size `pictures`,
    /// `[n, input, h, w]`, to be given to [`packed`](Self::packed) and to nothing else. None where
    /// oneDNN is not the way (another device or number format, pictures that do not fit).
    ///
    /// # Errors
    /// Overload, where memory is short.
    pub fn pack(&self, weight: &Tensor, pictures: &[i64]) -> Result<Option<Tensor>> {
        if weight.device() != Device::Cpu
            || !onednn_serves(weight.kind())
            || weight.dim() != 4
            || pictures.len() != 4
            || pictures[1] != weight.size()[1]
        {
            return Ok(None);
        }
        let opaque = weight.f_contiguous()?.f_to_mkldnn(None)?;
        Ok(Some(opaque.f_mkldnn_reorder_conv2d_weight(
            self.padding,
            self.stride,
            self.dilation,
            1,
            Some(pictures),
        )?))
    }

    /// The weight `[output, input, h, w]` that was [packed](Self::pack).
    ///
    /// # Errors
    /// Overload, where memory is short.
    pub fn unpack(packed: &Tensor) -> Result<Tensor> {
        Ok(packed.f_to_dense(None, false)?)
    }

    /// Pictures `[n, input, h, w]` under a [packed](Self::pack) weight, plus a bias `[output]`, and
    /// `post_op` of it: channels-last. None where oneDNN refuses.
    pub fn packed(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        post_op: PostOp,
    ) -> Option<Tensor> {
        let fits = |part: &Tensor| part.device() == Device::Cpu && part.kind() == weight.kind();
        if x.dim() != 4
            || !fits(x)
            || !bias.is_none_or(|bias| fits(bias) && !bias.is_mkldnn())
            || !weight.is_mkldnn()
        {
            return None;
        }
        convolve(x, weight, bias, self, post_op)
    }
}

#[allow(unsafe_code)]
fn convolve(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    params: &Conv2dParams,
    post_op: PostOp,
) -> Option<Tensor> {
    let handle = |tensor: &Tensor| tensor.as_ptr().cast_mut().cast::<c_void>();
    let mut bias = bias.map(handle);
    let bias = bias.as_mut().map_or(null_mut(), |bias| bias as *mut _);
    let (operation, variant) = post_op.words();
    let variant = variant.as_ptr();
    let mut result = null_mut();
    // SAFETY: an AtenTensorHandle is a pointer to an at::Tensor, which is what tch holds; the
    // arguments live until the call returns and are not changed by it; every list has the length
    // that is given with it. It catches what libtorch throws, of shapes too.
    let status = unsafe {
        aoti_torch_cpu_mkldnn__convolution_pointwise(
            handle(x),
            handle(weight),
            bias,
            params.padding.as_ptr(),
            2,
            params.stride.as_ptr(),
            2,
            params.dilation.as_ptr(),
            2,
            1,
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
unsafe extern "C" {
    /// torch/csrc/inductor/aoti_torch/c/shim_cpu.h, libtorch 2.11.
    fn aoti_torch_cpu_mkldnn__convolution_pointwise(
        x: *mut c_void,
        weight: *mut c_void,
        bias: *mut *mut c_void,
        padding: *const i64,
        padding_count: i64,
        stride: *const i64,
        stride_count: i64,
        dilation: *const i64,
        dilation_count: i64,
        groups: i64,
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

    fn random(shape: &[i64]) -> Tensor {
        Tensor::randn(shape, (Kind::Float, Device::Cpu))
    }

    #[test]
    fn packed_convolutions_are_libtorchs_and_channels_last() {
        let (weight, bias) = (random(&[32, 16, 3, 3]), random(&[32]));
        for (stride, padding) in [([1, 1], [1, 1]), ([2, 2], [1, 1]), ([2, 2], [0, 0])] {
            let params = Conv2dParams {
                stride,
                padding,
                dilation: [1, 1],
            };
            let packed = params
                .pack(&weight, &[1, weight.size()[1], 9, 12])
                .unwrap()
                .expect("oneDNN serves f32");
            for x in [
                random(&[2, 16, 9, 12]),
                crate::tensor::channels_last(&random(&[1, 16, 5, 6])).unwrap(),
            ] {
                for bias in [None, Some(&bias)] {
                    let expected = x.conv2d(&weight, bias, stride, padding, [1, 1], 1);
                    for (post_op, expected) in [
                        (PostOp::Nothing, expected.shallow_clone()),
                        (PostOp::Relu, expected.relu()),
                    ] {
                        let found = params
                            .packed(&x, &packed, bias, post_op)
                            .expect("oneDNN serves it");
                        assert!(
                            found.allclose(&expected, 1e-4, 1e-4, false) && found.stride()[1] == 1,
                            "{params:?}, {post_op:?}"
                        );
                    }
                }
            }
            assert!(
                Conv2dParams::unpack(&packed).unwrap().equal(&weight),
                "the weight is had back as it was"
            );
        }
    }

    #[test]
    fn what_onednn_does_not_serve_is_left_to_libtorch() {
        let params = Conv2dParams {
            stride: [1, 1],
            padding: [0, 0],
            dilation: [1, 1],
        };
        let weight = random(&[8, 4, 3, 3]);
        assert!(
            params
                .pack(&weight.to_kind(Kind::Double), &[1, 4, 3, 3])
                .unwrap()
                .is_none()
        );
        let packed = params
            .pack(&weight, &[1, weight.size()[1], 9, 12])
            .unwrap()
            .expect("oneDNN serves f32");
        assert!(
            params
                .packed(
                    &random(&[1, 4, 3, 3]).to_kind(Kind::Double),
                    &packed,
                    None,
                    PostOp::Nothing
                )
                .is_none()
        );
        assert!(
            params
                .packed(&random(&[1, 4, 3, 3]), &weight, None, PostOp::Nothing)
                .is_none(),
            "a weight that is not packed"
        );
    }
}
