//! The way out of a stage for one stream: drafts are stamped into packets and put into every queue
//! that reads them.

use std::sync::Arc;

use super::dead_letter::Failure;
use super::topology::{Stage, StageCounts};
use crate::error::Error;
use crate::packet::{
    Channel, Head, Item, Mark, Micros, Nanos, Outcome, Packet, Payload, PayloadKind, Reason,
    Receipt, Stream, now_micros,
};
use crate::stage::{Held, InFlight, OutputBuffer, PacketDraft, Sender};

/// Items that wait for each other to be sent together, at most.
const FULL: usize = 64;

/// How long the first of them waits, in microseconds, at most by one call.
const PATIENCE: Micros = 1000;

/// Where the packets of one stage and stream go.
pub(crate) struct Output {
    pub stage: Arc<Stage>,
    pub channel: Arc<Channel>,
    pub readers: Vec<Sender>,
    pub dead_letters: Option<Sender>,
    /// Next sequence number by kind, within `epoch`.
    sequence: [u64; PayloadKind::ALL.len()],
    epoch: u64,
    /// What readers can already know: nothing earlier than this will follow.
    last_watermark: Option<(u64, Nanos)>,
    /// Whether a packet says that nothing earlier will follow.
    pub ordered: bool,
    /// What has been emitted and not yet sent: one lock serves many packets.
    buffer: OutputBuffer,
    /// When the first of `buffer` was emitted, and the last.
    emitted: (Micros, Micros),
}

impl Output {
    pub fn new(
        stage: Arc<Stage>,
        stream: &Arc<Stream>,
        readers: Vec<Sender>,
        dead_letters: Option<Sender>,
    ) -> Self {
        let channel = Arc::new(Channel {
            stream: Arc::clone(stream),
            origin: Arc::clone(&stage.origin),
        });
        let (sequence, buffer) = ([0; PayloadKind::ALL.len()], OutputBuffer::default());
        Self {
            stage,
            channel,
            readers,
            dead_letters,
            sequence,
            epoch: 0,
            last_watermark: None,
            ordered: true,
            buffer,
            emitted: (0, 0),
        }
    }

    /// Readers go by watermarks alone, unless `ordered`.
    pub fn ordered(self, ordered: bool) -> Self {
        Self { ordered, ..self }
    }

    /// Emits what a call gave about its input: drafts that name nothing else hold it. What is
    /// emitted goes out with `send`.
    pub fn emit(&mut self, drafts: &mut Vec<PacketDraft>, input: InFlight) {
        let last = drafts.len().saturating_sub(1);
        let mut input = Some(input);
        for (at, mut draft) in drafts.drain(..).enumerate() {
            let own = if at == last {
                input.take()
            } else {
                input.as_ref().map(InFlight::split)
            };
            let Some(own) = own else {
                unreachable!("the input is taken only by the last draft")
            };
            let (head, receipt) = match draft.held.take() {
                Some(held) => {
                    let made = self.explicit(&mut draft, held, &own.head);
                    own.settle(Outcome::Absorbed);
                    made
                }
                None => (
                    self.stamp(&mut draft, &own.head, own.head.ingest_time),
                    own.into_receipt(),
                ),
            };
            self.put(head, draft.payload, receipt);
        }
        if let Some(input) = input {
            input.settle(Outcome::Absorbed);
        }
    }

    /// Emits what a flush gave: drafts that name nothing hold nothing, and are stamped like `like`.
    pub fn emit_flushed(&mut self, drafts: &mut Vec<PacketDraft>, like: &Arc<Head>) {
        for mut draft in drafts.drain(..) {
            let (head, receipt) = match draft.held.take() {
                Some(held) => self.explicit(&mut draft, held, like),
                None => (
                    self.stamp(&mut draft, like, like.ingest_time),
                    Receipt::none(),
                ),
            };
            self.put(head, draft.payload, receipt);
        }
    }

    fn put(&mut self, head: Head, payload: Payload, receipt: Receipt) {
        if self.ordered {
            self.last_watermark = self.last_watermark.max(Some((head.epoch, head.span.start)));
        }
        if self.buffer.is_empty() {
            self.emitted.0 = head.emit_time;
        }
        self.emitted.1 = head.emit_time;
        self.buffer.push(Item::Packet(Packet {
            head: Arc::new(head),
            payload,
            receipt,
        }));
    }

    /// Whether what is emitted should go out before more is.
    pub fn is_due(&self) -> bool {
        self.buffer.len() >= FULL
            || (!self.buffer.is_empty() && self.emitted.1 - self.emitted.0 >= PATIENCE)
    }

    /// Whether something is emitted that has not gone out.
    pub fn has_unsent(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Puts what is emitted into every queue that reads it.
    pub async fn send_buffered(&mut self) {
        StageCounts::add(&self.stage.counts.emitted, self.buffer.packets());
        self.emitted = (0, 0);
        let Some((last, others)) = self.readers.split_last() else {
            self.buffer.settle(Outcome::Absorbed);
            return;
        };
        for reader in others {
            reader.send_all(&mut self.buffer.split()).await;
        }
        last.send_all(&mut self.buffer).await;
    }

    fn explicit(
        &mut self,
        draft: &mut PacketDraft,
        held: Vec<Held>,
        like: &Arc<Head>,
    ) -> (Head, Receipt) {
        let newest = held
            .iter()
            .map(|held| held.head().ingest_time)
            .max()
            .unwrap_or(like.ingest_time);
        let like = held
            .last()
            .map_or_else(|| Arc::clone(like), |held| Arc::clone(held.head()));
        let head = self.stamp(draft, &like, newest);
        (
            head,
            Receipt::join(held.into_iter().map(Held::into_receipt).collect()),
        )
    }

    fn stamp(&mut self, draft: &mut PacketDraft, like: &Head, ingest_time: Micros) -> Head {
        if like.epoch != self.epoch {
            self.epoch = like.epoch;
            self.sequence = [0; PayloadKind::ALL.len()];
        }
        let next = &mut self.sequence[draft.payload.kind() as usize];
        let seq = *next;
        *next += 1;
        let begun = like.event_time - (like.span.start / 1000) as Micros;
        Head {
            channel: Arc::clone(&self.channel),
            epoch: like.epoch,
            span: draft.span,
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
        let (in_flight, payload) = InFlight::of(packet);
        for reader in others {
            let copy = in_flight.split().into_packet(payload.clone());
            reader.send(copy).await;
        }
        last.send(in_flight.into_packet(payload)).await;
    }

    /// Tells the readers that nothing earlier than `pts` will follow, unless they know.
    pub fn watermark(&mut self, epoch: u64, pts: Nanos) {
        if self.last_watermark < Some((epoch, pts)) {
            self.last_watermark = Some((epoch, pts));
            self.buffer.push(Item::Mark(Mark::Watermark { epoch, pts }));
        }
    }

    /// Says that nothing more will come.
    pub fn close(&self) {
        self.readers.iter().for_each(Sender::close);
    }

    /// Puts a mark into every queue, at once: what is emitted must have gone out.
    pub fn mark(&self, mark: &Mark) {
        self.readers
            .iter()
            .for_each(|reader| reader.mark(mark.clone()));
    }

    /// What failed, as a letter for `send_dead_letter`; counted as lost where there are no dead
    /// letters.
    pub fn fail(
        &self,
        input: InFlight,
        at_risk: Vec<Held>,
        kind: PayloadKind,
        error: &Error,
        attempts: u32,
    ) -> Option<Packet> {
        StageCounts::add(&self.stage.counts.failed, 1);
        let stage = self.stage.id();
        let head = Arc::clone(&input.head);
        if let Some(unlogged) = self.stage.failures.pass() {
            let (stream, pts, unlogged) = (
                &head.channel.stream.id,
                head.span.start,
                (unlogged > 0).then_some(unlogged),
            );
            tracing::warn!(stage, %stream, pts, attempts, %error, unlogged, "{} failed", kind.as_str());
        }
        if self.dead_letters.is_none() {
            at_risk
                .into_iter()
                .for_each(|held| held.settle(Outcome::Dropped(Reason::Failed)));
            input.settle(Outcome::Dropped(Reason::Failed));
            return None;
        }
        let receipt = Receipt::join(
            at_risk
                .into_iter()
                .map(Held::into_receipt)
                .chain([input.into_receipt()])
                .collect(),
        );
        let failure = Failure {
            stage,
            error,
            attempts,
        };
        Some(failure.letter(head, receipt, kind))
    }

    /// Sends a letter to the dead letters.
    pub async fn send_dead_letter(&self, letter: Option<Packet>) {
        if let (Some(letter), Some(letters)) = (letter, &self.dead_letters) {
            letters.send(letter).await;
        }
    }
}
