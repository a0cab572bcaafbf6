//! A session: one run of the pipeline over one stream, from the queues that are made for it to the
//! driver that closes its ledger when the stream has ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::driver::Driver;
use super::feed::{Events, FeedCounts, SessionFeed};
use super::topology::Topology;
use super::wiring::{Edge, SessionSpawner, Wiring, entries};
use crate::packet::{Balance, Stream};
use crate::stage::{Feed, Ledger, QueueCounts, QueueMonitor, QueueSettings};

/// What a session looks like now.
#[derive(Debug, Clone)]
pub struct SessionStatus {
    /// The stream's id.
    pub stream: Arc<str>,
    /// The ledger's terms by view.
    pub ledger: BTreeMap<String, Balance>,
    /// The queues in front of its stages.
    pub queues: Vec<QueueStatus>,
    /// End of the newest frame that left the source, in nanoseconds of its epoch.
    pub position: u64,
    /// Length of the stream in nanoseconds, where it is known.
    pub length: Option<u64>,
}

/// What a queue looks like now.
#[derive(Debug, Clone)]
pub struct QueueStatus {
    /// Between which stages it lies.
    pub edge: Edge,
    /// Its limits.
    pub settings: QueueSettings,
    /// What it holds and has held.
    pub counts: QueueCounts,
}

/// A running session, seen from the runner.
pub(crate) struct Session {
    stream: Arc<Stream>,
    ledger: Arc<Ledger>,
    queues: Vec<(Edge, QueueMonitor)>,
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
        wiring.add_events(topology, &behind, &events);
        let letters = wiring.add_dead_letters(topology, &behind);
        let ledger = Arc::new(Ledger::default());
        let entries = entries(topology, (source, &stream), &mut wiring, &ledger);
        let queues = std::mem::take(&mut wiring.monitors);
        let spawner = SessionSpawner {
            topology,
            source,
            behind: &behind,
            stream: &stream,
            force,
            wiring,
            letters,
        };
        let tasks = spawner.spawn();
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
            tasks,
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
                .map(|(edge, monitor)| QueueStatus {
                    edge: edge.clone(),
                    settings: monitor.settings(),
                    counts: monitor.counts(),
                })
                .collect(),
            position: self.counts.position.load(Ordering::Relaxed),
            length: Some(self.counts.length.load(Ordering::Relaxed)).filter(|length| *length > 0),
        }
    }
}
