//! A checked pipeline: spawned, run, drained. Sessions hold the queues of one stream, lanes and
//! deliveries work on them.

mod assemble;
mod attempt;
pub mod check;
mod checked;
mod dead_letter;
mod delivery;
mod driver;
pub mod effective;
mod feed;
pub mod grammar;
pub mod graph;
mod lane;
mod metrics;
mod ordered_calls;
mod output;
mod panic;
pub mod plan;
mod run;
mod session;
mod topology;
mod wiring;

pub use assemble::{Assembled, Connected};
pub(crate) use assemble::{broker_settings, registry};
pub use check::{Checked, Overrides, check, checked};
pub use driver::SessionReport;
pub use plan::Plan;
pub use run::{Running, StageStatus, Summary};
pub use session::{QueueStatus, SessionStatus};
pub use wiring::Edge;
