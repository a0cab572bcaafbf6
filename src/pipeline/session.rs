//! A session: one run of the pipeline over one stream. It makes the queues, starts a lane for each
//! transform and a delivery for each sink behind the source, and closes the ledger when the stream
//! has ended.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::delivery::{Delivered, Delivery};
use super::feed::{Entry, Events, FeedCounts, SessionFeed};
use super::lane::Lane;
use super::output::Output;
use super::topology::{Built, Topology};
use crate::Result;
use crate::packet::{Balance, Event, PayloadKind, Stream};
use crate::stage::{
    Feed, Inbox, Ledger, QueueCounts, QueueMonitor, QueueSettings, Receiver, Role, Sender,
    WhenFull, queue,
};
use crate::telemetry::SinkMetrics;

/// Room for events and dead letters in front of a sink.
const SIDE_QUEUE: QueueSettings = QueueSettings {
    frames: 256,
    bytes: 64 << 20,
    when_full: WhenFull::Block,
    max_age: None,
};

/// How often those that hold up a shutdown are named.
const LAGGARD_INTERVAL: Duration = Duration::from_secs(5);

/// How long what was forced to end may take to end by itself.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// How a session ended.
#[derive(Debug, Clone)]
pub struct SessionReport {
    /// The stream's id.
    pub stream: Arc<str>,
    /// Why it ended.
    pub reason: String,
    /// The ledger's terms by view.
    pub ledger: BTreeMap<String, Balance>,
    /// Records delivered, by destination.
    pub records: BTreeMap<String, u64>,
    /// Frames that the decoder could not give.
    pub lost_in_decoding: u64,
    /// What went wrong in sinks at the end.
    pub errors: Vec<crate::Error>,
    /// Wall clock from start to end.
    pub elapsed: Duration,
}

/// What a session looks like now.
#[derive(Debug, Clone)]
pub struct SessionStatus {
    /// The stream's id.
    pub stream: Arc<str>,
    /// The ledger's terms by view.
    pub ledger: BTreeMap<String, Balance>,
    /// Queues by `from -> to`.
    pub queues: Vec<(String, QueueSettings, QueueCounts)>,
    /// End of the newest frame that left the source, in nanoseconds of its epoch.
    pub position: u64,
    /// Length of the stream in nanoseconds, where it is known.
    pub length: Option<u64>,
}

/// A running session, seen from the runner.
pub(crate) struct Session {
    stream: Arc<Stream>,
    ledger: Arc<Ledger>,
    queues: Vec<(String, QueueMonitor)>,
    counts: Arc<FeedCounts>,
}

/// What drives a session to its end.
pub(crate) struct Driver {
    stream: Arc<Stream>,
    ledger: Arc<Ledger>,
    lanes: Vec<(String, JoinHandle<()>)>,
    deliveries: Vec<(String, JoinHandle<Result<()>>)>,
    delivered: Delivered,
    events: Arc<Events>,
    ended: oneshot::Receiver<String>,
    counts: Arc<FeedCounts>,
    progress: Duration,
    force: CancellationToken,
    began: Instant,
}

/// The queues of a session while they are being laid.
#[derive(Default)]
struct Wiring {
    /// Per stage: the notifier and the receivers, in the order of the inputs, events and dead
    /// letters after them.
    inboxes: HashMap<usize, (Arc<Notify>, Vec<Receiver>)>,
    senders: HashMap<(usize, Option<Arc<str>>), Vec<Sender>>,
    monitors: Vec<(String, QueueMonitor)>,
}

impl Wiring {
    fn add(&mut self, stage: usize, settings: QueueSettings) -> Sender {
        let (filled, receivers) = self.inboxes.entry(stage).or_default();
        let (sender, receiver) = queue(settings, filled);
        receivers.push(receiver);
        sender
    }

    fn lay(topology: &Topology, source: usize, behind: &[usize]) -> Self {
        let mut wiring = Self::default();
        for &place in behind {
            let plan = &topology.plan.stages[place];
            for input in &plan.inputs {
                let sender = wiring.add(place, input.queue);
                let Some(from) = topology.place(&input.from) else {
                    continue;
                };
                // What only counts holds no frame back.
                let stage = &topology.stages[place];
                let sender = if stage.role() == Role::Sink && !plan.required {
                    sender.without_receipts()
                } else {
                    sender
                };
                // An input that this source does not reach is closed from the start: its only
                // sender falls here.
                if from == source || behind.contains(&from) {
                    let view = input
                        .view
                        .as_ref()
                        .map_or_else(String::new, |view| format!(".{view}"));
                    wiring.monitors.push((
                        format!("{}{view} -> {}", input.from, plan.id),
                        sender.monitor(),
                    ));
                    wiring
                        .senders
                        .entry((from, input.view.clone()))
                        .or_default()
                        .push(sender);
                }
            }
        }
        wiring
    }

    fn inbox(&mut self, stage: usize, hold: bool) -> Inbox {
        let (filled, receivers) = self.inboxes.remove(&stage).unwrap_or_default();
        Inbox::new(receivers, filled, hold)
    }
}

impl Session {
    /// Starts the stages behind the source at `source` for `stream`.
    pub fn open(
        topology: &Topology,
        source: usize,
        stream: Stream,
        force: &CancellationToken,
    ) -> (Self, Arc<dyn Feed>, Driver) {
        let stream = Arc::new(stream);
        let behind = topology.behind(source);
        let mut wiring = Wiring::lay(topology, source, &behind);
        let events = Events::new(
            Arc::clone(&stream),
            Arc::clone(&topology.stages[source].origin),
        );
        let hears = |place: usize| {
            topology.stages[place].role() == Role::Sink
                && topology.stages[place].takes(PayloadKind::Event)
        };
        for &place in behind.iter().filter(|&&place| hears(place)) {
            events.add(wiring.add(place, SIDE_QUEUE));
        }
        let letters: HashMap<usize, Sender> = behind
            .iter()
            .filter_map(|&place| {
                let sink = topology.place(topology.plan.stages[place].dead_letter.as_deref()?)?;
                (behind.contains(&sink) && !dead_letters_cycle(topology, place))
                    .then(|| (place, wiring.add(sink, SIDE_QUEUE)))
            })
            .collect();
        let ledger = Arc::new(Ledger::default());
        let entries = entries(topology, (source, &stream), &mut wiring, &ledger);
        let queues = std::mem::take(&mut wiring.monitors);
        let started = SessionSpawner {
            topology,
            source,
            behind: &behind,
            stream: &stream,
            force,
        };
        let (lanes, deliveries, delivered) = started.spawn(wiring, letters);
        let (end, ended) = oneshot::channel();
        let feed = SessionFeed::new(
            Arc::clone(&topology.stages[source]),
            entries,
            Arc::clone(&events),
            end,
        );
        let counts = Arc::clone(feed.counts());
        let driver = Driver {
            stream: Arc::clone(&stream),
            ledger: Arc::clone(&ledger),
            lanes,
            deliveries,
            delivered,
            events,
            ended,
            counts: Arc::clone(&counts),
            progress: topology.plan.progress,
            force: force.clone(),
            began: Instant::now(),
        };
        (
            Self {
                stream,
                ledger,
                queues,
                counts,
            },
            Arc::new(feed),
            driver,
        )
    }

    /// What it looks like now.
    pub fn status(&self) -> SessionStatus {
        SessionStatus {
            stream: Arc::clone(&self.stream.id),
            ledger: self.ledger.balances(),
            queues: self
                .queues
                .iter()
                .map(|(name, monitor)| (name.clone(), monitor.settings(), monitor.counts()))
                .collect(),
            position: self.counts.position.load(Ordering::Relaxed),
            length: Some(self.counts.length.load(Ordering::Relaxed)).filter(|length| *length > 0),
        }
    }
}

/// Whether the dead letters of the stage at `place` would come back to it: two sinks that wait for
/// each other's letters would never end.
fn dead_letters_cycle(topology: &Topology, place: usize) -> bool {
    let next = |at: usize| topology.place(topology.plan.stages[at].dead_letter.as_deref()?);
    std::iter::successors(next(place), |&at| next(at))
        .take(topology.stages.len())
        .any(|at| at == place)
}

/// The ways into the session, by view.
fn entries(
    topology: &Topology,
    (source, stream): (usize, &Arc<Stream>),
    wiring: &mut Wiring,
    ledger: &Ledger,
) -> Vec<Entry> {
    let views: Vec<_> = wiring
        .senders
        .keys()
        .filter(|(from, _)| *from == source)
        .cloned()
        .collect();
    let entry = |key: (usize, Option<Arc<str>>)| {
        let readers = wiring.senders.remove(&key).unwrap_or_default();
        let view = key.1.unwrap_or_else(|| Arc::from(""));
        let output = Output::new(Arc::clone(&topology.stages[source]), stream, readers, None);
        Entry {
            account: ledger.account(&view),
            view,
            output,
        }
    };
    views.into_iter().map(entry).collect()
}

/// What lanes and deliveries are started from.
struct SessionSpawner<'a> {
    topology: &'a Topology,
    source: usize,
    behind: &'a [usize],
    stream: &'a Arc<Stream>,
    force: &'a CancellationToken,
}

type Tasks = (
    Vec<(String, JoinHandle<()>)>,
    Vec<(String, JoinHandle<Result<()>>)>,
    Delivered,
);

impl SessionSpawner<'_> {
    fn spawn(&self, mut wiring: Wiring, mut letters: HashMap<usize, Sender>) -> Tasks {
        let (mut lanes, mut deliveries, delivered) = (Vec::new(), Vec::new(), Delivered::default());
        let ordered = self.topology.ordered(self.behind, self.source);
        for &place in self.behind {
            let stage = Arc::clone(&self.topology.stages[place]);
            let (id, force) = (stage.id().to_owned(), self.force.clone());
            let dead_letters = letters.remove(&place);
            let transform = match &stage.built {
                Built::Source(_) => continue,
                Built::Shared(transform) => Arc::clone(transform),
                Built::PerStream(open) => open(self.stream),
                Built::Sink(sink) => {
                    let (sink, stream, delivered) = (
                        Arc::clone(sink),
                        Arc::clone(self.stream),
                        Arc::clone(&delivered),
                    );
                    let inbox = wiring.inbox(place, false);
                    let metrics = SinkMetrics::new(&self.topology.plan.name, &id);
                    let tally = Default::default();
                    let delivery = Delivery {
                        stage,
                        sink,
                        stream,
                        inbox,
                        dead_letters,
                        delivered,
                        force,
                        tally,
                        metrics,
                    };
                    deliveries.push((id, tokio::spawn(delivery.run())));
                    continue;
                }
            };
            let inbox = wiring.inbox(place, stage.settings().join.is_some());
            let readers = wiring.senders.remove(&(place, None)).unwrap_or_default();
            let inputs = stage.settings().inputs.iter();
            let sides: Vec<_> = inputs
                .map(|input| {
                    self.topology
                        .place(&input.from)
                        .is_none_or(|from| ordered[from])
                })
                .collect();
            let output =
                Output::new(stage, self.stream, readers, dead_letters).ordered(ordered[place]);
            let lane = Lane::new(transform, output, inbox, &sides, force);
            lanes.push((id, tokio::spawn(lane.run())));
        }
        (lanes, deliveries, delivered)
    }
}

impl Driver {
    /// Waits for the stream's end, drains, emits the `ended` event and closes the sinks.
    pub async fn run(mut self, stop: CancellationToken) -> SessionReport {
        let reason = self.until_ended().await;
        let laggards = tokio::spawn(name_laggards(
            self.unfinished(),
            Arc::clone(&self.stream.id),
            stop,
        ));
        let mut errors = Vec::new();
        for (stage, lane) in self.lanes.drain(..) {
            if let Err(error) = lane.await {
                errors.push(crate::Error::bug(format!(
                    "the lane of stage `{stage}` ended: {error}"
                )));
            }
        }
        self.until_settled().await;
        let (ledger, records) = (self.ledger.balances(), self.delivered.lock().clone());
        self.events
            .end(Event::Ended {
                reason: reason.clone(),
                ledger,
                records,
            })
            .await;
        for (stage, delivery) in self.deliveries.drain(..) {
            match delivery.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => errors.push(error),
                Err(error) => errors.push(crate::Error::bug(format!(
                    "the delivery of stage `{stage}` ended: {error}"
                ))),
            }
        }
        laggards.abort();
        SessionReport {
            stream: Arc::clone(&self.stream.id),
            reason,
            ledger: self.ledger.balances(),
            records: self.delivered.lock().clone(),
            lost_in_decoding: self.counts.lost.load(Ordering::Relaxed),
            errors,
            elapsed: self.began.elapsed(),
        }
    }

    /// Tells of progress until the source has ended the stream.
    async fn until_ended(&mut self) -> String {
        let mut ticks = interval(self.progress.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reported = None;
        loop {
            tokio::select! {
                reason = &mut self.ended => return reason.unwrap_or_else(|_| self.gone()),
                () = self.force.cancelled() => {
                    let ended = tokio::time::timeout(2 * GRACE, &mut self.ended).await;
                    return ended.ok().and_then(std::result::Result::ok).unwrap_or_else(|| self.gone());
                }
                _ = ticks.tick() => {
                    let complete = self.ledger.complete();
                    if complete > reported {
                        reported = complete;
                        let (epoch, complete) = complete.unwrap_or_default();
                        self.events.progress(epoch, complete).await;
                    }
                }
            }
        }
    }

    fn gone(&self) -> String {
        if self.force.is_cancelled() {
            "shutdown".to_owned()
        } else {
            "the source went away".to_owned()
        }
    }

    /// Waits until every frame has settled, and says so while it waits long.
    async fn until_settled(&self) {
        let settled = async {
            while tokio::time::timeout(LAGGARD_INTERVAL, self.ledger.drained())
                .await
                .is_err()
            {
                let in_flight: u64 = self
                    .ledger
                    .balances()
                    .values()
                    .map(|balance| balance.in_flight)
                    .sum();
                tracing::warn!(stream = %self.stream.id, in_flight, "frames are still on their \
                                                                     way to the sinks");
            }
        };
        self.force.run_until_cancelled(settled).await;
    }

    fn unfinished(&self) -> Vec<(String, tokio::task::AbortHandle)> {
        let lanes = self
            .lanes
            .iter()
            .map(|(stage, task)| (stage.clone(), task.abort_handle()));
        lanes
            .chain(
                self.deliveries
                    .iter()
                    .map(|(stage, task)| (stage.clone(), task.abort_handle())),
            )
            .collect()
    }
}

/// Once the shutdown has begun, says every few seconds which stages still work.
async fn name_laggards(
    tasks: Vec<(String, tokio::task::AbortHandle)>,
    stream: Arc<str>,
    stop: CancellationToken,
) {
    stop.cancelled().await;
    loop {
        tokio::time::sleep(LAGGARD_INTERVAL).await;
        let stages: Vec<_> = tasks
            .iter()
            .filter(|(_, task)| !task.is_finished())
            .map(|(stage, _)| stage.as_str())
            .collect();
        if !stages.is_empty() {
            tracing::warn!(stream = %stream, stages = stages.join(", "), "still draining");
        }
    }
}
