//! Several inputs of a stage as one sequence of inputs and marks: merged as they come, or joined by
//! spans. One input alone passes straight through.

mod combiner;
mod join;
mod merge;
mod sequence;
mod single;

pub(crate) use combiner::Combiner;
pub use join::{JoinSettings, Late};
pub(crate) use sequence::{Combine, Combined};
