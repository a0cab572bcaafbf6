//! What failed, as a packet for a sink of dead letters.

use std::sync::Arc;

use crate::error::Error;
use crate::packet::{DeadLetter, Head, Outcome, Packet, Payload, PayloadKind, Receipt};

/// How a stage failed on something.
#[derive(Clone, Copy)]
pub(crate) struct Failure<'a> {
    pub stage: &'a str,
    pub error: &'a Error,
    pub attempts: u32,
}

impl Failure<'_> {
    /// A packet as a dead letter: its frames count as dead-lettered from now on.
    pub fn of_packet(self, packet: Packet) -> Packet {
        self.letter(packet.head, packet.receipt, packet.payload.kind())
    }

    /// As `of_packet`, of which only head, receipt and kind of payload are left.
    pub fn letter(self, head: Arc<Head>, receipt: Receipt, record: PayloadKind) -> Packet {
        receipt.note(Outcome::DeadLettered);
        let letter = DeadLetter {
            record,
            stage: self.stage.to_owned(),
            error_kind: self.error.kind().as_str().to_owned(),
            error: self.error.to_string(),
            attempts: self.attempts,
        };
        Packet {
            head,
            payload: Payload::DeadLetter(Arc::new(letter)),
            receipt,
        }
    }
}
