//! Models that paint pictures.

use std::sync::Arc;

use crate::inference::loader::{ModelInfo, ModelLoader};
use crate::inference::networks::{DiffusionNetwork, Painted, PictureRequest};
use crate::inference::{Requester, WorkerPool};

use crate::error::Result;
use crate::models::ModelFolder;
use crate::models::diffusion::pipeline::{Pipeline, is_latent_consistency};
use crate::packet::ModelTag;

/// Paints pictures.
#[derive(Debug, Clone)]
pub struct PaintModel {
    workers: WorkerPool<DiffusionNetwork>,
    info: ModelInfo,
    consistent: bool,
}

impl PaintModel {
    pub(in crate::inference) async fn load(loader: &ModelLoader<'_>) -> Result<Self> {
        let options = loader.painting();
        let make = move |folder: &ModelFolder, device, precision| {
            Pipeline::load(folder, device, precision, options).map(DiffusionNetwork)
        };
        let consistent = is_latent_consistency(loader.folder.architecture()?);
        Ok(Self {
            workers: loader.pool(make).await?,
            info: loader.info(),
            consistent,
        })
    }

    /// A picture for a prompt, and perhaps from a frame.
    ///
    /// # Errors
    /// Those of [`WorkerPool::ask`].
    pub async fn ask(&self, request: PictureRequest, requester: Requester) -> Result<Painted> {
        self.workers.ask(request, requester).await
    }

    /// How many of `steps` are done for a picture that is made from a frame at `strength`.
    pub fn steps_from_frame(&self, steps: u32, strength: f64) -> u32 {
        if self.consistent {
            steps
        } else {
            (f64::from(steps) * strength) as u32
        }
    }

    /// The class of its device, `cpu` or `cuda`.
    pub fn device(&self) -> &str {
        &self.info.device
    }

    /// What records say of it.
    pub fn tag(&self) -> &Arc<ModelTag> {
        &self.info.tag
    }
}
