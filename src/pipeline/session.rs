//! A session: one run of the pipeline over one stream, from the queues that are made for it to the
//! driver that closes its ledger when the stream has ended.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::driver::Driver;
use super::feed::{Events, FeedCounts, SessionFeed};
use super::topology::Topology;
use super::wiring::{SIDE_QUEUE, SessionSpawner, Wiring, dead_letters_cycle, entries};
use crate::packet::{Balance, PayloadKind, Stream};
use crate::stage::{Feed, Ledger, QueueCounts, QueueMonitor, QueueSettings, Role, Sender};

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
        let mut wiring = Wiring::new(topology, source, &behind);
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
