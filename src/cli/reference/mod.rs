//! `opusflow reference`: what `docs/reference/` holds, rendered from the tables that the program
//! itself goes by, so that the two cannot differ.

mod command_line;
mod fields;
mod files;
mod markdown;
mod metrics;
mod pipeline;
mod records;
mod stages;

pub(super) use self::files::write;
pub use self::files::{ReferenceFile, files};
pub(super) use self::pipeline::schema as pipeline_schema;
