//! `opusflow schemas`: lists the schemas of records, and pushes them to a registry or checks them
//! against it.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use super::load;
use super::output::print;
use crate::codec::{self, Registry, RegistrySettings, Verdict};
use crate::error::{Error, Result};
use crate::packet::PayloadKind;
use crate::pipeline;

#[derive(Debug, Subcommand)]
pub(super) enum SchemasCommand {
    /// Lists every schema with its fingerprint.
    List,
    #[command(about = format!("Prints one schema: {}", known()))]
    Show {
        /// The record's name.
        record: String,
    },
    /// Registers every schema under its topic's subject.
    Push(RegistryArguments),
    /// Says whether the registry would take every schema.
    Check(RegistryArguments),
}

#[derive(Debug, clap::Args)]
pub(super) struct RegistryArguments {
    /// The pipeline whose registry and namespace are meant.
    #[arg(required_unless_present = "registry")]
    pipeline: Option<PathBuf>,
    /// The registry's URL, instead of a pipeline's.
    #[arg(long, value_name = "URL")]
    registry: Option<String>,
    /// The namespace, with --registry.
    #[arg(long, default_value = "opusflow")]
    namespace: String,
}

pub(super) fn run(command: &SchemasCommand) -> Result<ExitCode> {
    match command {
        SchemasCommand::List => {
            let line = |kind: PayloadKind| {
                format!(
                    "{:<14} {:<28} {:016x}\n",
                    kind.plural(),
                    codec::full_name(kind),
                    codec::fingerprint(kind)
                )
            };
            print(&PayloadKind::ALL.map(line).concat())
        }
        SchemasCommand::Show { record } => {
            let kind = PayloadKind::ALL
                .into_iter()
                .find(|kind| kind.plural() == record);
            let kind = kind.ok_or_else(|| {
                Error::config(format!("there is no record `{record}`"))
                    .hint(format!("one of {}", known()))
            })?;
            print(codec::schema_text(kind))
        }
        SchemasCommand::Push(arguments) => with_registry(arguments, true),
        SchemasCommand::Check(arguments) => with_registry(arguments, false),
    }
}

/// The names of all records.
fn known() -> String {
    PayloadKind::ALL.map(PayloadKind::plural).join(", ")
}

fn with_registry(arguments: &RegistryArguments, push: bool) -> Result<ExitCode> {
    let (registry, namespace) = match (&arguments.registry, &arguments.pipeline) {
        (Some(url), _) => (
            Registry::build(&RegistrySettings::at(url.as_str()))?,
            arguments.namespace.clone(),
        ),
        (None, Some(path)) => {
            let Some(checked) = load::checked(path, &[], &[]) else {
                return Ok(ExitCode::from(2));
            };
            let kafka = checked
                .plan
                .kafka
                .ok_or_else(|| Error::config("the pipeline has no `kafka:`"))?;
            (pipeline::registry(&kafka)?, kafka.namespace)
        }
        (None, None) => return Err(Error::config("name a pipeline or a registry")),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime =
        runtime.map_err(|error| Error::external("cannot start the runtime").because(error))?;
    let mut text = String::new();
    let mut good = true;
    // Writing into a String cannot fail.
    if push {
        for registered in runtime.block_on(registry.push(&namespace))? {
            let _ = writeln!(text, "{:<40} id {}", registered.subject, registered.id);
        }
    } else {
        for (subject, verdict) in runtime.block_on(registry.check(&namespace))? {
            let said = match &verdict {
                Verdict::New => "new".to_owned(),
                Verdict::Compatible => "compatible".to_owned(),
                Verdict::Incompatible(reasons) => {
                    good = false;
                    format!("INCOMPATIBLE: {}", reasons.join("; "))
                }
            };
            let _ = writeln!(text, "{subject:<40} {said}");
        }
    }
    print(&text)?;
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
