//! The pipeline's YAML as a tree with a span at every node, its variables filled in; knows no stage
//! kinds.

pub(crate) mod edit;
mod expand;
mod node;
mod problem;
mod read;
pub(crate) mod schema;
pub mod shape;
mod source_text;
mod tree;
pub(crate) mod units;

pub use expand::Environment;
pub(crate) use expand::expand;
pub(crate) use node::{Entry, Node, NodeKind};
pub use problem::{Problem, Problems, ReportStyle, nearest};
pub(crate) use read::{NameRef, Reader};
pub use shape::{Field, Fps, Params, Provenance, Secret, Setting, Type, Value};
pub use source_text::{Place, SourceText};
pub(crate) use tree::parse;
