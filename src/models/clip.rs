//! CLIP: pictures and texts as vectors of one space. Radford et al., "Learning Transferable Visual Models From Natural Language
//! Supervision" (arXiv:2103.00020); the reference is transformers' `modeling_clip.py`, whose checkpoint keys it reads.

mod text;

pub use text::{ClipText, ClipTextConfig, TextStates};

#[cfg(test)]
mod tests;
