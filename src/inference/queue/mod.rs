//! The queue between those who ask and a worker's thread, in three steps: a requester reserves one
//! of its bounded [permits], the item waits for its [turn](turns), and the thread forms the
//! [batch] as late as possible, when it is free to run it.

mod batch;
mod permits;
mod turns;

pub(super) use self::batch::{Job, Next, Shared};
