//! The way out of a stage for one stream: drafts are stamped into packets and put into every queue that reads them.

use std::sync::Arc;

use super::topology::{Stage, StageCounts};
use crate::error::Error;
use crate::packet::{DeadLetter, Head, Mark, Micros, Nanos, Outcome, Packet, Payload, PayloadKind, Reason, Receipt, now_micros};
use crate::stage::{Draft, Held, InHand, Sender};

/// Where the packets of one stage and stream go.
pub(crate) struct Outlet {
    pub stage: Arc<Stage>,
    pub readers: Vec<Sender>,
    pub dead_letters: Option<Sender>,
    /// Next sequence number by kind, within `epoch`.
    sequence: [u64; PayloadKind::ALL.len()],
    epoch: u64,
    /// What readers can already know: nothing earlier than this will follow.
    told: Option<(u64, Nanos)>,
    /// Whether a packet says that nothing earlier will follow.
    pub ordered: bool,
}

impl Outlet {
    pub fn new(stage: Arc<Stage>, readers: Vec<Sender>, dead_letters: Option<Sender>) -> Self {
        Self { stage, readers, dead_letters, sequence: [0; PayloadKind::ALL.len()], epoch: 0, told: None, ordered: true }
    }

    /// Readers go by watermarks alone, unless `ordered`.
    pub fn ordered(self, ordered: bool) -> Self {
        Self { ordered, ..self }
    }

    /// Emits what a call gave. `input` is the hold on the call's input, and with `like` its head: drafts that name nothing else hold it.
    pub async fn emit(&mut self, drafts: &mut Vec<Draft>, input: Option<Held>, like: &Arc<Head>) {
        StageCounts::add(&self.stage.counts.emitted, drafts.len());
        let last = drafts.len().saturating_sub(1);
        let mut input = input;
        for (at, mut draft) in drafts.drain(..).enumerate() {
            let (head, receipt) = match draft.held.take() {
                Some(held) => self.explicit(&mut draft, held, like),
                None => {
                    let held = if at == last { input.take() } else { input.as_ref().map(Held::split) };
                    (self.stamp(&mut draft, like, like.ingest_time), held.map_or_else(Receipt::none, Held::into_receipt))
                }
            };
            if self.ordered {
                self.told = self.told.max(Some((head.epoch, head.span.start)));
            }
            self.send(Packet { head: Arc::new(head), payload: draft.payload, receipt }).await;
        }
        if let Some(input) = input {
            input.settle(Outcome::Absorbed);
        }
    }

    fn explicit(&mut self, draft: &mut Draft, held: Vec<Held>, like: &Arc<Head>) -> (Head, Receipt) {
        let newest = held.iter().map(|held| held.head().ingest_time).max().unwrap_or(like.ingest_time);
        let like = held.last().map_or_else(|| Arc::clone(like), |held| Arc::clone(held.head()));
        let head = self.stamp(draft, &like, newest);
        (head, Receipt::join(held.into_iter().map(Held::into_receipt).collect()))
    }

    fn stamp(&mut self, draft: &mut Draft, like: &Head, ingest_time: Micros) -> Head {
        if like.epoch != self.epoch {
            self.epoch = like.epoch;
            self.sequence = [0; PayloadKind::ALL.len()];
        }
        let next = &mut self.sequence[draft.payload.kind() as usize];
        let seq = *next;
        *next += 1;
        let begun = like.event_time - (like.span.start / 1000) as Micros;
        Head {
            stream: Arc::clone(&like.stream),
            epoch: like.epoch,
            span: draft.span,
            origin: Arc::clone(&self.stage.origin),
            seq,
            ordinal: draft.ordinal,
            event_time: begun + (draft.span.start / 1000) as Micros,
            ingest_time,
            emit_time: now_micros(),
            parents: std::mem::take(&mut draft.parents),
            model: draft.model.take(),
            revision: 0,
            is_final: true,
        }
    }

    /// Puts a packet into every queue that reads it.
    pub async fn send(&self, packet: Packet) {
        let Some((last, others)) = self.readers.split_last() else {
            packet.receipt.settle(Outcome::Absorbed);
            return;
        };
        let mut packet = InHand::new(packet);
        for reader in others {
            if let Some(copy) = packet.split() {
                reader.send(copy).await;
            }
        }
        if let Some(packet) = packet.take() {
            last.send(packet).await;
        }
    }

    /// Tells the readers that nothing earlier than `pts` will follow, unless they know.
    pub fn watermark(&mut self, epoch: u64, pts: Nanos) {
        if self.told < Some((epoch, pts)) {
            self.told = Some((epoch, pts));
            self.mark(&Mark::Watermark { epoch, pts });
        }
    }

    /// Puts a mark into every queue.
    pub fn mark(&self, mark: &Mark) {
        self.readers.iter().for_each(|reader| reader.mark(mark.clone()));
    }

    /// Sends what failed to the dead letters, or counts it as lost.
    pub async fn fail(&self, input: Held, at_risk: Vec<Held>, kind: PayloadKind, error: &Error, attempts: u32) {
        StageCounts::add(&self.stage.counts.failed, 1);
        let stage = self.stage.id();
        let head = Arc::clone(input.head());
        tracing::warn!(stage, stream = %head.stream.id, pts = head.span.start, attempts, %error, "{} failed", kind.as_str());
        let Some(letters) = &self.dead_letters else {
            at_risk.into_iter().chain([input]).for_each(|held| held.settle(Outcome::Dropped(Reason::Failed)));
            return;
        };
        let receipt = Receipt::join(at_risk.into_iter().chain([input]).map(Held::into_receipt).collect());
        letters.send(dead_letter_of(head, receipt, kind, stage, error, attempts)).await;
    }
}

/// A packet as a dead letter: its frames count as dead-lettered from now on.
pub(crate) fn dead_letter(packet: Packet, stage: &str, error: &Error, attempts: u32) -> Packet {
    dead_letter_of(packet.head, packet.receipt, packet.payload.kind(), stage, error, attempts)
}

fn dead_letter_of(head: Arc<Head>, receipt: Receipt, record: PayloadKind, stage: &str, error: &Error, attempts: u32) -> Packet {
    receipt.note(Outcome::DeadLettered);
    let error_kind = error.kind().as_str().to_owned();
    let letter = DeadLetter { record, stage: stage.to_owned(), error_kind, error: error.to_string(), attempts };
    Packet { head, payload: Payload::DeadLetter(Arc::new(letter)), receipt }
}
