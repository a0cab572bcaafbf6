//! `opusflow run`: assembles a pipeline, runs it, shows how it goes and what came of it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::progress_bars::Bars;
use super::signals::Signals;
use super::{load, models, reexec, report};
use crate::broker::Embedded;
use crate::error::{Error, Result};
use crate::media;
use crate::packet::{Balance, Reason};
use crate::pipeline::{Assembled, Connected, Plan, Running, SessionReport, Summary};
use crate::telemetry::{Exporter, LogSettings, Logs, Sampler};
use crate::tensor;

/// How often the host and the process are measured.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);

/// The arguments of `run`.
#[derive(Debug, Args)]
pub(super) struct RunArguments {
    /// The pipeline file.
    pipeline: PathBuf,
    /// Reads this path or URL instead of what the file's source names. The source becomes `live`
    /// for rtmp, rtsp and srt URLs and for an HLS playlist that still grows, `file` for paths,
    /// other http URLs and an HLS playlist that is complete.
    #[arg(long, value_name = "URL")]
    source: Vec<String>,
    /// Sets a value of the file: `stages.captions.with.prompt=...`, `threads.torch=4`.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    set: Vec<String>,
    /// Keeps the embedded broker for readers this long after the run, or until a signal: `10m`,
    /// `forever`.
    #[arg(long, value_name = "TIME")]
    linger: Option<String>,
    /// No progress bar.
    #[arg(long)]
    quiet: bool,
}

pub(super) fn run(arguments: &RunArguments) -> Result<ExitCode> {
    let linger = arguments.linger.as_deref().map(parse_linger).transpose()?;
    let check = || load::checked(&arguments.pipeline, &arguments.set, &arguments.source);
    let mut reexec_error = None;
    if !reexec::wait_policy_set() {
        let Some(checked) = check() else {
            return Ok(ExitCode::from(2));
        };
        reexec_error = (!checked.plan.threads.spin).then(reexec::with_sleeping_threads);
    }
    let signals = Signals::listen()?;
    let Some(mut checked) = check() else {
        return Ok(ExitCode::from(2));
    };
    if !checked.plan.absent.is_empty() {
        if !models::pull_missing(&checked.plan, &signals.stop, arguments.quiet)? {
            eprintln!("stopped before any stream began");
            return Ok(ExitCode::SUCCESS);
        }
        // Only now can it be seen whether they fit the stages that name them.
        let Some(again) = check() else {
            return Ok(ExitCode::from(2));
        };
        checked = again;
    }
    let plan = Arc::new(checked.plan);
    let logs = Logs::install(&LogSettings {
        filter: plan.telemetry.log.clone(),
    })?;
    if let Some(error) = reexec_error {
        tracing::warn!(%error, "the process cannot be executed again: torch's threads will keep cores busy while they wait");
    }
    tensor::load_cuda(None);
    tensor::threads(plan.threads.torch);
    media::init()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(plan.threads.tokio)
        .enable_all()
        .build()
        .map_err(|error| Error::external("cannot start the runtime").because(error))?;
    let ended = runtime.block_on(run_pipeline(arguments, plan, (logs, linger), signals));
    // Threads that still work for someone who has gone must not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

async fn run_pipeline(
    arguments: &RunArguments,
    plan: Arc<Plan>,
    (logs, linger): (Logs, Option<Duration>),
    Signals {
        stop,
        force,
        reclaim,
    }: Signals,
) -> Result<ExitCode> {
    let began = std::time::Instant::now();
    let exporter = Exporter::install(plan.telemetry.metrics)?;
    let (sampler, _sampling) =
        Sampler::start(SAMPLE_INTERVAL, PathBuf::from("."), stop.child_token()).await;
    let bars = Bars::new(logs, arguments.quiet);
    if stop.is_cancelled() {
        return stopped_early(&sampler, began);
    }
    let connected = Connected::connect(&plan, &stop).await?;
    if let Some(embedded) = &connected.embedded {
        report::broker(&plan, embedded, &bars)?;
    }
    let assembling = Assembled::build(&plan, connected, bars.printer(), &stop);
    let assembled = tokio::select! {
        assembled = assembling => assembled,
        () = shutdown_deadline(&stop, &force, plan.shutdown) => return Ok(ExitCode::from(4)),
    };
    if stop.is_cancelled() {
        if let Ok(assembled) = assembled {
            assembled.close(Duration::ZERO).await;
        }
        return stopped_early(&sampler, began);
    }
    let assembled = assembled?;
    if let Some(address) = exporter.address() {
        tracing::info!(%address, "metrics are served at /metrics");
    }
    let signals = Signals {
        stop,
        force,
        reclaim,
    };
    let summary = run_assembled(&plan, &assembled, (&sampler, &bars), &signals).await?;
    if let (Some(embedded), Some(linger)) = (&assembled.embedded, linger) {
        wait_for_readers(embedded, linger, &signals.stop).await;
    }
    Ok(exit_code(&summary))
}

/// Runs what was assembled to its end, and says what came of it.
async fn run_assembled(
    plan: &Arc<Plan>,
    assembled: &Assembled,
    (sampler, bars): (&Sampler, &Bars),
    signals: &Signals,
) -> Result<Summary> {
    let began = std::time::Instant::now();
    let mut running = Running::start(Arc::clone(plan), &assembled.deps)?;
    let summary = tokio::select! {
        summary = watch(&mut running, bars, &signals.stop, &signals.force) => summary?,
        () = release_memory_on_signal(assembled, &signals.reclaim) => return Err(Error::bug("giving memory back never ends")),
    };
    bars.clear();
    let unconfirmed = assembled
        .close(if summary.forced {
            Duration::ZERO
        } else {
            plan.shutdown
        })
        .await;
    report::summary(
        plan,
        &summary,
        assembled,
        &sampler.snapshot(),
        began.elapsed(),
    )?;
    if unconfirmed > 0 {
        tracing::error!(
            messages = unconfirmed,
            "kafka did not confirm these in time"
        );
    }
    Ok(summary)
}

/// Waits until a shutdown has taken as long as it may, or for a second signal.
async fn shutdown_deadline(stop: &CancellationToken, force: &CancellationToken, limit: Duration) {
    stop.cancelled().await;
    force.run_until_cancelled(tokio::time::sleep(limit)).await;
}

/// The end of a run that was stopped before its sources began: nothing was read, so that nothing is
/// lost.
fn stopped_early(sampler: &Sampler, began: std::time::Instant) -> Result<ExitCode> {
    tracing::info!("stopped before any stream began");
    report::closing(0, &sampler.snapshot(), began.elapsed())?;
    Ok(ExitCode::SUCCESS)
}

/// Gives memory back as often as it is asked to. Never returns.
async fn release_memory_on_signal(assembled: &Assembled, reclaim: &Notify) {
    loop {
        reclaim.notified().await;
        let reclaimed = assembled.reclaim().await;
        let (before, after) = reclaimed.resident;
        tracing::info!(
            unloaded = reclaimed.unloaded,
            before = before >> 20,
            after = after >> 20,
            "memory is given back, in MiB"
        );
    }
}

/// Shows the run until it ends; passes signals on.
async fn watch(
    running: &mut Running,
    bars: &Bars,
    stop: &CancellationToken,
    force: &CancellationToken,
) -> Result<Summary> {
    let mut ticks = tokio::time::interval(Duration::from_millis(250));
    let (mut stopped, mut forced) = (false, false);
    loop {
        tokio::select! {
            summary = running.wait() => return summary,
            () = stop.cancelled(), if !stopped => {
                stopped = true;
                tracing::info!("stopping: sources end, queues drain; a second signal forces");
                running.stop();
            }
            () = force.cancelled(), if !forced => {
                forced = true;
                running.force();
            }
            _ = ticks.tick() => bars.show(&running.sessions()),
        }
    }
}

fn exit_code(summary: &Summary) -> ExitCode {
    let lost = |balance: &Balance| {
        balance.dead_lettered > 0 || balance.dropped.contains_key(Reason::Failed.as_str())
    };
    let bad =
        |session: &SessionReport| !session.errors.is_empty() || session.ledger.values().any(lost);
    let failed = !summary.errors.is_empty() || summary.sessions.iter().any(bad);
    ExitCode::from(match (summary.forced, failed) {
        (true, _) => 4,
        (false, true) => 1,
        (false, false) => 0,
    })
}

fn parse_linger(text: &str) -> Result<Duration> {
    if text == "forever" {
        return Ok(Duration::MAX);
    }
    let wrong = || {
        Error::config(format!(
            "--linger takes a time such as `10m`, or `forever`, not `{text}`"
        ))
    };
    crate::config::units::duration(text).ok_or_else(wrong)
}

async fn wait_for_readers(embedded: &Embedded, linger: Duration, stop: &CancellationToken) {
    if stop.is_cancelled() {
        return;
    }
    tracing::info!(
        broker = embedded.bootstrap(),
        ?linger,
        "the embedded broker stays for readers"
    );
    let end = async {
        if linger == Duration::MAX {
            std::future::pending().await
        } else {
            tokio::time::sleep(linger).await
        }
    };
    stop.run_until_cancelled(end).await;
}
