//! What the command line takes.

use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::{models, run, schemas};

/// How a command ended, for scripts.
const EXIT_CODES: &str = "\
Exit codes:
  0  all went well
  1  the pipeline ran, but an input or a delivery failed
  2  the command line, the pipeline file or a model folder must be put right
  3  something outside failed: a broker, a store, a disk, a network
  4  the run was cut short: the shutdown's deadline passed, or a second signal came
  70 a bug in opusflow";

/// A streaming dataflow processor for video AI: video in, records on Kafka topics out.
#[derive(Debug, Parser)]
#[command(name = "opusflow", version, after_help = EXIT_CODES)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Runs a pipeline until its streams end or a signal stops it.
    Run(run::RunArguments),
    /// Checks pipeline files and says everything that is wrong with them.
    Validate {
        /// Pipeline files.
        #[arg(required = true)]
        pipelines: Vec<PathBuf>,
        /// Sets a value, as `run` does.
        #[arg(long = "set", value_name = "PATH=VALUE")]
        set: Vec<String>,
    },
    /// Draws a pipeline as a graph, or prints it with every default filled in.
    Graph {
        /// The pipeline file.
        pipeline: PathBuf,
        /// What is drawn.
        #[arg(long, value_enum, default_value_t = GraphFormat::Mermaid)]
        format: GraphFormat,
        /// Prints the file with every default and where each value came from.
        #[arg(long)]
        effective: bool,
        /// Sets a value, as `run` does.
        #[arg(long = "set", value_name = "PATH=VALUE")]
        set: Vec<String>,
    },
    /// Lists every stage kind with its parameters.
    Stages {
        /// Only this kind.
        kind: Option<String>,
    },
    /// What is known of the grammar of pipeline files.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// The schemas of records.
    Schemas {
        #[command(subcommand)]
        command: schemas::SchemasCommand,
    },
    /// Models: fetches them from a hub, lists and checks them.
    Models {
        #[command(subcommand)]
        command: models::ModelsCommand,
    },
    /// Says what is installed and what can be reached.
    Doctor {
        /// Also tries the brokers, registry and Redis of this pipeline.
        pipeline: Option<PathBuf>,
    },
    /// Prints a completion script for a shell.
    Completion {
        /// The shell.
        shell: Shell,
    },
    /// Writes the reference, as `docs/reference/` holds it, into a folder.
    #[command(hide = true)]
    Reference {
        /// The folder.
        folder: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Prints the JSON Schema of pipeline files, for editors.
    Schema,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum GraphFormat {
    /// For Markdown.
    Mermaid,
    /// For Graphviz.
    Dot,
}

/// The whole command line as clap knows it.
pub(super) fn command() -> clap::Command {
    Arguments::command()
}
