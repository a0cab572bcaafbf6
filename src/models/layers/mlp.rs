//! The feed-forward part of a transformer layer: two products and what stands between them.

use tch::{Device, Kind, Tensor};

use super::activation::Activation;
use super::linear::Linear;
use crate::error::Result;
use crate::models::offload::tensors;
use crate::models::weights::Scope;

/// QuickGELU is x * sigmoid(1.702 x).
const QUICK: f64 = 1.702;

tensors!(Mlp { fc1, fc2 });

/// Two fully connected layers, `fc1` and `fc2`, around an activation or a gate.
#[derive(Debug)]
pub struct Mlp {
    fc1: Linear,
    between: Between,
    fc2: Linear,
}

#[derive(Debug, Clone, Copy)]
enum Between {
    Activation(Activation),
    /// The first half through SiLU gates the second: Shazeer, "GLU Variants Improve Transformer"
    /// (arXiv:2002.05202).
    Gate,
}

impl Mlp {
    /// From `width` to `inner` numbers by the layer under `fc1`, and back by the one under `fc2`;
    /// both have biases, and both are [packed](Linear::packed).
    ///
    /// # Errors
    /// Model, where the weights do not fit.
    pub fn load(
        [fc1, fc2]: [&Scope<'_>; 2],
        width: i64,
        inner: i64,
        activation: Activation,
    ) -> Result<Self> {
        if activation != Activation::QuickGelu {
            return Self::new(
                Linear::load(fc1, width, inner)?,
                activation,
                Linear::load(fc2, inner, width)?,
            )
            .packed();
        }
        // x * sigmoid(1.702 x) is SiLU(1.702 x) / 1.702: a kernel of its own instead of three, with
        // both factors in the weights.
        let factor = |value: f64| Tensor::f_full([] as [i64; 0], value, (Kind::Float, Device::Cpu));
        let scaled = Linear::load_scaled(fc1, width, inner, &factor(QUICK)?, &factor(QUICK)?)?;
        let back = Linear::load_scaled(fc2, inner, width, &factor(1. / QUICK)?, &factor(1.)?)?;
        Self::new(scaled, Activation::Silu, back).packed()
    }

    /// Of these layers.
    pub fn new(fc1: Linear, activation: Activation, fc2: Linear) -> Self {
        Self {
            fc1,
            between: Between::Activation(activation),
            fc2,
        }
    }

    /// Of a first layer whose first half of outputs, through SiLU, gates its second.
    pub fn gated(fc1: Linear, fc2: Linear) -> Self {
        Self {
            fc1,
            between: Between::Gate,
            fc2,
        }
    }

    /// The same with its weights laid out for oneDNN: see [`Linear::packed`].
    ///
    /// # Errors
    /// Overload, where memory is short.
    pub fn packed(self) -> Result<Self> {
        Ok(Self {
            fc1: self.fc1.packed()?,
            fc2: self.fc2.packed()?,
            ..self
        })
    }

    /// `[.., width]` to the same.
    ///
    /// # Errors
    /// Model, where the shape does not fit; overload, where memory is short.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self.between {
            Between::Activation(activation) => self
                .fc2
                .forward(&self.fc1.forward_activated(x, activation)?),
            Between::Gate => {
                let both = self.fc1.forward(x)?;
                let inner = both.size().last().copied().unwrap_or(0) / 2;
                // Nobody else holds what the product gave, so it is written over.
                let gate = both.f_narrow(-1, 0, inner)?.f_silu_()?;
                let up = both.f_narrow(-1, inner, inner)?;
                self.fc2.forward(&gate.f_mul(&up)?)
            }
        }
    }
}
