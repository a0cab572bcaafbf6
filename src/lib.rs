//! opusflow: a streaming dataflow processor for video AI.
//!
//! A pipeline file names sources, transforms and sinks. [`config`] reads it, [`pipeline`] checks and
//! runs it: [`media`] decodes a stream into frames, which flow as [`packet`]s through bounded queues
//! to the [`stages`], each written against the contract in [`stage`]. Stages ask [`inference`], where
//! a thread owns each of the [`models`] and forms batches; answers are kept in [`cache`]. Sinks write
//! records by [`codec`], to Kafka through [`broker`]. [`tensor`] is what libtorch needs, [`telemetry`]
//! logs and metrics, [`cli`] the commands.
//!
//! Rooms import downwards only; `tests/house` holds that. The map is `docs/architecture.md`.

#![warn(missing_docs)]

// Floor 0
pub mod error;
pub mod packet;
mod redact;
// Floor 1
pub mod codec;
pub mod config;
pub mod media;
pub mod telemetry;
pub mod tensor;
// Floor 2
pub mod broker;
pub mod cache;
pub mod models;
// Floor 3
pub mod inference;
// Floor 4
pub mod stage;
// Floor 5
pub mod stages;
// Floor 6
pub mod pipeline;
// Floor 9
pub mod cli;

pub use error::{Error, Result};

/// Small things are made on one thread here and freed on another, in great number, by librdkafka as
/// well: glibc's allocator spends longer on a caption's way to Kafka than all the rest. It takes the
/// place of `malloc` for the whole process.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
