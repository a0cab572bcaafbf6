//! The stage contract: what an author of a stage writes against, and the queues, joins and ledger
//! that the runner puts around it.

mod combine;
mod contract;
mod deps;
mod emitter;
mod in_flight;
mod input;
mod kind;
mod ledger;
mod queue;
mod retry;
pub mod source_setup;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use combine::{Combine, Combined, Combiner};
pub use combine::{JoinSettings, Late};
pub use contract::{Feed, Flush, Host, Sink, Source, Transform};
pub use deps::{Deps, Kafka, Print};
pub use emitter::{Emitter, PacketDraft};
pub(crate) use in_flight::InFlight;
pub use in_flight::{DropPolicy, Held};
pub use input::{Input, PendingInput};
pub use kind::{Build, Context, Endpoint, Joins, Lookahead, OpenTransform, Role, StageKind};
pub(crate) use ledger::{Account, Ledger};

pub(crate) use queue::{Arrival, Inbox, OutputBuffer, QueueMonitor, Receiver, Sender, queue};
pub use queue::{QueueCounts, QueueSettings, WhenFull};
pub use retry::Retry;
