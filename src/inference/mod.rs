//! Models on OS threads of their own, fed by dynamic batching across streams.
//!
//! A stage asks a [`Worker`] with one item. The item takes a place in the worker's bounded queue, the batch is formed when the worker is
//! free, and an item whose asker has gone is skipped. What goes wrong with one item stays with that item.

mod batch;
mod captioner;
mod models;
mod networks;
mod places;
mod queue;
mod runner;
mod worker;
mod workers;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{FairMutex, FairMutexGuard};

pub use self::captioner::{Captioner, PictureCaptioner, TextModel, VideoCaptioner};
use self::models::Card;
pub use self::models::{EncodeModel, ModelSettings, Models, ShotsModel};
pub use self::networks::Encoded;
pub use self::worker::Worker;
pub use self::workers::{WorkerKey, Workers};

use crate::error::{Error, Result};

/// What a worker owns. It is made, used and dropped on the worker's thread, so it need be neither `Send` nor `Sync`.
pub trait Model: 'static {
    /// What it is asked with.
    type Item: Send + 'static;
    /// What it answers with.
    type Answer: Send + 'static;

    /// Answers `items`, one answer each and in their order. Where it works in steps it may ask between them whether item `n` is
    /// `cancelled` and leave it out, answering it with any error.
    ///
    /// # Errors
    /// An error of one item goes into its place. An error of the whole call, kind model, makes the worker try smaller batches until the
    /// item that causes it stands alone; other kinds go to every item.
    fn run(&mut self, items: &[&Self::Item], cancelled: &dyn Fn(usize) -> bool) -> Result<Vec<Result<Self::Answer>>>;

    /// Runs once before the first item, so that the first item does not pay for allocations and kernels.
    ///
    /// # Errors
    /// Whatever keeps it from running: the worker is then not started.
    fn warm_up(&mut self) -> Result<()> {
        Ok(())
    }

    /// Gives back what memory it can: a batch ran out of it and will be tried again in halves.
    fn out_of_memory(&mut self) {}
}

/// How a worker batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSettings {
    /// The most items a batch.
    pub max_size: usize,
    /// How long the oldest item may wait for a fuller batch while the worker is free.
    pub max_wait: Duration,
    /// Places: items that wait or run. At least `max_size`; twice that lets the next batch gather while one runs.
    pub queue: usize,
}

impl BatchSettings {
    /// Batches of at most `max_size`, gathered for at most `max_wait`, with places for two.
    pub const fn new(max_size: usize, max_wait: Duration) -> Self {
        Self { max_size, max_wait, queue: 2 * max_size }
    }

    fn check(&self) -> Result<()> {
        if self.max_size == 0 {
            return Err(Error::config("a batch of at most 0 items runs nothing").hint("set batch.max_size to 1 or more"));
        }
        if self.queue < self.max_size {
            let message = format!("{} places cannot fill a batch of {}", self.queue, self.max_size);
            return Err(Error::config(message).hint("set batch.queue to batch.max_size or more"));
        }
        Ok(())
    }
}

/// On whose behalf an item is asked.
#[derive(Debug, Clone)]
pub struct Asker {
    /// Streams take turns.
    pub stream: Arc<str>,
    /// Live streams go before files.
    pub live: bool,
    /// When the answer is of no use any more.
    pub deadline: Option<Instant>,
}

impl Asker {
    /// For a stream, without a deadline.
    pub fn new(stream: impl Into<Arc<str>>, live: bool) -> Self {
        Self { stream: stream.into(), live, deadline: None }
    }
}

/// The one permit to compute on the CPU. All workers of a process that run there share it, as torch spreads each operation over its
/// threads already. It passes in the order it was asked for.
#[derive(Debug, Clone, Default)]
pub struct Compute(Arc<FairMutex<()>>);

impl Compute {
    /// A permit of its own.
    pub fn new() -> Self {
        Self::default()
    }

    fn acquire(&self) -> FairMutexGuard<'_, ()> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests;
