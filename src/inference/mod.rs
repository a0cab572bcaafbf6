//! Models on OS threads of their own, fed by dynamic batching across streams.
//!
//! A stage asks a [`Worker`] with one item. The item takes a permit of the worker's bounded queue,
//! the batch is formed when the worker is free, and an item whose requester has gone is skipped.
//! What goes wrong with one item stays with that item.

mod batch_size;
mod compute;
mod handles;
pub mod hub;
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

pub use self::batch_size::BatchSizeStore;
pub use self::compute::ComputeLock;
pub use self::handles::{
    Captioner, EncodeModel, PaintModel, PictureCaptioner, ScriptModel, ShotsModel, SpeechModel,
    TextModel, VadModel, VideoCaptioner,
};
pub use self::model::Model;
pub use self::models::Models;
pub use self::networks::speech::Heard;
pub use self::networks::{Encoded, FromFrame, Latents, Painted, PictureRequest};
pub use self::pool::WorkerPool;
pub use self::reclaim::{MemorySettings, Reclaimed, watch_memory};
pub use self::requester::Requester;
pub use self::settings::{BatchSettings, ModelSettings, NetworkOptions, WorkerSettings};
pub use self::worker::Worker;
pub use self::workers::{WorkerKey, Workers};
pub use self::zero_shot::ZeroShot;

#[cfg(test)]
mod tests;
