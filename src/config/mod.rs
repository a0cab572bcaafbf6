//! The pipeline's YAML as a tree with a span at every node, its variables filled in; knows no stage kinds.

pub mod shape;

pub use shape::{Field, Fps, Params, Provenance, Secret, Type, Value};
