//! A sink at work on one stream: packets of all its inputs are gathered into batches, delivered,
//! and their receipts settled by the outcome.

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::dead_letter::Failure;
use super::panic::panicked;
use super::topology::{Stage, StageCounts};
use crate::packet::{
    Item, Micros, Outcome, Packet, Payload, PayloadKind, Reason, Stream, now_micros,
};
use crate::stage::{Arrival, Inbox, Sender, Sink};
use crate::telemetry::SinkMetrics;
use crate::{Error, Result};

/// Records delivered by destination. Sinks add to it once a batch, the driver reads it at the end.
pub(crate) type Delivered = Arc<Mutex<BTreeMap<String, u64>>>;

/// Packets that a sink is given at a time, at most: what has come since the last.
const BATCH: usize = 256;

pub(crate) struct Delivery {
    pub stage: Arc<Stage>,
    pub sink: Arc<dyn Sink>,
    pub stream: Arc<Stream>,
    pub inbox: Inbox,
    pub dead_letters: Option<Sender>,
    pub delivered: Delivered,
    pub force: CancellationToken,
    /// Destinations by kind of payload, dead letters after the others, and records delivered there
    /// since they were last reported.
    pub tally: [(Option<String>, u64); 2 * PayloadKind::ALL.len()],
    pub metrics: SinkMetrics,
}

impl Delivery {
    /// Delivers until every input is closed, or until `force`: then what is left counts as lost in
    /// the shutdown.
    pub async fn run(mut self) -> Result<()> {
        let mut arrived = VecDeque::new();
        let mut batch = Vec::new();
        let force = self.force.clone();
        loop {
            // A queue that never runs dry must not keep the thread from others.
            tokio::task::coop::consume_budget().await;
            let Some(arrival) = force
                .run_until_cancelled(self.inbox.recv(&mut arrived, BATCH))
                .await
            else {
                return Ok(());
            };
            if arrival == Arrival::Done {
                break;
            }
            batch.extend(arrived.drain(..).filter_map(|item| {
                if let Item::Packet(packet) = item {
                    Some(packet)
                } else {
                    None
                }
            }));
            if !batch.is_empty() {
                self.deliver(&mut batch).await;
            }
        }
        self.stage.log_suppressed();
        let finish = AssertUnwindSafe(self.sink.finish(&self.stream)).catch_unwind();
        match force.run_until_cancelled(finish).await {
            None => Ok(()),
            Some(Ok(result)) => {
                result.map_err(|error| error.context(format_args!("stage `{}`", self.stage.id())))
            }
            Some(Err(panic)) => {
                Err(panicked(&*panic).context(format_args!("stage `{}`", self.stage.id())))
            }
        }
    }

    async fn deliver(&mut self, batch: &mut Vec<Packet>) {
        StageCounts::add(&self.stage.counts.taken, batch.len());
        let retry = self.stage.settings().retry;
        let mut attempts = 1;
        loop {
            let began = Instant::now();
            let Some(mut outcomes) = self.force.run_until_cancelled(self.call(batch)).await else {
                batch
                    .drain(..)
                    .for_each(|packet| packet.receipt.settle(Outcome::Dropped(Reason::Shutdown)));
                return;
            };
            if outcomes.len() != batch.len() {
                let error = Error::bug(format!(
                    "the sink reported {} outcomes for {} packets",
                    outcomes.len(),
                    batch.len()
                ));
                outcomes = vec![Err(error); batch.len()];
            }
            self.metrics
                .delivery_seconds
                .record(began.elapsed().as_secs_f64());
            let mut again = Vec::new();
            let (mut emitted, now) = (0, now_micros());
            for (packet, outcome) in batch.drain(..).zip(outcomes) {
                match outcome {
                    Ok(()) => {
                        emitted += 1;
                        self.settle(packet, now);
                    }
                    Err(error) if error.is_transient() && attempts < retry.attempts => {
                        again.push(packet)
                    }
                    Err(error) => again.extend(self.fail(packet, &error, attempts).await),
                }
            }
            StageCounts::add(&self.stage.counts.emitted, emitted);
            self.report_delivered();
            if again.is_empty() {
                return;
            }
            StageCounts::add(&self.stage.counts.retried, again.len());
            // A forced end is seen by the next delivery.
            self.force
                .run_until_cancelled(tokio::time::sleep(
                    retry.backoff * 2u32.saturating_pow(attempts - 1),
                ))
                .await;
            attempts += 1;
            *batch = again;
        }
    }

    async fn call(&self, batch: &[Packet]) -> Vec<Result<()>> {
        let call = AssertUnwindSafe(async { self.sink.deliver(batch).await }).catch_unwind();
        let outcomes = match self.stage.settings().timeout {
            None => call.await,
            Some(limit) => timeout(limit, call).await.unwrap_or_else(|_| {
                let error = Error::overload(format!("not delivered within {limit:?}"))
                    .hint("raise the stage's `timeout`");
                Ok(vec![Err(error); batch.len()])
            }),
        };
        outcomes.unwrap_or_else(|panic| vec![Err(panicked(&*panic)); batch.len()])
    }

    fn settle(&mut self, packet: Packet, now: Micros) {
        let (kind, letter) = match &packet.payload {
            Payload::DeadLetter(letter) => (letter.record, true),
            payload => (payload.kind(), false),
        };
        let metrics = self.metrics.record(packet.payload.kind().as_str());
        metrics.delivered.increment(1);
        metrics
            .latency_seconds
            .record((now - packet.head.ingest_time) as f64 / 1e6);
        let (destination, count) =
            &mut self.tally[kind as usize + if letter { PayloadKind::ALL.len() } else { 0 }];
        *count += 1;
        if destination.is_none() {
            let name = std::panic::catch_unwind(AssertUnwindSafe(|| self.sink.destination(kind)));
            let name = name.unwrap_or_else(|_| kind.plural().to_owned());
            *destination = Some(if letter { name + ".dlq" } else { name });
        }
        let outcome = if self.stage.settings().required {
            Outcome::Delivered
        } else {
            Outcome::Absorbed
        };
        packet.receipt.settle(outcome);
    }

    /// Adds what was delivered to the session's counts.
    fn report_delivered(&mut self) {
        let mut delivered = self.delivered.lock();
        for (destination, count) in &mut self.tally {
            if let Some(destination) = destination.as_ref().filter(|_| *count > 0) {
                match delivered.get_mut(destination) {
                    Some(records) => *records += *count,
                    None => _ = delivered.insert(destination.clone(), *count),
                }
                *count = 0;
            }
        }
    }

    /// Hands a packet that failed to the dead letters. One that this sink takes itself is given
    /// back, to be delivered next.
    async fn fail(&self, packet: Packet, error: &Error, attempts: u32) -> Option<Packet> {
        StageCounts::add(&self.stage.counts.failed, 1);
        self.metrics
            .record(packet.payload.kind().as_str())
            .failed
            .increment(1);
        let stage = self.stage.id();
        if let Some(unlogged) = self.stage.failures.pass() {
            let unlogged = (unlogged > 0).then_some(unlogged);
            tracing::warn!(stage, stream = %self.stream.id, id = %packet.id(), attempts, unlogged, %error, "delivery failed");
        }
        let letter = packet.payload.kind() == PayloadKind::DeadLetter;
        let failure = Failure {
            stage,
            error,
            attempts,
        };
        match &self.dead_letters {
            // A dead letter that cannot be delivered is lost, whatever the sink is to other frames.
            _ if letter => packet.receipt.settle(Outcome::Dropped(Reason::Failed)),
            _ if !self.stage.settings().required => packet.receipt.settle(Outcome::Absorbed),
            Some(letters) => letters.send(failure.of_packet(packet)).await,
            None if self.stage.settings().dead_letter == Some(self.stage.place)
                && self.stage.takes(PayloadKind::DeadLetter) =>
            {
                return Some(failure.of_packet(packet));
            }
            None => packet.receipt.settle(Outcome::Dropped(Reason::Failed)),
        }
        None
    }
}
