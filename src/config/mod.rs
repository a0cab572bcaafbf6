//! The pipeline's YAML as a tree with a span at every node, its variables filled in; knows no stage
//! kinds.

pub mod edit;
mod expand;
mod node;
mod problem;
mod read;
pub mod schema;
pub mod shape;
mod source_text;
mod tree;
pub mod units;

pub use expand::{Environment, expand};
pub use node::{Entry, Node, NodeKind, Scalar};
pub use problem::{Problem, Problems, ReportStyle, nearest};
pub use read::{NameRef, Reader};
pub use shape::{Field, Fps, Params, Provenance, Secret, Setting, Type, Value};
pub use source_text::{Place, SourceText};
pub use tree::parse;
