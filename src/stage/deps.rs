//! What is shared by all stages of a pipeline.

/// What is shared by all stages of a pipeline.
#[derive(Debug, Default)]
pub struct Deps {}
