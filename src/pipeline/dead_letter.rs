//! What failed, as a packet for a sink of dead letters.

use std::sync::Arc;

use crate::error::Error;
use crate::packet::{DeadLetter, Head, Outcome, Packet, Payload, PayloadKind, Receipt};

/// A packet as a dead letter: its frames count as dead-lettered from now on.
pub(crate) fn dead_letter(packet: Packet, stage: &str, error: &Error, attempts: u32) -> Packet {
    dead_letter_of(
        packet.head,
        packet.receipt,
        packet.payload.kind(),
        stage,
        error,
        attempts,
    )
}

pub(crate) fn dead_letter_of(
    head: Arc<Head>,
    receipt: Receipt,
    record: PayloadKind,
    stage: &str,
    error: &Error,
    attempts: u32,
) -> Packet {
    receipt.note(Outcome::DeadLettered);
    let error_kind = error.kind().as_str().to_owned();
    let letter = DeadLetter {
        record,
        stage: stage.to_owned(),
        error_kind,
        error: error.to_string(),
        attempts,
    };
    Packet {
        head,
        payload: Payload::DeadLetter(Arc::new(letter)),
        receipt,
    }
}
