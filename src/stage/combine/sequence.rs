//! What every way of combining inputs does, as the task of a stage drives it.

use std::collections::VecDeque;

use tokio::time::Instant;

use crate::packet::{Item, Mark, Nanos};
use crate::stage::input::PendingInput;
use crate::stage::queue::Inbox;

/// The next thing that a stage works on.
#[derive(Debug)]
pub(crate) enum Combined {
    /// An input, with what was collected for it.
    Input(PendingInput),
    /// A mark that holds for all inputs.
    Mark(Mark),
}

/// A point in a stream across its epochs: epoch and pts.
pub(super) type Position = (u64, Nanos);

/// How far an input has come that has ended.
pub(super) const END: Position = (u64::MAX, Nanos::MAX);

/// Several inputs as one sequence. It never waits: whoever drives it reads the inbox and asks again
/// after each arrival, and when `deadline` has passed.
pub(crate) trait Combine {
    /// Takes in all of `items`, which came from `input`.
    fn accept(&mut self, input: usize, items: &mut VecDeque<Item>, inbox: &mut Inbox);

    /// Nothing more will come from `input`.
    fn close(&mut self, input: usize, inbox: &mut Inbox);

    /// The next of the sequence, where there is one by now.
    fn next(&mut self, inbox: &mut Inbox) -> Option<Combined>;

    /// Items that it has taken in and not given yet.
    fn waiting(&self) -> usize;

    /// Whether it must read on while what it has taken in waits, because that waits for other
    /// inputs. What it has read then keeps its room in its queue.
    fn reads_ahead(&self) -> bool {
        false
    }

    /// When `next` may have something though nothing more came.
    fn deadline(&self) -> Option<Instant> {
        None
    }
}
