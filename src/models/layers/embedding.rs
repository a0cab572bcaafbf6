//! Tables of vectors that are looked up by number: of tokens, of positions.

use tch::Tensor;

use crate::error::Result;
use crate::models::offload::tensors;
use crate::models::weights::Scope;

tensors!(Embedding { 0 });

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
