//! Running a pipeline: its sources open sessions, a stop cancels sources only, queues drain
//! downstream, sinks flush; a deadline ends it.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use futures::FutureExt;
use parking_lot::Mutex;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::driver::{GRACE, SessionReport};
use super::metrics::{self, MetricsReporter};
use super::panic::panicked;
use super::plan::Plan;
use super::session::{Session, SessionStatus};
use super::topology::{Built, Topology};
use crate::packet::Stream;
use crate::stage::{Deps, Feed, Host, Role};
use crate::{Error, Result};

/// How a run ended.
#[derive(Debug, Default)]
pub struct Summary {
    /// Every session, in the order in which they ended.
    pub sessions: Vec<SessionReport>,
    /// What went wrong beside the sessions, by stage.
    pub errors: Vec<Error>,
    /// Whether the shutdown's deadline, or a second signal, cut it short.
    pub forced: bool,
}

/// What a stage has done.
#[derive(Debug, Clone)]
pub struct StageStatus {
    /// Its id.
    pub id: Arc<str>,
    /// What it is to its neighbours.
    pub role: Role,
    /// Packets taken in.
    pub taken: u64,
    /// Packets emitted, records delivered by sinks.
    pub emitted: u64,
    /// Further tries.
    pub retried: u64,
    /// Packets that failed for good.
    pub failed: u64,
}

/// A running pipeline.
pub struct Running {
    topology: Arc<Topology>,
    shared: Arc<Shared>,
    finished: JoinHandle<Summary>,
}

/// Locks are taken one at a time, but for `drivers` before `sessions` in `open`, and none is held
/// across a wait.
struct Shared {
    topology: Arc<Topology>,
    sessions: Mutex<Vec<Arc<Session>>>,
    /// The ids of all streams so far: records of two that share one could not be told apart.
    streams: Mutex<HashSet<Arc<str>>>,
    /// None once no session can begin any more.
    drivers: Mutex<Option<JoinSet<SessionReport>>>,
    stop: CancellationToken,
    force: CancellationToken,
}

struct SourceHost {
    shared: Arc<Shared>,
    place: usize,
}

#[async_trait]
impl Host for SourceHost {
    async fn open(&self, stream: Stream) -> Result<Arc<dyn Feed>> {
        if self.shared.stop.is_cancelled() {
            return Err(Error::overload("the pipeline is shutting down"));
        }
        if !self.shared.streams.lock().insert(Arc::clone(&stream.id)) {
            let error = Error::config(format!(
                "two streams of the pipeline have the id `{}`",
                stream.id
            ));
            return Err(error.hint("give one another `id`, or name its path or URL only once"));
        }
        let open = || {
            Session::open(
                &self.shared.topology,
                self.place,
                stream,
                &self.shared.force,
            )
        };
        let opened = std::panic::catch_unwind(AssertUnwindSafe(open));
        let (session, feed, driver) = opened.map_err(|panic| {
            panicked(&*panic).context("a stage could not be opened for the stream")
        })?;
        let session = Arc::new(session);
        let shared = Arc::downgrade(&self.shared);
        let stop = self.shared.stop.clone();
        let mut drivers = self.shared.drivers.lock();
        let Some(drivers) = drivers.as_mut() else {
            return Err(Error::overload("the pipeline has ended"));
        };
        self.shared.sessions.lock().push(Arc::clone(&session));
        drivers.spawn(async move {
            let report = driver.run(stop).await;
            if let Some(shared) = shared.upgrade() {
                shared
                    .sessions
                    .lock()
                    .retain(|other| !Arc::ptr_eq(other, &session));
            }
            report
        });
        Ok(feed)
    }
}

impl Running {
    /// Builds the stages of `plan` and starts its sources.
    ///
    /// # Errors
    /// When a stage cannot be built.
    pub fn start(plan: Arc<Plan>, deps: &Arc<Deps>) -> Result<Self> {
        let topology = Arc::new(Topology::build(plan, deps)?);
        let shared = Arc::new(Shared {
            topology: Arc::clone(&topology),
            sessions: Mutex::default(),
            streams: Mutex::default(),
            drivers: Mutex::new(Some(JoinSet::new())),
            stop: CancellationToken::new(),
            force: CancellationToken::new(),
        });
        let producer = deps.kafka.as_ref().map(|kafka| &kafka.producer);
        let reporter = MetricsReporter::new(&topology, producer);
        let finished = tokio::spawn(Arc::clone(&shared).run(reporter));
        Ok(Self {
            topology,
            shared,
            finished,
        })
    }

    /// Tells the sources to end; what is under way is drained until the plan's deadline.
    pub fn stop(&self) {
        self.shared.stop.cancel();
    }

    /// Ends at once: what is under way counts as lost in the shutdown.
    pub fn force(&self) {
        self.shared.stop.cancel();
        self.shared.force.cancel();
    }

    /// What the open sessions look like now.
    pub fn sessions(&self) -> Vec<SessionStatus> {
        self.shared
            .sessions
            .lock()
            .iter()
            .map(|session| session.status())
            .collect()
    }

    /// What the stages have done.
    pub fn stages(&self) -> Vec<StageStatus> {
        let status = |stage: &Arc<super::topology::Stage>| StageStatus {
            id: Arc::clone(&stage.settings().id),
            role: stage.role(),
            taken: stage.counts.taken.load(Ordering::Relaxed),
            emitted: stage.counts.emitted.load(Ordering::Relaxed),
            retried: stage.counts.retried.load(Ordering::Relaxed),
            failed: stage.counts.failed.load(Ordering::Relaxed),
        };
        self.topology.stages.iter().map(status).collect()
    }

    /// Waits for the end. Cancel-safe.
    ///
    /// # Errors
    /// When the runner itself broke.
    pub async fn wait(&mut self) -> Result<Summary> {
        (&mut self.finished)
            .await
            .map_err(|error| Error::bug(format!("the runner ended: {error}")))
    }
}

impl Shared {
    async fn run(self: Arc<Self>, reporter: MetricsReporter) -> Summary {
        let deadline = tokio::spawn(Arc::clone(&self).deadline());
        let ended = CancellationToken::new();
        let reporting = tokio::spawn(Arc::clone(&self).report(reporter, ended.clone()));
        let mut sources = self.spawn_sources();
        let mut summary = Summary::default();
        while let Some(Some(ended)) = self.unless_forced(sources.join_next()).await {
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::error!(%error, "source failed");
                    summary.errors.push(error);
                }
                Err(error) => summary
                    .errors
                    .push(Error::bug(format!("a source ended: {error}"))),
            }
        }
        // Sources that ignored the stop lose their feeds here; one that blocks its thread is
        // left to itself.
        if timeout(GRACE, sources.shutdown()).await.is_err() {
            summary
                .errors
                .push(Error::bug("a source did not end when it was aborted"));
            sources.detach_all();
        }
        let mut drivers = self.drivers.lock().take().unwrap_or_default();
        while let Some(ended) = drivers.join_next().await {
            match ended {
                Ok(report) => summary.sessions.push(report),
                Err(error) => summary
                    .errors
                    .push(Error::bug(format!("a session ended: {error}"))),
            }
        }
        self.close_sinks(&mut summary).await;
        summary.forced = self.force.is_cancelled();
        deadline.abort();
        ended.cancel();
        if reporting.await.is_err() {
            summary
                .errors
                .push(Error::bug("the metrics were not reported to the end"));
        }
        summary
    }

    /// Runs every source; one that panics ends with an error.
    fn spawn_sources(self: &Arc<Self>) -> JoinSet<Result<()>> {
        let mut sources = JoinSet::new();
        for (place, stage) in self.topology.stages.iter().enumerate() {
            let Built::Source(source) = &stage.built else {
                continue;
            };
            let (source, stop) = (Arc::clone(source), self.stop.clone());
            let host = Arc::new(SourceHost {
                shared: Arc::clone(self),
                place,
            });
            let id = stage.id().to_owned();
            sources.spawn(async move {
                let ended = AssertUnwindSafe(source.run(host, stop))
                    .catch_unwind()
                    .await
                    .unwrap_or_else(|panic| Err(panicked(&*panic)));
                ended.map_err(|error| error.context(format_args!("stage `{id}`")))
            });
        }
        sources
    }

    /// Reports the metrics now and then, and once at the end.
    async fn report(self: Arc<Self>, mut reporter: MetricsReporter, ended: CancellationToken) {
        while ended
            .run_until_cancelled(sleep(metrics::INTERVAL))
            .await
            .is_some()
        {
            let open = self.sessions.lock().clone();
            reporter.report(&open);
        }
        reporter.report(&[]);
    }

    async fn close_sinks(&self, summary: &mut Summary) {
        for stage in &self.topology.stages {
            if let Built::Sink(sink) = &stage.built {
                match self
                    .unless_forced(AssertUnwindSafe(sink.close()).catch_unwind())
                    .await
                {
                    None => summary.errors.push(
                        Error::overload("not closed in time")
                            .context(format_args!("stage `{}`", stage.id())),
                    ),
                    Some(Ok(Ok(()))) => {}
                    Some(Ok(Err(error))) => summary
                        .errors
                        .push(error.context(format_args!("stage `{}`", stage.id()))),
                    Some(Err(panic)) => summary
                        .errors
                        .push(panicked(&*panic).context(format_args!("stage `{}`", stage.id()))),
                }
            }
        }
    }

    /// What `work` gives, or none some time after the forced end: what ends by itself then can
    /// still say how.
    async fn unless_forced<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = async { self.force.cancelled().await; sleep(GRACE).await } => None,
        }
    }

    async fn deadline(self: Arc<Self>) {
        self.stop.cancelled().await;
        sleep(self.topology.plan.shutdown).await;
        tracing::warn!(after = ?self.topology.plan.shutdown, "the shutdown's deadline has passed: \
                                                              what is left is dropped and counted");
        self.force.cancel();
    }
}
