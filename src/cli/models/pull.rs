//! `opusflow models pull`, and the same before a run whose file says `pull: missing`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::folders::{ModelDir, hub_settings};
use super::progress::Progress;
use crate::cli::output::print;
use crate::error::{Error, Result};
use crate::inference::hub::{Pull, Pulled, RetryPolicy};
use crate::models::hub::HubId;
use crate::pipeline::Plan;
use crate::pipeline::plan::AbsentModel;

#[derive(Debug, Args)]
pub(in crate::cli) struct PullArguments {
    /// The model: `owner/name`, or `owner/name@revision` with a branch, a tag or a commit.
    #[arg(value_name = "ID[@REVISION]")]
    id: String,
    /// Puts it into this folder instead of the cache, as `models/NAME` for `path: NAME`.
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
    /// Fetches weights under another name where there are such: `fp16` takes half the space.
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
    /// Says nothing about how it goes.
    #[arg(long)]
    quiet: bool,
    #[command(flatten)]
    models: ModelDir,
}

pub(super) fn run(arguments: &PullArguments) -> Result<ExitCode> {
    let id: HubId = arguments.id.parse()?;
    let instead = arguments.models.model_dir.join(id.to_string());
    let pull = Pull {
        id: &id,
        variant: arguments.variant.as_deref(),
        to: arguments.to.as_deref(),
        instead: &instead,
        retry: RetryPolicy::default(),
    };
    let pulled = fetch(&pull, arguments.quiet, &CancellationToken::new())?;
    let pulled = pulled.ok_or_else(|| Error::bug("a pull was stopped that nothing stops"))?;
    print(&format!("{}\n", pulled.folder.display()))
}

/// Fetches the models that a plan lacks. False, where `stop` came before all were there.
pub(in crate::cli) fn pull_missing(
    plan: &Plan,
    stop: &CancellationToken,
    quiet: bool,
) -> Result<bool> {
    for (name, AbsentModel { id, folder }) in &plan.absent {
        let pull = Pull {
            id,
            variant: None,
            to: None,
            instead: folder,
            retry: RetryPolicy::default(),
        };
        let pulled = fetch(&pull, quiet, stop)
            .map_err(|error| error.context(format_args!("model `{name}`")))?;
        if pulled.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Fetches a model, and shows how it goes; none where `stop` came first.
fn fetch(pull: &Pull<'_>, quiet: bool, stop: &CancellationToken) -> Result<Option<Pulled>> {
    let settings = hub_settings()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime =
        runtime.map_err(|error| Error::external("cannot start the runtime").because(error))?;
    let progress = Progress::new(pull.id, quiet);
    let watch = |step: crate::inference::hub::Step<'_>| progress.step(&step);
    let pulled = runtime.block_on(stop.run_until_cancelled(pull.run(&settings, &watch)));
    progress.clear();
    let pulled = pulled.transpose()?;
    if let Some(pulled) = &pulled {
        progress.done(pulled);
    }
    Ok(pulled)
}
