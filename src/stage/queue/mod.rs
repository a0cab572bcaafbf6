//! Bounded queues between stages: one sender and one receiver each, capped in frames and in bytes.
//! What happens when one is full is the user's choice, and counted.

mod channel;
mod inbox;
mod output_buffer;
mod settings;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use channel::{QueueMonitor, Receiver, Sender, queue};
pub(crate) use inbox::{Arrival, Inbox};
pub(crate) use output_buffer::OutputBuffer;
pub use settings::{QueueCounts, QueueSettings, WhenFull};
