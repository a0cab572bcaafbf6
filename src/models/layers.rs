//! The layers that networks here are made of, as inference wants them: batch norm folded into the
//! convolution before it, weights laid out channels-last, no dropout.

use std::cell::{Cell, RefCell};

use tch::Tensor;

use super::config::Config;
use super::offload::tensors;
use super::weights::Scope;
use crate::error::Result;
use crate::tensor::{Conv2dParams, PostOp, channels_last, group_norm, pack, product};

tensors!(Conv2d { weight, bias });
tensors!(Linear { weight, bias });
tensors!(Embedding { 0 });
tensors!(LayerNorm { weight, bias });
tensors!(GroupNorm { weight, bias });

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
            [stride, stride],
            [kernel / 2, kernel / 2],
            [1, 1],
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
        stride: [i64; 2],
        padding: [i64; 2],
        dilation: [i64; 2],
    ) -> Result<Self> {
        let weight = channels_last(&scope.weights().place(weight)?)?;
        let bias = scope.weights().place(bias)?;
        Ok(Self {
            weight: RefCell::new(weight),
            bias,
            params: Conv2dParams {
                stride,
                padding,
                dilation,
            },
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
        let params = Conv2dParams {
            stride,
            padding,
            dilation: [1, 1],
        };
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

/// Batch norm at inference: `x * scale + shift` per channel.
#[derive(Debug)]
pub struct Affine {
    /// Factor per channel.
    pub scale: Tensor,
    /// Summand per channel.
    pub shift: Tensor,
}

impl Affine {
    /// From running mean and variance, in f32 on the CPU; the arithmetic is done in f64.
    pub fn load_batch_norm(norm: &Scope<'_>, channels: i64, epsilon: f64) -> Result<Self> {
        let take = |name| -> Result<Tensor> {
            Ok(norm
                .take_f32(name, &[channels])?
                .f_to_kind(tch::Kind::Double)?)
        };
        let (weight, bias, mean, variance) = (
            take("weight")?,
            take("bias")?,
            take("running_mean")?,
            take("running_var")?,
        );
        let scale = weight.f_div(&variance.f_add_scalar(epsilon)?.f_sqrt()?)?;
        let shift = bias.f_sub(&mean.f_mul(&scale)?)?;
        Ok(Self {
            scale: scale.f_to_kind(tch::Kind::Float)?,
            shift: shift.f_to_kind(tch::Kind::Float)?,
        })
    }

    /// The weight of a convolution that this follows, with the factor folded in.
    pub fn scale_outputs(&self, weight: &Tensor) -> Result<Tensor> {
        Ok(weight.f_mul(&self.scale.f_view([-1, 1, 1, 1])?)?)
    }
}

/// A fully connected layer.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// In the model's precision, with a bias.
    pub fn load(scope: &Scope<'_>, input: i64, output: i64) -> Result<Self> {
        Self::load_biased(scope, input, output, true)
    }

    /// In the model's precision, with or without a bias.
    pub fn load_biased(scope: &Scope<'_>, input: i64, output: i64, biased: bool) -> Result<Self> {
        let weight = scope.take("weight", &[output, input])?;
        Ok(Self {
            weight,
            bias: if biased {
                Some(scope.take("bias", &[output])?)
            } else {
                None
            },
        })
    }

    /// In f32 whatever the model's precision, for heads that decide.
    pub fn load_f32(scope: &Scope<'_>, input: i64, output: i64) -> Result<Self> {
        let device = scope.weights().device();
        let weight = scope
            .take_f32("weight", &[output, input])?
            .f_to_device(device)?;
        let bias = scope.take_f32("bias", &[output])?.f_to_device(device)?;
        Ok(Self {
            weight,
            bias: Some(bias),
        })
    }

    /// With its weight and its bias each multiplied by a factor, `[]` or `[output]`: what is
    /// constant after it, or before it, costs nothing when it runs.
    pub fn load_scaled(
        scope: &Scope<'_>,
        input: i64,
        output: i64,
        weight: &Tensor,
        bias: &Tensor,
    ) -> Result<Self> {
        let scaled = scope
            .take_f32("weight", &[output, input])?
            .f_mul(&weight.f_reshape([-1, 1])?)?;
        let bias = scope.take_f32("bias", &[output])?.f_mul(bias)?;
        Ok(Self {
            weight: scope.weights().place(&scaled)?,
            bias: Some(scope.weights().place(&bias)?),
        })
    }

    /// From tensors that do not lie under `weight` and `bias`.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight, bias }
    }

    /// The same with its weight laid out for oneDNN, where it lies on a CPU: for few rows half the
    /// time or less. Its weight cannot be looked at then. A table of words that is a head, too, is
    /// copied for it.
    pub fn packed(self) -> Result<Self> {
        Ok(match pack(&self.weight)? {
            Some(weight) => Self { weight, ..self },
            None => self,
        })
    }

    /// `[output, input]`.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// One number for each of its outputs.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// `[..., input]` to `[..., output]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match product(x, &self.weight, self.bias.as_ref(), PostOp::Nothing) {
            Some(product) => Ok(product),
            // A packed weight is refused where x does not fit: libtorch's own says why.
            None if self.weight.is_mkldnn() => {
                Ok(x.f_linear(&self.weight.f_to_dense(None, false)?, self.bias.as_ref())?)
            }
            None => Ok(x.f_linear(&self.weight, self.bias.as_ref())?),
        }
    }

    /// The same, and the activation of it, in one pass where the device can.
    pub fn forward_activated(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        let fused = activation
            .fused()
            .and_then(|then| product(x, &self.weight, self.bias.as_ref(), then));
        match fused {
            Some(product) => Ok(product),
            None => activation.forward(&self.forward(x)?),
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

/// A table of vectors by number.
#[derive(Debug)]
pub struct Embedding(Tensor);

impl Embedding {
    /// `count` vectors of `width`, in the model's precision.
    pub fn load(scope: &Scope<'_>, count: i64, width: i64) -> Result<Self> {
        Ok(Self(scope.take("weight", &[count, width])?))
    }

    /// Of this table, `[count, width]`.
    pub fn new(table: Tensor) -> Self {
        Self(table)
    }

    /// `[count, width]`.
    pub fn weight(&self) -> &Tensor {
        &self.0
    }

    /// Numbers of any shape, each replaced by its vector: `[..., width]`.
    pub fn forward(&self, numbers: &Tensor) -> Result<Tensor> {
        Ok(Tensor::f_embedding(&self.0, numbers, -1, false, false)?)
    }
}

/// Normalisation over the last dimension.
#[derive(Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    epsilon: f64,
}

impl LayerNorm {
    /// In the model's precision; `epsilon` is added to the variance.
    pub fn load(scope: &Scope<'_>, size: i64, epsilon: f64) -> Result<Self> {
        Ok(Self {
            weight: scope.take("weight", &[size])?,
            bias: scope.take("bias", &[size])?,
            epsilon,
        })
    }

    /// Values of mean 0 and variance 1, scaled and shifted.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_layer_norm(
            self.weight.size(),
            Some(&self.weight),
            Some(&self.bias),
            self.epsilon,
            true,
        )?)
    }
}

/// Normalisation over groups of channels of a picture.
#[derive(Debug)]
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: i64,
    epsilon: f64,
}

impl GroupNorm {
    /// `channels` in `groups`, in the model's precision; `epsilon` is added to the variance.
    pub fn load(scope: &Scope<'_>, channels: i64, groups: i64, epsilon: f64) -> Result<Self> {
        Ok(Self {
            weight: scope.take("weight", &[channels])?,
            bias: scope.take("bias", &[channels])?,
            groups,
            epsilon,
        })
    }

    /// `[n, channels, ...]` to the same.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        group_norm(x, self.groups, &self.weight, &self.bias, self.epsilon)
    }
}

/// What stands between two layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x * Phi(x).
    Gelu,
    /// GELU by its tanh approximation.
    GeluTanh,
    /// x * sigmoid(1.702 x), as OpenAI's CLIP has it.
    QuickGelu,
    /// x * sigmoid(x).
    Silu,
    /// max(x, 0).
    Relu,
}

impl Activation {
    /// The activation that `field` of a config.json names, in transformers' words; `default` where
    /// it is missing.
    ///
    /// # Errors
    /// Model, where it is none of these.
    pub fn read(config: &Config, field: &str, default: &str) -> Result<Self> {
        match config.string_or(field, default)? {
            "gelu" => Ok(Self::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Self::GeluTanh),
            "quick_gelu" => Ok(Self::QuickGelu),
            "silu" | "swish" => Ok(Self::Silu),
            "relu" => Ok(Self::Relu),
            other => Err(config.error(format_args!(
                "`{field}` must be gelu, gelu_new, gelu_pytorch_tanh, quick_gelu, silu or relu, \
                 it is {other}"
            ))),
        }
    }

    /// As what may follow a product in the same pass.
    fn fused(self) -> Option<PostOp> {
        match self {
            Self::Gelu => Some(PostOp::Gelu),
            Self::GeluTanh => Some(PostOp::GeluTanh),
            Self::Silu => Some(PostOp::Silu),
            Self::Relu => Some(PostOp::Relu),
            Self::QuickGelu => None,
        }
    }

    /// Of every value.
    pub fn forward(self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Gelu => x.f_gelu("none")?,
            Self::GeluTanh => x.f_gelu("tanh")?,
            Self::QuickGelu => x.f_mul(&x.f_mul_scalar(1.702)?.f_sigmoid_()?)?,
            Self::Silu => x.f_silu()?,
            Self::Relu => x.f_relu()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::super::golden::relative_error;
    use super::*;

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
