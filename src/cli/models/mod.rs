//! `opusflow models`: fetches models from a hub, lists those that are there, and checks them.

mod list;
mod progress;
mod pull;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::error::{Error, Result};
use crate::models::hub::{HubId, HubSettings};

pub(super) use self::pull::pull_missing;

const PULL_HELP: &str = "\
The cache is that of Python's huggingface_hub: HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN_PATH and
HF_TOKEN mean what they mean there. For a private or gated model put your token into the file that HF_TOKEN_PATH names,
~/.cache/huggingface/token by default. A pull that broke goes on where it broke.";

#[derive(Debug, Subcommand)]
pub(super) enum ModelsCommand {
    /// Fetches a model from the hub into its cache, or into a folder: safetensors, tokenizer and
    /// settings, nothing else. Prints the folder.
    #[command(after_help = PULL_HELP)]
    Pull(pull::PullArguments),
    /// Lists the models in the model folder and in the hub's cache.
    List {
        #[command(flatten)]
        models: ModelDir,
        /// As JSON, with everything that is known of each.
        #[arg(long)]
        json: bool,
    },
    /// Checks models: the hash of every file that came from a hub, config.json, and the weights key
    /// by key.
    Verify {
        #[command(flatten)]
        models: ModelDir,
        /// Folders in the model folder, paths that begin with `/`, `./` or `../`, or hub ids, as
        /// `path` of a pipeline's model names them.
        #[arg(required = true, value_name = "NAME|PATH|ID")]
        names: Vec<String>,
    },
}

/// Where folders of models are looked for.
#[derive(Debug, Args)]
pub(super) struct ModelDir {
    /// The folder of model folders, as `model_dir` in a pipeline.
    #[arg(
        long,
        value_name = "FOLDER",
        env = "OPUSFLOW_MODELS",
        default_value = "./models"
    )]
    model_dir: PathBuf,
}

pub(super) fn run(command: &ModelsCommand) -> Result<ExitCode> {
    match command {
        ModelsCommand::Pull(arguments) => pull::run(arguments),
        ModelsCommand::List { models, json } => list::run(&models.model_dir, *json),
        ModelsCommand::Verify { models, names } => verify::run(&models.model_dir, names),
    }
}

/// What this process's environment says about the hub.
fn settings() -> Result<HubSettings> {
    HubSettings::of(|name| std::env::var(name).ok())
}

/// The folder of a model by what a pipeline's `path` would call it.
fn find(name: &str, model_dir: &Path) -> Result<PathBuf> {
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
    let cache = settings()?.cache;
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

/// A number of parameters as people write it: `135M`.
fn rounded(number: u64) -> String {
    let (value, unit) = match number {
        1_000_000_000.. => (number as f64 / 1e9, "B"),
        1_000_000.. => (number as f64 / 1e6, "M"),
        1_000.. => (number as f64 / 1e3, "K"),
        _ => return number.to_string(),
    };
    if value < 99.95 {
        format!("{value:.1}{unit}")
    } else {
        format!("{value:.0}{unit}")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::cli::stages;
    use crate::inference::networks;

    /// What `verify` can read is what stages can be given, and the other way round.
    #[test]
    fn every_network_is_of_use_to_a_stage_and_every_stages_network_is_read() {
        for network in networks() {
            assert!(
                !stages::that_take(network).is_empty(),
                "no stage takes {network}"
            );
        }
        let read: BTreeSet<_> = networks().collect();
        let taken = stages::architectures();
        assert!(
            taken.is_subset(&read),
            "not read: {:?}",
            taken.difference(&read)
        );
    }

    #[test]
    fn numbers_are_short() {
        let shown = [0, 999, 1500, 37_760_640, 134_515_008, 7_241_732_096].map(rounded);
        assert_eq!(shown, ["0", "999", "1.5K", "37.8M", "135M", "7.2B"]);
    }
}
