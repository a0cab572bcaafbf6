//! Where models lie: in the model folder, in a folder of one's own, or in the hub's cache.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::error::{Error, Result};
use crate::models::hub::{HubId, HubSettings};

/// Where folders of models are looked for.
#[derive(Debug, Args)]
pub(in crate::cli) struct ModelDir {
    /// The folder of model folders, as `model_dir` in a pipeline.
    #[arg(
        long,
        value_name = "FOLDER",
        env = "OPUSFLOW_MODELS",
        default_value = "./models"
    )]
    pub model_dir: PathBuf,
}

/// What this process's environment says about the hub.
pub(super) fn hub_settings() -> Result<HubSettings> {
    HubSettings::of(|name| std::env::var(name).ok())
}

/// The folder of a model by what a pipeline's `path` would call it.
pub(super) fn find_folder(name: &str, model_dir: &Path) -> Result<PathBuf> {
    let path = Path::new(name);
    if path.is_absolute() || path.starts_with("./") || path.starts_with("../") {
        return Ok(path.to_owned());
    }
    let inside = model_dir.join(name);
    if inside.is_dir() {
        return Ok(inside);
    }
    let missing = Error::config(format!(
        "there is no model `{name}` in {}",
        model_dir.display()
    ));
    let Ok(id) = name.parse::<HubId>() else {
        return Err(missing.hint("name a folder in it, a path, or a hub id"));
    };
    let cache = hub_settings()?.cache;
    cache.snapshot(&id).ok_or_else(|| {
        Error::config(format!(
            "there is no model `{name}` in {}, nor in the hub's cache {}",
            model_dir.display(),
            cache.path().display()
        ))
        .hint(format!(
            "`opusflow models pull {id}` fetches it, `opusflow models list` says what is there"
        ))
    })
}
