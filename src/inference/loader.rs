//! A model on its way into its workers: its folder opened and hashed, its devices and number format
//! decided, a worker started on each.

use std::sync::Arc;

use super::{
    BatchSizeStore, Model, ModelSettings, NetworkOptions, WorkerKey, WorkerPool, WorkerSettings,
    Workers,
};
use crate::error::{Error, Result};
use crate::models::ModelFolder;
use crate::models::diffusion::VaeOptions;
use crate::models::diffusion::pipeline;
use crate::models::network_spec::NetworkTask;
use crate::models::networks;
use crate::packet::ModelTag;
use crate::tensor::{Device, Precision, PrecisionChoice};

/// What every loaded model has.
#[derive(Debug, Clone)]
pub(super) struct ModelInfo {
    /// What records say of it.
    pub tag: Arc<ModelTag>,
    /// The class of its device, `cpu` or `cuda`: answers differ between them in the last digits.
    pub device: Arc<str>,
}

/// A model on its way into its workers.
pub(super) struct ModelLoader<'a> {
    name: &'a str,
    pub folder: ModelFolder,
    settings: &'a ModelSettings,
    workers: &'a Workers,
    /// Digest of its files.
    digest: Arc<str>,
    devices: Vec<Device>,
    precision: Precision,
}

impl<'a> ModelLoader<'a> {
    pub async fn open(
        name: &'a str,
        settings: &'a ModelSettings,
        workers: &'a Workers,
    ) -> Result<Self> {
        let folder = ModelFolder::open(&settings.path)?.with_attention(settings.options.attention);
        let devices = settings
            .devices
            .iter()
            .map(|device| device.resolve())
            .collect::<Result<Vec<_>>>()?;
        let hashed = folder.clone();
        let digest = tokio::task::spawn_blocking(move || hashed.digest()).await;
        let digest = digest.map_err(|error| Error::bug(format!("hashing ended: {error}")))??;
        let (_, task) = networks::of_folder(&folder)?;
        // All workers of a model give the same answers: what one of its devices is not fast at,
        // none does.
        let mut precisions = devices
            .iter()
            .map(|device| match (task, settings.precision) {
                // A module computes as it was saved, which is in f32 where nothing else is
                // said.
                (NetworkTask::RunModule, PrecisionChoice::Auto) => Precision::F32,
                (_, choice) => choice.resolve(*device),
            });
        let first = precisions
            .next()
            .ok_or_else(|| Error::bug("a model without a device"))?;
        let precision = if precisions.all(|other| other == first) {
            first
        } else {
            Precision::F32
        };
        if devices.iter().any(|device| precision.is_slow_on(*device)) {
            tracing::warn!(model = name, %precision, "this processor has no instructions for the \
                                                      number format: f32 or bf16 are faster");
        }
        Ok(Self {
            name,
            folder,
            settings,
            workers,
            digest,
            devices,
            precision,
        })
    }

    /// What records say of it, and where it runs.
    pub fn info(&self) -> ModelInfo {
        let (revision, precision) = (self.digest.to_string(), self.precision.as_str().to_owned());
        let tag = ModelTag {
            id: self.folder.name().to_owned(),
            revision,
            precision,
        };
        let class = if self.devices.iter().any(|device| device.is_cuda()) {
            "cuda"
        } else {
            "cpu"
        };
        ModelInfo {
            tag: Arc::new(tag),
            device: class.into(),
        }
    }

    /// What a diffusion pipeline does to spare memory.
    pub fn painting(&self) -> pipeline::DiffusionOptions {
        let NetworkOptions {
            vae_slicing: slicing,
            vae_tiling: tiling,
            offload,
            ..
        } = self.settings.options;
        pipeline::DiffusionOptions {
            vae: VaeOptions { slicing, tiling },
            offload,
        }
    }

    /// A worker on each device, whose model `make` reads from the folder.
    pub async fn pool<M, F>(&self, make: F) -> Result<WorkerPool<M>>
    where
        M: Model,
        F: Fn(&ModelFolder, Device, Precision) -> Result<M> + Clone + Send + 'static,
    {
        let mut pool = Vec::new();
        for (number, &device) in self.devices.iter().enumerate() {
            let same = self.devices[..number]
                .iter()
                .filter(|other| **other == device)
                .count();
            let key = self.key(device, same);
            let settings = WorkerSettings {
                batch: self.settings.batch,
                device,
                device_label: key.device.clone(),
                memory_limit: self.settings.memory_limit,
                batch_sizes: Some(self.batch_sizes(&key)),
                compute: None,
            };
            let (folder, precision, make) = (self.folder.clone(), self.precision, make.clone());
            pool.push(
                self.workers
                    .get(&key, self.name, settings, move || {
                        make(&folder, device, precision)
                    })
                    .await?,
            );
        }
        Ok(WorkerPool::new(pool))
    }

    fn key(&self, device: Device, same: usize) -> WorkerKey {
        let place = if let Device::Cuda(index) = device {
            format!("cuda:{index}")
        } else {
            "cpu".to_owned()
        };
        WorkerKey {
            weights: self.digest.to_string(),
            device: if same == 0 {
                place
            } else {
                format!("{place}.{same}")
            },
            precision: self.precision.as_str().to_owned(),
            options: self.settings.options.words(),
        }
    }

    fn batch_sizes(&self, key: &WorkerKey) -> BatchSizeStore {
        let WorkerKey {
            weights,
            precision,
            options,
            ..
        } = key.clone();
        BatchSizeStore {
            folder: self.settings.cache.clone(),
            model: self.folder.name().to_owned(),
            weights,
            precision,
            options,
        }
    }
}
