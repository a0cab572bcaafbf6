//! Models that find cuts.

use std::sync::Arc;

use crate::inference::loader::{ModelInfo, ModelLoader};
use crate::inference::networks::ShotDetector;
use crate::inference::{Requester, WorkerPool};

use crate::error::Result;
use crate::models::transnetv2::TransNetV2;
use crate::packet::{Frame, ModelTag};

/// Finds cuts.
#[derive(Debug, Clone)]
pub struct ShotsModel {
    workers: WorkerPool<ShotDetector>,
    info: ModelInfo,
}

impl ShotsModel {
    pub(in crate::inference) async fn load(loader: &ModelLoader<'_>) -> Result<Self> {
        let workers = loader
            .pool(|folder, device, precision| {
                TransNetV2::load(folder, device, precision).map(ShotDetector)
            })
            .await?;
        Ok(Self {
            workers,
            info: loader.info(),
        })
    }

    /// The probability of a cut at each frame of a window of 100 frames of 48x27.
    ///
    /// # Errors
    /// Those of [`WorkerPool::ask`].
    pub async fn ask(&self, window: Vec<Arc<Frame>>, requester: Requester) -> Result<Vec<f32>> {
        self.workers.ask(window, requester).await
    }

    /// What records say of it.
    pub fn tag(&self) -> &Arc<ModelTag> {
        &self.info.tag
    }
}
