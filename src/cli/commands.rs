//! The command line: its arguments, and which file answers each command.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::output::print;
use super::{doctor, load, models, run, schemas, stages};
use crate::error::{Error, Kind, Result};
use crate::pipeline::{effective, graph};
use crate::stages::KINDS;

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
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
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
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Prints the JSON Schema of pipeline files, for editors.
    Schema,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum GraphFormat {
    /// For Markdown.
    Mermaid,
    /// For Graphviz.
    Dot,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match execute(arguments.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            exit_code(error.kind())
        }
    }
}

fn exit_code(kind: Kind) -> ExitCode {
    ExitCode::from(match kind {
        Kind::Config | Kind::Model => 2,
        Kind::External | Kind::Overload => 3,
        Kind::Bug => 70,
    })
}

fn execute(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Validate { pipelines, set } => validate(&pipelines, &set),
        Command::Graph {
            pipeline,
            format,
            effective,
            set,
        } => {
            let Some(checked) = load::checked(&pipeline, &set, &[]) else {
                return Ok(ExitCode::from(2));
            };
            let text = match (effective, format) {
                (true, _) => effective::effective(&checked),
                (false, GraphFormat::Mermaid) => graph::mermaid(&checked.plan),
                (false, GraphFormat::Dot) => graph::dot(&checked.plan),
            };
            print(&text)
        }
        Command::Stages { kind } => print(&stages::list(kind.as_deref())?),
        Command::Config {
            command: ConfigCommand::Schema,
        } => {
            let schema = crate::pipeline::grammar::json_schema(KINDS);
            let text = serde_json::to_string_pretty(&schema)
                .map_err(|error| Error::bug("the schema does not print").because(error))?;
            print(&(text + "\n"))
        }
        Command::Schemas { command } => schemas::run(&command),
        Command::Models { command } => models::run(&command),
        Command::Doctor { pipeline } => doctor::run(pipeline.as_deref()),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "opusflow", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
    }
}

fn validate(pipelines: &[PathBuf], set: &[String]) -> Result<ExitCode> {
    let mut good = true;
    for pipeline in pipelines {
        match load::checked(pipeline, set, &[]) {
            Some(checked) => {
                let (stages, models) = (
                    checked.plan.stages.len(),
                    checked.plan.models.len() + checked.plan.absent.len(),
                );
                print(&format!(
                    "{}: good (stages: {stages}, models: {models})\n",
                    pipeline.display()
                ))?;
            }
            None => good = false,
        }
    }
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(2)
    })
}
