//! The grammar of a pipeline file: the shapes of everything but a stage's `with`, and the JSON
//! Schema of the whole.

mod field;
mod models;
mod schema;
mod stages;
mod top;

pub use models::MODEL;
#[cfg(test)]
pub(crate) use models::PROFILES;
pub use schema::json_schema;
pub(super) use stages::applies;
pub(crate) use stages::{INPUT, STAGE};
pub use top::{KAFKA, TOP};
