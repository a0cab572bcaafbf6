//! Models on OS threads of their own, fed by dynamic batching across streams.
//!
//! A stage asks a [`Worker`] with one item. The item takes a permit of the worker's bounded queue,
//! the batch is formed when the worker is free, and an item whose requester has gone is skipped.
//! What goes wrong with one item stays with that item.

mod batch_size;
mod compute;
mod handles;
pub(crate) mod hub;
mod loader;
mod memory;
mod model;
mod models;
mod networks;
mod pool;
mod queue;
mod reclaim;
mod requester;
mod runner;
mod settings;
mod worker;
mod workers;
mod zero_shot;

pub(crate) use self::batch_size::BatchSizeStore;
pub use self::compute::ComputeLock;
pub(crate) use self::handles::{
    Captioner, EncodeModel, PaintModel, ScriptModel, ShotsModel, SpeechModel, VadModel,
};
pub use self::model::Model;
pub(crate) use self::models::Models;
pub(crate) use self::networks::speech::Heard;
pub(crate) use self::networks::{Encoded, FromFrame, Latents, Painted, PictureRequest};
pub(crate) use self::pool::WorkerPool;
pub(crate) use self::reclaim::{MemorySettings, Reclaimed, watch_memory};
pub use self::requester::Requester;
pub(crate) use self::settings::ModelSettings;
pub use self::settings::{BatchSettings, NetworkOptions, WorkerSettings};
pub use self::worker::Worker;
pub(crate) use self::workers::{WorkerKey, Workers};
pub(crate) use self::zero_shot::ZeroShot;

#[cfg(test)]
mod tests;
