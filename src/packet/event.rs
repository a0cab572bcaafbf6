//! What happens to a stream beside its frames, and the ledger's account that closes it.

use std::collections::BTreeMap;

use super::{Micros, Nanos};

/// Something that happened to a stream, so that a consumer knows what it has and what is lost.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A session began.
    Started {
        /// The URI, without credentials.
        uri: String,
        /// BLAKE3 of the file's content, hexadecimal; none for live streams.
        digest: Option<String>,
    },
    /// The stream broke off.
    Gap {
        /// Wall clock of the last frame before.
        from: Micros,
        /// Wall clock of the first frame after.
        to: Micros,
        /// What happened.
        reason: String,
        /// Epoch before.
        from_epoch: u64,
        /// Epoch after.
        to_epoch: u64,
    },
    /// Everything up to this pts of the epoch has settled.
    Progress {
        /// Nanoseconds.
        complete: Nanos,
    },
    /// The session ended.
    Ended {
        /// Why: `end_of_stream`, `shutdown`, or an error's message.
        reason: String,
        /// The ledger's terms by view.
        ledger: BTreeMap<String, Balance>,
        /// Records delivered, by topic or record kind.
        records: BTreeMap<String, u64>,
    },
}

impl Event {
    /// The symbol in records.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Event::Started { .. } => "started",
            Event::Gap { .. } => "gap",
            Event::Progress { .. } => "progress",
            Event::Ended { .. } => "ended",
        }
    }
}

/// The terms of a ledger's account: `ingested = delivered + absorbed + dropped + dead_lettered +
/// leaked + in_flight`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Balance {
    /// Frames that left the source.
    pub ingested: u64,
    /// Frames that a required sink has, or a record made of them.
    pub delivered: u64,
    /// Frames consumed on purpose.
    pub absorbed: u64,
    /// Frames lost, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Frames in the dead letters.
    pub dead_lettered: u64,
    /// Frames whose receipt was dropped without an outcome: always 0, or there is a bug.
    pub leaked: u64,
    /// Frames still somewhere inside.
    pub in_flight: u64,
}

impl Balance {
    /// Whether the terms add up.
    pub fn balances(&self) -> bool {
        let dropped: u64 = self.dropped.values().sum();
        self.ingested
            == self.delivered
                + self.absorbed
                + dropped
                + self.dead_lettered
                + self.leaked
                + self.in_flight
    }
}
