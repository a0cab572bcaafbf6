//! Convolutions over pictures and sequences.

use std::cell::{Cell, RefCell};

use tch::Tensor;

use super::batch_norm::Affine;
use crate::error::Result;
use crate::models::offload::tensors;
use crate::models::weights::Scope;
use crate::tensor::{Conv2dParams, PostOp, channels_last};

tensors!(Conv2d { weight, bias });

/// A convolution over pictures or sequences, where its kernel goes.
#[derive(Debug, Clone, Copy)]
pub struct ConvConfig {
    /// Channels in.
    pub input: i64,
    /// Channels out.
    pub output: i64,
    /// Side of the square kernel, or length.
    pub kernel: i64,
    /// Pixels or steps from one output to the next; padding is half the kernel.
    pub stride: i64,
}

/// A convolution with its bias, and with the batch norm that followed it folded in.
#[derive(Debug)]
pub struct Conv2d {
    weight: RefCell<Tensor>,
    bias: Tensor,
    params: Conv2dParams,
    layout: Cell<Layout>,
}

/// How a convolution's weight lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// As libtorch has it.
    Plain,
    /// As libtorch has it until pictures come, whose size decides how oneDNN wants it.
    Waiting,
    /// As oneDNN wanted it for pictures of this height and width.
    Packed([i64; 2]),
}

impl Conv2d {
    /// From `conv`'s weight (and bias, where `biased`) and the batch norm under `norm`.
    pub fn load_folded(
        conv: &Scope<'_>,
        biased: bool,
        norm: &Scope<'_>,
        geometry: ConvConfig,
    ) -> Result<Self> {
        Self::load_folded_scaled(conv, biased, norm, geometry, 1.)
    }

    /// The same, for input that is the network's times `factor`: bytes where it wants 0..1 need no
    /// pass of their own to be scaled.
    pub fn load_folded_scaled(
        conv: &Scope<'_>,
        biased: bool,
        norm: &Scope<'_>,
        geometry: ConvConfig,
        factor: f64,
    ) -> Result<Self> {
        let ConvConfig {
            input,
            output,
            kernel,
            stride,
        } = geometry;
        let weight = conv.take_f32("weight", &[output, input, kernel, kernel])?;
        let bias = if biased {
            Some(conv.take_f32("bias", &[output])?)
        } else {
            None
        };
        let affine = Affine::load_batch_norm(norm, output, 1e-5)?;
        let weight = affine.scale_outputs(&weight)?.f_div_scalar(factor)?;
        let bias = match bias {
            Some(bias) => bias.f_mul(&affine.scale)?.f_add(&affine.shift)?,
            None => affine.shift,
        };
        Self::place(
            conv,
            &weight,
            &bias,
            Conv2dParams::dense([stride, stride], [kernel / 2, kernel / 2]),
        )
    }

    /// As the checkpoint has it, with no batch norm after it; padding is half the kernel.
    pub fn load(scope: &Scope<'_>, geometry: ConvConfig) -> Result<Self> {
        let ConvConfig {
            input,
            output,
            kernel,
            stride,
        } = geometry;
        let (weight, bias) = (
            scope.take("weight", &[output, input, kernel, kernel])?,
            scope.take("bias", &[output])?,
        );
        Self::build(&weight, &bias, [stride, stride], [kernel / 2, kernel / 2])
    }

    /// From weights computed in f32 on the CPU, put where `scope`'s weights go.
    pub fn place(
        scope: &Scope<'_>,
        weight: &Tensor,
        bias: &Tensor,
        params: Conv2dParams,
    ) -> Result<Self> {
        let weight = channels_last(&scope.weights().place(weight)?)?;
        let bias = scope.weights().place(bias)?;
        Ok(Self {
            weight: RefCell::new(weight),
            bias,
            params,
            layout: Cell::new(Layout::Plain),
        })
    }

    /// Of these weights, where they lie.
    pub fn build(
        weight: &Tensor,
        bias: &Tensor,
        stride: [i64; 2],
        padding: [i64; 2],
    ) -> Result<Self> {
        let params = Conv2dParams::dense(stride, padding);
        Ok(Self {
            weight: RefCell::new(channels_last(weight)?),
            bias: bias.shallow_clone(),
            params,
            layout: Cell::new(Layout::Plain),
        })
    }

    /// The same with its weight laid out for oneDNN, where it lies on a CPU: for wide layers, whose
    /// weights are large beside the picture. That is done for the size of the pictures that come,
    /// and again where another size comes; how many come at once hardly matters to it.
    pub fn packed(self) -> Self {
        self.layout.set(Layout::Waiting);
        self
    }

    /// Lays the weight out for pictures of the size of `x`, unless it lies so. Says whether it is
    /// packed.
    fn pack_for(&self, x: &Tensor) -> Result<bool> {
        let (layout, size) = (self.layout.get(), x.size());
        let [_, channels, height, width] = size[..] else {
            return Ok(false);
        };
        if layout == Layout::Plain || channels != self.weight.borrow().size()[1] {
            return Ok(false);
        }
        if layout == Layout::Packed([height, width]) {
            return Ok(true);
        }
        // By libtorch's layout: oneDNN's way from one of its own to another takes twenty times as
        // long.
        let plain = self.weight()?;
        let packed = self.params.pack(&plain, &size)?;
        self.layout.set(if packed.is_some() {
            Layout::Packed([height, width])
        } else {
            Layout::Plain
        });
        *self.weight.borrow_mut() = packed.unwrap_or(plain);
        Ok(self.layout.get() != Layout::Plain)
    }

    /// `[output, input, h, w]`.
    pub fn weight(&self) -> Result<Tensor> {
        let weight = self.weight.borrow();
        if let Layout::Packed(_) = self.layout.get() {
            Conv2dParams::unpack(&weight)
        } else {
            Ok(weight.shallow_clone())
        }
    }

    /// One number for each of its outputs.
    pub fn bias(&self) -> &Tensor {
        &self.bias
    }

    /// `[n, input, h, w]`, best channels-last, to `[n, output, h', w']`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_biased(x, Some(&self.bias))
    }

    /// The same, and max(x, 0) of it, in one pass where the device can.
    pub fn forward_relu(&self, x: &Tensor) -> Result<Tensor> {
        let fused = if self.pack_for(x)? {
            self.params
                .packed(x, &self.weight.borrow(), Some(&self.bias), PostOp::Relu)
        } else {
            None
        };
        match fused {
            Some(made) => Ok(made),
            None => Ok(self.forward(x)?.f_relu_()?),
        }
    }

    /// As [`forward`](Self::forward), with another bias, or with none.
    pub fn forward_biased(&self, x: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let Conv2dParams {
            stride,
            padding,
            dilation,
        } = self.params;
        let packed = if self.pack_for(x)? {
            self.params
                .packed(x, &self.weight.borrow(), bias, PostOp::Nothing)
        } else {
            None
        };
        match packed {
            Some(made) => Ok(made),
            // What is not packed; or oneDNN refuses what does not fit, and libtorch's own says why.
            None => Ok(x.f_conv2d(&self.weight()?, bias, stride, padding, dilation, 1)?),
        }
    }
}

/// A convolution over a sequence.
#[derive(Debug)]
pub struct Conv1d {
    weight: Tensor,
    bias: Option<Tensor>,
    stride: i64,
}

impl Conv1d {
    /// In the model's precision, with a bias; padding is half the kernel.
    pub fn load(scope: &Scope<'_>, geometry: ConvConfig) -> Result<Self> {
        let ConvConfig {
            input,
            output,
            kernel,
            stride,
        } = geometry;
        Ok(Self {
            weight: scope.take("weight", &[output, input, kernel])?,
            bias: Some(scope.take("bias", &[output])?),
            stride,
        })
    }

    /// `[n, input, t]` to `[n, output, t']`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let padding = self.weight.size3()?.2 / 2;
        Ok(x.f_conv1d(&self.weight, self.bias.as_ref(), self.stride, padding, 1, 1)?)
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::models::golden::relative_error;

    #[test]
    fn a_packed_convolution_gives_what_libtorchs_gives_whatever_size_comes() {
        for precision in [Kind::Float, Kind::BFloat16] {
            let random =
                |size: &[i64]| Tensor::randn(size, (Kind::Float, Device::Cpu)).to_kind(precision);
            let (weight, bias) = (random(&[96, 96, 3, 3]), random(&[96]));
            let packed = Conv2d::build(&weight, &bias, [1, 1], [1, 1])
                .unwrap()
                .packed();
            for size in [
                [1, 96, 8, 8],
                [1, 96, 16, 16],
                [2, 96, 16, 16],
                [2, 96, 9, 7],
                [1, 96, 8, 8],
            ] {
                let x = channels_last(&random(&size)).unwrap();
                let expected = x.conv2d(&weight, Some(&bias), [1, 1], [1, 1], [1, 1], 1);
                let error = relative_error(&packed.forward(&x).unwrap(), &expected);
                assert!(
                    error < if precision == Kind::Float { 1e-5 } else { 1e-2 },
                    "{size:?} in {precision:?}: {error}"
                );
                assert!(packed.weight().unwrap().equal(&weight));
                assert!(packed.forward(&random(&[1, 95, 8, 8])).is_err());
            }
        }
    }
}
