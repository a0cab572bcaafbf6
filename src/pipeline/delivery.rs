//! A sink at work on one stream: packets of all its inputs are gathered into batches, delivered, and their receipts settled by the outcome.

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::lane::panicked;
use super::topology::{Stage, StageCounts};
use crate::packet::{Item, Outcome, Packet, Payload, PayloadKind, Reason, Stream};
use crate::stage::{Arrival, Inbox, Sender, Sink};
use crate::{Error, Result};

/// Packets that a sink is given at a time, at most: what has come meanwhile.
const BATCH: usize = 256;

/// Records delivered by destination.
pub(crate) type Delivered = Arc<Mutex<BTreeMap<String, u64>>>;

pub(crate) struct Delivery {
    pub stage: Arc<Stage>,
    pub sink: Arc<dyn Sink>,
    pub stream: Arc<Stream>,
    pub inbox: Inbox,
    pub dead_letters: Option<Sender>,
    pub delivered: Delivered,
    pub force: CancellationToken,
}

impl Delivery {
    /// Delivers until every input is closed, or until `force`: then what is left counts as lost in the shutdown.
    pub async fn run(mut self) -> Result<()> {
        let mut arrived = VecDeque::new();
        let force = self.force.clone();
        loop {
            let Some(arrival) = force.run_until_cancelled(self.inbox.recv(&mut arrived, BATCH)).await else { return Ok(()) };
            if arrival == Arrival::Done {
                break;
            }
            let batch: Vec<_> =
                arrived.drain(..).filter_map(|item| if let Item::Packet(packet) = item { Some(packet) } else { None }).collect();
            if !batch.is_empty() {
                self.deliver(batch).await;
            }
        }
        let finish = AssertUnwindSafe(self.sink.finish(&self.stream)).catch_unwind();
        match force.run_until_cancelled(finish).await {
            None => Ok(()),
            Some(Ok(result)) => result.map_err(|error| error.context(format_args!("stage `{}`", self.stage.id()))),
            Some(Err(panic)) => Err(panicked(&*panic)),
        }
    }

    async fn deliver(&mut self, mut batch: Vec<Packet>) {
        StageCounts::add(&self.stage.counts.taken, batch.len());
        let mut attempts = 1;
        loop {
            let call = AssertUnwindSafe(self.sink.deliver(&batch)).catch_unwind();
            let outcomes = match self.force.run_until_cancelled(call).await {
                None => {
                    batch.into_iter().for_each(|packet| packet.receipt.settle(Outcome::Dropped(Reason::Shutdown)));
                    return;
                }
                Some(Ok(outcomes)) => outcomes,
                Some(Err(panic)) => vec![Err(panicked(&*panic)); batch.len()],
            };
            debug_assert_eq!(outcomes.len(), batch.len(), "a sink reports the outcome of each packet");
            let retry = self.stage.settings().retry;
            let mut again = Vec::new();
            for (packet, outcome) in batch.into_iter().zip(outcomes) {
                match outcome {
                    Ok(()) => self.settle(packet),
                    Err(error) if error.is_transient() && attempts < retry.attempts => again.push(packet),
                    Err(error) => self.fail(packet, &error, attempts).await,
                }
            }
            if again.is_empty() {
                return;
            }
            StageCounts::add(&self.stage.counts.retried, again.len());
            // A forced end is seen by the next delivery.
            self.force.run_until_cancelled(tokio::time::sleep(retry.backoff * 2u32.saturating_pow(attempts - 1))).await;
            attempts += 1;
            batch = again;
        }
    }

    fn settle(&self, packet: Packet) {
        StageCounts::add(&self.stage.counts.emitted, 1);
        let kind = match &packet.payload {
            Payload::DeadLetter(letter) => letter.record,
            payload => payload.kind(),
        };
        let mut destination = self.sink.destination(kind);
        if packet.payload.kind() == PayloadKind::DeadLetter {
            destination.push_str(".dlq");
        }
        *self.delivered.lock().entry(destination).or_default() += 1;
        let outcome = if self.stage.settings().required { Outcome::Delivered } else { Outcome::Absorbed };
        packet.receipt.settle(outcome);
    }

    async fn fail(&self, packet: Packet, error: &Error, attempts: u32) {
        StageCounts::add(&self.stage.counts.failed, 1);
        let stage = self.stage.id();
        tracing::warn!(stage, stream = %self.stream.id, id = %packet.id(), attempts, %error, "delivery failed");
        if !self.stage.settings().required {
            packet.receipt.settle(Outcome::Absorbed);
            return;
        }
        match &self.dead_letters {
            Some(letters) if packet.payload.kind() != PayloadKind::DeadLetter => {
                letters.send(super::outlet::dead_letter(packet, stage, error, attempts)).await;
            }
            _ => packet.receipt.settle(Outcome::Dropped(Reason::Failed)),
        }
    }
}
