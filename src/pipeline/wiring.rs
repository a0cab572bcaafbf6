//! The wiring of a session: the queues of one stream, and the task of each stage that works on
//! them.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::delivery::{Delivered, Delivery};
use super::feed::Entry;
use super::lane::Lane;
use super::output::Output;
use super::topology::{Built, Topology};
use crate::Result;
use crate::packet::Stream;
use crate::stage::{
    Inbox, Ledger, QueueMonitor, QueueSettings, Receiver, Role, Sender, WhenFull, queue,
};
use crate::telemetry::SinkMetrics;

/// Room for events and dead letters in front of a sink.
pub(super) const SIDE_QUEUE: QueueSettings = QueueSettings {
    frames: 256,
    bytes: 64 << 20,
    when_full: WhenFull::Block,
    max_age: None,
};

/// The queues of a session while they are being laid.
#[derive(Default)]
pub(super) struct Wiring {
    /// Per stage: the notifier and the receivers, in the order of the inputs, events and dead
    /// letters after them.
    inboxes: HashMap<usize, (Arc<Notify>, Vec<Receiver>)>,
    senders: HashMap<(usize, Option<Arc<str>>), Vec<Sender>>,
    pub monitors: Vec<(String, QueueMonitor)>,
}

impl Wiring {
    pub fn add(&mut self, stage: usize, settings: QueueSettings) -> Sender {
        let (filled, receivers) = self.inboxes.entry(stage).or_default();
        let (sender, receiver) = queue(settings, filled);
        receivers.push(receiver);
        sender
    }

    pub fn new(topology: &Topology, source: usize, behind: &[usize]) -> Self {
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
                // sender is dropped here.
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

/// Whether the dead letters of the stage at `place` would come back to it: two sinks that wait for
/// each other's letters would never end.
pub(super) fn dead_letters_cycle(topology: &Topology, place: usize) -> bool {
    let next = |at: usize| topology.place(topology.plan.stages[at].dead_letter.as_deref()?);
    std::iter::successors(next(place), |&at| next(at))
        .take(topology.stages.len())
        .any(|at| at == place)
}

/// The ways into the session, by view.
pub(super) fn entries(
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
pub(super) struct SessionSpawner<'a> {
    pub topology: &'a Topology,
    pub source: usize,
    pub behind: &'a [usize],
    pub stream: &'a Arc<Stream>,
    pub force: &'a CancellationToken,
}

pub(super) type Tasks = (
    Vec<(String, JoinHandle<()>)>,
    Vec<(String, JoinHandle<Result<()>>)>,
    Delivered,
);

impl SessionSpawner<'_> {
    pub fn spawn(&self, mut wiring: Wiring, mut letters: HashMap<usize, Sender>) -> Tasks {
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
