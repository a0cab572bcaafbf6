//! How an autoencoder saves memory.

use tch::Tensor;

use crate::error::Result;

/// What is done so that many or large pictures need less memory. The default is neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VaeOptions {
    /// One picture of a batch at a time: the same pictures.
    pub slicing: bool,
    /// A large picture in overlapping tiles, blended: another picture, if little.
    pub tiling: bool,
}

impl VaeOptions {
    /// `each` of the whole batch, or of one item after the other.
    pub(super) fn in_slices(
        self,
        batch: &Tensor,
        each: &dyn Fn(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let count = batch.size()[0];
        if !self.slicing || count < 2 {
            return each(batch);
        }
        let parts: Vec<Tensor> = (0..count)
            .map(|item| each(&batch.f_narrow(0, item, 1)?))
            .collect::<Result<_>>()?;
        Ok(Tensor::f_cat(&parts, 0)?)
    }
}
