//! The pipeline's YAML as a tree with a span at every node, its variables filled in; knows no stage
//! kinds.

pub mod edit;
mod expand;
mod problem;
mod read;
pub mod schema;
pub mod shape;
mod source;
mod tree;
pub mod units;

pub use expand::{Environment, expand};
pub use problem::{Look, Problem, Problems, nearest};
pub use read::{Mention, Reader};
pub use shape::{Field, Fps, Params, Provenance, Secret, Setting, Type, Value};
pub use source::{Place, Source};
pub use tree::{Entry, Node, NodeKind, Scalar, parse};
