//! How models are loaded and how their workers batch.

use std::path::PathBuf;
use std::time::Duration;

use super::ComputeLock;
use super::batch_size::BatchSizeStore;
use crate::error::{Error, Result};
use crate::models::attention::AttentionKind;
use crate::tensor::{Device, DeviceChoice, PrecisionChoice};

/// How a worker batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSettings {
    /// The most items a batch.
    pub max_size: usize,
    /// Whether the most is measured when the model is warm: then `max_size` is as far as that goes.
    pub measured: bool,
    /// How long the oldest item may wait for a fuller batch while the worker is free.
    pub max_wait: Duration,
    /// Places: items that wait or run. At least `max_size`; twice that lets the next batch gather
    /// while one runs.
    pub queue: usize,
}

impl BatchSettings {
    /// Batches of at most `max_size`, gathered for at most `max_wait`, with places for two.
    pub const fn new(max_size: usize, max_wait: Duration) -> Self {
        Self {
            max_size,
            measured: false,
            max_wait,
            queue: 2 * max_size,
        }
    }

    /// Batches as large as measuring finds best, but so that two of them find places.
    pub const fn measured(max_wait: Duration, queue: usize) -> Self {
        let max_size = if queue > 1 { queue / 2 } else { 1 };
        Self {
            max_size,
            measured: true,
            max_wait,
            queue,
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.max_size == 0 {
            return Err(Error::config("a batch of at most 0 items runs nothing")
                .hint("set batch.max_size to 1 or more"));
        }
        if self.queue < self.max_size {
            let message = format!(
                "{} places cannot fill a batch of {}",
                self.queue, self.max_size
            );
            return Err(Error::config(message).hint("set batch.queue to batch.max_size or more"));
        }
        Ok(())
    }
}

/// How a worker is set up.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// How it batches.
    pub batch: BatchSettings,
    /// Where its model computes.
    pub device: Device,
    /// The name of that place in metrics: `cpu`, `cuda:0`; `cpu.1` for the second worker of a model
    /// there.
    pub device_label: String,
    /// Bytes that its weights and a running batch may hold there; none for what there is.
    pub memory_limit: Option<u64>,
    /// Where the measured size of its batches is kept; none to measure at each start.
    pub batch_sizes: Option<BatchSizeStore>,
    /// The permit to compute, which the workers on the CPU share; none on GPUs.
    pub compute: Option<ComputeLock>,
}

impl WorkerSettings {
    /// A worker on the CPU that batches like this and has all the memory there is.
    pub fn on_cpu(batch: BatchSettings) -> Self {
        Self {
            batch,
            device: Device::Cpu,
            device_label: "cpu".to_owned(),
            memory_limit: None,
            batch_sizes: None,
            compute: None,
        }
    }
}

/// How a network uses memory. What a network has no part for has no effect on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetworkOptions {
    /// How its attentions are computed.
    pub attention: AttentionKind,
    /// Its decoder decodes one picture of a batch at a time.
    pub vae_slicing: bool,
    /// Its decoder decodes a picture in tiles.
    pub vae_tiling: bool,
    /// Its parts are in the CPU's memory until they are used.
    pub offload: bool,
}

impl NetworkOptions {
    /// As part of a worker's key: two models that differ here are not one.
    pub(super) fn words(&self) -> String {
        let Self {
            attention,
            vae_slicing,
            vae_tiling,
            offload,
        } = *self;
        let named = [
            (attention == AttentionKind::Sliced, "sliced"),
            (vae_slicing, "slicing"),
            (vae_tiling, "tiling"),
            (offload, "offload"),
        ];
        named
            .into_iter()
            .filter(|(on, _)| *on)
            .map(|(_, word)| word)
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// Which model to load, and how.
#[derive(Debug, Clone)]
pub struct ModelSettings {
    /// Its folder.
    pub path: PathBuf,
    /// The devices asked for, a worker on each.
    pub devices: Vec<DeviceChoice>,
    /// The number format asked for.
    pub precision: PrecisionChoice,
    /// Whether f32 may be rounded to TF32 on GPUs.
    pub tf32: bool,
    /// How its network uses memory.
    pub options: NetworkOptions,
    /// Bytes that each worker's weights and running batch may hold.
    pub memory_limit: Option<u64>,
    /// How its workers batch.
    pub batch: BatchSettings,
    /// The folder where measured sizes of batches are kept.
    pub cache: PathBuf,
}
