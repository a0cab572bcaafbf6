//! `opusflow models`: fetches models from a hub, lists those that are there, and checks them.

use std::process::ExitCode;

use clap::Subcommand;

use super::folders::ModelDir;
use super::{list, pull, verify};
use crate::error::Result;

const PULL_HELP: &str = "\
The cache is that of Python's huggingface_hub: HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN_PATH and
HF_TOKEN mean what they mean there. For a private or gated model put your token into the file that HF_TOKEN_PATH names,
~/.cache/huggingface/token by default. A pull that broke goes on where it broke.";

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ModelsCommand {
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

pub(in crate::cli) fn run(command: &ModelsCommand) -> Result<ExitCode> {
    match command {
        ModelsCommand::Pull(arguments) => pull::run(arguments),
        ModelsCommand::List { models, json } => list::run(&models.model_dir, *json),
        ModelsCommand::Verify { models, names } => verify::run(&models.model_dir, names),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::cli::stages;
    use crate::models::networks::all_classes;

    /// What `verify` can read is what stages can be given, and the other way round.
    #[test]
    fn every_network_is_of_use_to_a_stage_and_every_stages_network_is_read() {
        for network in all_classes() {
            assert!(
                !stages::kinds_taking(network).is_empty(),
                "no stage takes {network}"
            );
        }
        let read: BTreeSet<_> = all_classes().collect();
        let taken = stages::architectures();
        assert!(
            taken.is_subset(&read),
            "not read: {:?}",
            taken.difference(&read)
        );
    }
}
