//! What is asked of a pipeline, and what may be.

use tch::Tensor;

/// The largest side of a picture, in pixels: what comes of more only runs out of memory.
pub(super) const MAX_SIDE: i64 = 8192;

/// A picture that is asked for.
#[derive(Debug)]
pub struct DiffusionRequest {
    /// What it shows.
    pub prompt: String,
    /// What it does not show, for guidance above 1. None is the empty text, or for SDXL nothing at
    /// all.
    pub negative_prompt: Option<String>,
    /// Pixels a row, a multiple of the pipeline's [`factor`](super::Pipeline::factor).
    pub width: i64,
    /// Rows, likewise.
    pub height: i64,
    /// Steps from noise to a picture; at [`Start::Picture`] the part of them that is its strength
    /// is done, by latent consistency models all.
    pub steps: usize,
    /// How much more the prompt counts than the negative prompt. At 1 or less the latter is not
    /// asked, and a step costs half as much: turbo models want 0. Models distilled with guidance
    /// (LCM) take it as an input, at one step's cost.
    pub guidance: f64,
    /// What its noise begins from, of which the lower 32 bits count: equal seeds give equal
    /// pictures on the same device.
    pub seed: u64,
    /// What it is made from.
    pub start: Start,
}

/// What a picture is made from.
#[derive(Debug, Default)]
pub enum Start {
    /// Noise alone.
    #[default]
    Noise,
    /// Another picture.
    Picture(Source),
}

/// The picture that another is made from.
#[derive(Debug)]
pub struct Source {
    /// Bytes `[h, w, 3]`, of any size: it is scaled where it is not the request's.
    pub pixels: Tensor,
    /// Above 0, at most 1: how much of it becomes noise.
    pub strength: f64,
    /// The latents of the picture before, f32 `[c, h, w]`, and the part that they have in this
    /// one's, 0 to 1: what moves little stays the same from picture to picture.
    pub previous: Option<(Tensor, f64)>,
}

/// A picture that was made.
#[derive(Debug)]
pub struct GeneratedPicture {
    /// Bytes `[h, w, 3]`, on the CPU.
    pub pixels: Tensor,
    /// Its latents `[c, h, w]`, f32, on the CPU.
    pub latents: Tensor,
}

impl DiffusionRequest {
    /// Its strength, by which its steps are counted.
    pub(super) fn strength(&self) -> f64 {
        match &self.start {
            Start::Noise => 1.,
            Start::Picture(source) => source.strength,
        }
    }

    /// Whether two can be denoised side by side: of equal size, steps, strength and guidance.
    pub(super) fn batches_with(&self, other: &Self) -> bool {
        let same =
            |number: &dyn Fn(&Self) -> f64| number(self).to_bits() == number(other).to_bits();
        (self.width, self.height, self.steps) == (other.width, other.height, other.steps)
            && same(&Self::strength)
            && same(&|request| request.guidance)
            && std::mem::discriminant(&self.start) == std::mem::discriminant(&other.start)
    }
}
