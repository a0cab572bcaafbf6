//! The metrics of a running pipeline, reported once a second from the counts that stages, queues
//! and ledgers keep anyway, so that packets pay nothing for them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::session::{Session, SessionStatus};
use super::topology::{Stage, Topology};
use crate::broker::Producer;
use crate::packet::{Balance, Reason};
use crate::stage::QueueCounts;
use crate::telemetry::{BrokerMetrics, PipelineMetrics, QueueMetrics};

/// How often they are reported.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// Tells the metrics of one pipeline.
pub(super) struct MetricsReporter {
    name: Arc<str>,
    stages: Vec<Arc<Stage>>,
    broker: Option<(Arc<Producer>, BrokerMetrics)>,
    pipeline: PipelineMetrics,
    /// By the places of the stage and of its input.
    queues: HashMap<(usize, usize), QueueMetrics>,
    /// Sessions reported of before, with what was reported.
    sessions: Vec<(Arc<Session>, Reported)>,
}

#[derive(Default)]
struct Reported {
    ledger: BTreeMap<String, Balance>,
    queues: HashMap<(usize, usize), QueueCounts>,
}

impl MetricsReporter {
    pub fn new(topology: &Topology, producer: Option<&Arc<Producer>>) -> Self {
        let name = Arc::clone(&topology.plan.name);
        let broker = producer.map(|producer| (Arc::clone(producer), BrokerMetrics::new(&name)));
        let pipeline = PipelineMetrics::new(&name);
        Self {
            name,
            stages: topology.stages.clone(),
            broker,
            pipeline,
            queues: HashMap::new(),
            sessions: Vec::new(),
        }
    }

    /// Tells what `open` sessions and all stages have come to. Sessions that have ended since are
    /// reported of a last time.
    pub fn report(&mut self, open: &[Arc<Session>]) {
        for stage in &self.stages {
            let (counts, metrics) = (&stage.counts, &stage.metrics);
            metrics
                .received
                .absolute(counts.taken.load(Ordering::Relaxed));
            metrics
                .emitted
                .absolute(counts.emitted.load(Ordering::Relaxed));
            metrics
                .retries
                .absolute(counts.retried.load(Ordering::Relaxed));
            metrics
                .failed
                .absolute(counts.failed.load(Ordering::Relaxed));
        }
        if let Some((producer, metrics)) = &self.broker {
            metrics.in_flight_bytes.set(producer.in_flight().1 as f64);
            metrics.up.set(if producer.is_down() { 0.0 } else { 1.0 });
            metrics.restarts.absolute(producer.restarts());
        }
        self.pipeline.streams.set(open.len() as f64);
        for session in open {
            if !self
                .sessions
                .iter()
                .any(|(known, _)| Arc::ptr_eq(known, session))
            {
                self.sessions
                    .push((Arc::clone(session), Reported::default()));
            }
        }
        let mut depths: HashMap<(usize, usize), (usize, usize)> = HashMap::new();
        for (session, mut reported) in std::mem::take(&mut self.sessions) {
            let status = session.status();
            self.ledger(&status, &mut reported);
            self.queues(&status, &mut reported, &mut depths);
            if open.iter().any(|known| Arc::ptr_eq(known, &session)) {
                self.sessions.push((session, reported));
            }
        }
        for (edge, (frames, bytes)) in depths {
            if let Some(metrics) = self.queues.get(&edge) {
                metrics.packets.set(frames as f64);
                metrics.bytes.set(bytes as f64);
            }
        }
    }

    fn ledger(&self, status: &SessionStatus, reported: &mut Reported) {
        for (view, now) in &status.ledger {
            let before = reported.ledger.entry(view.clone()).or_default();
            let dropped = |balance: &Balance| balance.dropped.values().sum::<u64>();
            self.pipeline
                .ingested
                .increment(now.ingested - before.ingested);
            let terms = [
                ("delivered", now.delivered - before.delivered),
                ("absorbed", now.absorbed - before.absorbed),
                ("dropped", dropped(now) - dropped(before)),
                ("dead_lettered", now.dead_lettered - before.dead_lettered),
                ("leaked", now.leaked - before.leaked),
            ];
            terms
                .into_iter()
                .for_each(|(term, frames)| self.pipeline.settled(term).increment(frames));
            *before = now.clone();
        }
    }

    fn queues(
        &mut self,
        status: &SessionStatus,
        reported: &mut Reported,
        depths: &mut HashMap<(usize, usize), (usize, usize)>,
    ) {
        for queue in &status.queues {
            let (edge, now) = (&queue.edge, queue.counts);
            let metrics = self
                .queues
                .entry(edge.place)
                .or_insert_with(|| QueueMetrics::new(&self.name, &edge.stage, &edge.input));
            let before = reported.queues.insert(edge.place, now).unwrap_or_default();
            if now.blocked > before.blocked {
                metrics
                    .blocked_seconds
                    .record((now.blocked - before.blocked).as_secs_f64());
            }
            if now.timed > before.timed {
                metrics.wait_seconds.record(now.wait.as_secs_f64());
            }
            let depth = depths.entry(edge.place).or_default();
            *depth = (depth.0 + now.frames, depth.1 + now.bytes);
            let stage = &self.stages[edge.place.0].metrics;
            stage
                .dropped(Reason::QueueFull.as_str())
                .increment(now.dropped_full - before.dropped_full);
            stage
                .dropped(Reason::Stale.as_str())
                .increment(now.dropped_stale - before.dropped_stale);
        }
    }
}
