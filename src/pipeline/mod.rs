//! A checked pipeline: spawned, run, drained.

pub mod plan;
