//! The grammar of a pipeline file: the shapes of everything but a stage's `with`, and the JSON
//! Schema of the whole.

mod field;
mod models;
mod schema;
mod stages;
mod top;

pub use models::{BATCH, MODEL, PROFILES, VAE};
pub use schema::json_schema;
pub(super) use stages::applies;
pub use stages::{INPUT, STAGE};
pub use top::{KAFKA, TOP};
