//! Models on OS threads of their own, fed by dynamic batching across streams.
//!
//! A stage asks a [`Worker`] with one item. The item takes a place in the worker's bounded queue,
//! the batch is formed when the worker is free, and an item whose asker has gone is skipped. What
//! goes wrong with one item stays with that item.

mod batch;
mod check;
mod handles;
pub mod hub;
mod keeper;
mod memory;
mod models;
mod networks;
mod places;
mod pool;
mod queue;
mod remembered;
mod runner;
mod settings;
mod start;
mod tune;
mod worker;
mod workers;
mod zero_shot;

use std::sync::Arc;
use std::time::Instant;

use parking_lot::{FairMutex, FairMutexGuard};

pub use self::check::{check_weights, networks};
pub use self::handles::{
    Captioner, EncodeModel, Heard, PaintModel, PictureCaptioner, ScriptModel, ShotsModel,
    SpeechModel, TextModel, VadModel, VideoCaptioner,
};
pub use self::keeper::{MemorySettings, Relief, keep};
pub use self::models::Models;
pub use self::networks::{Encoded, FromFrame, Latents, Painted, PictureRequest};
pub use self::pool::Pool;
pub use self::remembered::Remembered;
pub use self::settings::{BatchSettings, ModelSettings, NetworkOptions, WorkerSettings};
pub use self::worker::Worker;
pub use self::workers::{WorkerKey, Workers};
pub use self::zero_shot::ZeroShot;

use crate::error::Result;

/// What a worker owns. It is made, used and dropped on the worker's thread, so it need be neither
/// `Send` nor `Sync`.
pub trait Model: 'static {
    /// What it is asked with.
    type Item: Send + 'static;
    /// What it answers with.
    type Answer: Send + 'static;

    /// Answers `items`, one answer each and in their order. Where it works in steps it may ask
    /// between them whether item `n` is `cancelled` and leave it out, answering it with any error.
    ///
    /// # Errors
    /// An error of one item goes into its place. An error of the whole call, kind model, makes the
    /// worker try smaller batches until the item that causes it stands alone; other kinds go to
    /// every item.
    fn run(
        &mut self,
        items: &[&Self::Item],
        cancelled: &dyn Fn(usize) -> bool,
    ) -> Result<Vec<Result<Self::Answer>>>;

    /// Runs once before the first item, so that the first item does not pay for allocations and
    /// kernels.
    ///
    /// # Errors
    /// Whatever keeps it from running: the worker is then not started.
    fn warm_up(&mut self) -> Result<()> {
        Ok(())
    }

    /// An item as its stages give it, to measure with how large batches should be; none where
    /// nothing can stand for them.
    fn sample(&self) -> Option<Self::Item> {
        None
    }

    /// What of an item its cost depends on, in words: its size, its length.
    fn shape(_item: &Self::Item) -> String {
        String::new()
    }

    /// Gives back what it keeps for later itself: a batch ran out of memory and will be tried again
    /// in halves.
    fn out_of_memory(&mut self) {}
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
        Self {
            stream: stream.into(),
            live,
            deadline: None,
        }
    }
}

/// The one permit to compute on the CPU. All workers of a process that run there share it, as torch
/// spreads each operation over its threads already. It passes in the order it was asked for.
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
