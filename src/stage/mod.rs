//! The stage contract: what an author of a stage writes against, and the queues, joins and ledger
//! that the runner puts around it.

mod contract;
mod deps;
mod inbox;
mod join;
mod kind;
mod ledger;
mod queue;
pub mod source_setup;
#[cfg(test)]
pub mod testing;

pub(crate) use contract::InFlight;
pub use contract::{
    DropPolicy, Emitter, Feed, Flush, Held, Host, Input, InputRef, PacketDraft, PendingInput, Sink,
    Source, Transform,
};
pub use deps::{Deps, Kafka, Print};
pub use inbox::{Arrival, Inbox};
pub use join::{JoinSettings, Joined, Joiner, Late};
pub use kind::{Build, Context, Joins, Lookahead, OpenTransform, Role, StageKind};
pub use ledger::{Account, Ledger};
pub(crate) use queue::{InHand, OutputBuffer};
pub use queue::{QueueCounts, QueueMonitor, QueueSettings, Receiver, Sender, WhenFull, queue};

use std::time::Duration;

/// How often a packet is tried again after an error that may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Tries in all, at least 1.
    pub attempts: u32,
    /// The pause before the second try; it doubles with each further one.
    pub backoff: Duration,
}
