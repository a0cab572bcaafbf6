//! Which file answers each command, and what a command ends with.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use super::arguments::{self, Arguments, Command, ConfigCommand, GraphFormat};
use super::output::print;
use super::{doctor, load, models, reference, run, schemas, stages};
use crate::error::{Kind, Result};
use crate::pipeline::{effective, graph};

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
        } => print(&reference::pipeline_schema()?),
        Command::Schemas { command } => schemas::run(&command),
        Command::Models { command } => models::run(&command),
        Command::Doctor { pipeline } => doctor::run(pipeline.as_deref()),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut arguments::command(), "opusflow", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
        Command::Reference { folder } => {
            reference::write(&folder)?;
            Ok(ExitCode::SUCCESS)
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
