//! Neural networks in tch, from folders in Hugging Face layout; synchronous, they know nothing of tokio, YAML or metrics.

pub mod config;
pub mod folder;
pub mod llama;
pub mod text;
pub mod weights;

pub use config::Config;
pub use folder::ModelFolder;
pub use weights::{Scope, Weights};
