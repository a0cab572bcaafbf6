//! The wiring of a session: the queues of one stream, and the task of each stage that works on
//! them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::delivery::{Delivered, Delivery};
use super::driver::Tasks;
use super::feed::{Entry, Events};
use super::lane::Lane;
use super::output::Output;
use super::topology::{Built, Stage, Topology};
use crate::packet::{PayloadKind, Stream};
use crate::stage::{
    Inbox, Ledger, QueueMonitor, QueueSettings, Receiver, Role, Sender, Sink, Transform, WhenFull,
    queue,
};
use crate::telemetry::SinkMetrics;

/// Room for events and dead letters in front of a sink.
pub(super) const SIDE_QUEUE: QueueSettings = QueueSettings {
    frames: 256,
    bytes: 64 << 20,
    when_full: WhenFull::Block,
    max_age: None,
};

/// An input of a stage, as status and metrics name its queue.
#[derive(Debug, Clone)]
pub struct Edge {
    /// What is read: a stage or a view of a source, `film.frames`.
    pub input: Arc<str>,
    /// The stage that reads it.
    pub stage: Arc<str>,
    /// The place of that stage in the plan, and that of the input among its inputs.
    pub place: (usize, usize),
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.input, self.stage)
    }
}

/// The queues of a session while they are being laid.
#[derive(Default)]
pub(super) struct Wiring {
    /// Per stage: the notifier and the receivers, in the order of the inputs, events and dead
    /// letters after them.
    inboxes: HashMap<usize, (Arc<Notify>, Vec<Receiver>)>,
    senders: HashMap<(usize, Option<Arc<str>>), Vec<Sender>>,
    pub monitors: Vec<(Edge, QueueMonitor)>,
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
            for (number, input) in plan.inputs.iter().enumerate() {
                let sender = wiring.add(place, input.queue);
                // An input that this source does not reach is closed from the start: its only
                // sender is dropped here.
                if input.from != source && !behind.contains(&input.from) {
                    continue;
                }
                let edge = Edge {
                    input: topology.plan.input_name(input).into(),
                    stage: Arc::clone(&plan.id),
                    place: (place, number),
                };
                wiring.monitors.push((edge, sender.monitor()));
                // What only counts holds no frame back.
                let only_counts = plan.kind.role() == Role::Sink && !plan.required;
                let sender = if only_counts {
                    sender.without_receipts()
                } else {
                    sender
                };
                wiring
                    .senders
                    .entry((input.from, input.view.clone()))
                    .or_default()
                    .push(sender);
            }
        }
        wiring
    }

    /// Queues for what `events` tells, one to each sink that takes events.
    pub fn add_events(&mut self, topology: &Topology, behind: &[usize], events: &Events) {
        for &place in behind {
            let stage = &topology.stages[place];
            if stage.role() == Role::Sink && stage.takes(PayloadKind::Event) {
                events.add(self.add(place, SIDE_QUEUE));
            }
        }
    }

    /// Queues for the dead letters of each stage that has another take them. A sink that is not
    /// behind this source is not there to take any.
    pub fn add_dead_letters(
        &mut self,
        topology: &Topology,
        behind: &[usize],
    ) -> HashMap<usize, Sender> {
        let mut letters = HashMap::new();
        for &place in behind {
            let sink = topology.plan.stages[place].dead_letter;
            let sink = sink.filter(|sink| behind.contains(sink));
            if let Some(sink) = sink.filter(|_| !dead_letters_cycle(topology, place)) {
                letters.insert(place, self.add(sink, SIDE_QUEUE));
            }
        }
        letters
    }

    fn inbox(&mut self, stage: usize, hold: bool) -> Inbox {
        let (filled, receivers) = self.inboxes.remove(&stage).unwrap_or_default();
        Inbox::new(receivers, filled, hold)
    }
}

/// Whether the dead letters of the stage at `place` would come back to it: two sinks that wait for
/// each other's letters would never end.
fn dead_letters_cycle(topology: &Topology, place: usize) -> bool {
    let next = |at: usize| topology.plan.stages[at].dead_letter;
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
    pub wiring: Wiring,
    /// Where the dead letters of each stage go.
    pub letters: HashMap<usize, Sender>,
}

impl SessionSpawner<'_> {
    pub fn spawn(mut self) -> Tasks {
        let mut tasks = Tasks::default();
        let ordered = self.topology.ordered(self.behind, self.source);
        for &place in self.behind {
            let stage = Arc::clone(&self.topology.stages[place]);
            let id = stage.id().to_owned();
            let transform = match &stage.built {
                Built::Source(_) => continue,
                Built::Sink(sink) => {
                    let delivery = self.delivery(&stage, sink, &tasks.delivered);
                    tasks.deliveries.push((id, tokio::spawn(delivery.run())));
                    continue;
                }
                Built::Shared(transform) => Arc::clone(transform),
                Built::PerStream(open) => open(self.stream),
            };
            let lane = self.lane(&stage, transform, &ordered);
            tasks.lanes.push((id, tokio::spawn(lane.run())));
        }
        tasks
    }

    fn delivery(
        &mut self,
        stage: &Arc<Stage>,
        sink: &Arc<dyn Sink>,
        delivered: &Delivered,
    ) -> Delivery {
        Delivery {
            stage: Arc::clone(stage),
            sink: Arc::clone(sink),
            stream: Arc::clone(self.stream),
            inbox: self.wiring.inbox(stage.place, false),
            dead_letters: self.letters.remove(&stage.place),
            delivered: Arc::clone(delivered),
            force: self.force.clone(),
            tally: Default::default(),
            metrics: SinkMetrics::new(&self.topology.plan.name, stage.id()),
        }
    }

    fn lane(
        &mut self,
        stage: &Arc<Stage>,
        transform: Arc<dyn Transform>,
        ordered: &[bool],
    ) -> Lane {
        let (place, settings) = (stage.place, stage.settings());
        let inbox = self.wiring.inbox(place, settings.join.is_some());
        let readers = self.wiring.senders.remove(&(place, None));
        let inputs = settings.inputs.iter();
        let sides: Vec<bool> = inputs.map(|input| ordered[input.from]).collect();
        let dead_letters = self.letters.remove(&place);
        let output = Output::new(
            Arc::clone(stage),
            self.stream,
            readers.unwrap_or_default(),
            dead_letters,
        );
        let output = output.ordered(ordered[place]);
        Lane::new(transform, output, inbox, &sides, self.force.clone())
    }
}
