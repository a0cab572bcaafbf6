//! The families of pipelines, by how a prompt reaches the network.

/// How a prompt reaches the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// Through one text encoder: Stable Diffusion 1 and 2.
    Sd,
    /// Through two, with sizes: SDXL.
    Xl,
}
