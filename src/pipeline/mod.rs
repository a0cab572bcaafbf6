//! A checked pipeline: spawned, run, drained. Sessions hold the queues of one stream, lanes and deliveries work on them.

mod assemble;
mod delivery;
mod feed;
pub mod grammar;
mod lane;
mod outlet;
pub mod plan;
mod run;
mod session;
mod topology;

pub use assemble::{Assembled, broker_settings, registry};
pub use plan::Plan;
pub use run::{Running, StageStatus, Summary};
pub use session::{SessionReport, SessionStatus};
