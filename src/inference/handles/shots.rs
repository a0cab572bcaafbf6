//! Models that find cuts.

use std::sync::Arc;

use super::super::networks::ShotDetector;
use super::super::start::Start;
use super::super::{Asker, Pool};
use super::Card;
use crate::error::Result;
use crate::models::transnetv2::TransNetV2;
use crate::packet::{Frame, ModelTag};

/// Finds cuts.
#[derive(Debug, Clone)]
pub struct ShotsModel {
    workers: Pool<ShotDetector>,
    card: Card,
}

impl ShotsModel {
    pub(in super::super) async fn load(start: &Start<'_>) -> Result<Self> {
        let workers = start
            .pool(|folder, device, precision| {
                TransNetV2::open(folder, device, precision).map(ShotDetector)
            })
            .await?;
        Ok(Self {
            workers,
            card: start.card(),
        })
    }

    /// The probability of a cut at each frame of a window of 100 frames of 48x27.
    ///
    /// # Errors
    /// Those of [`Pool::ask`].
    pub async fn ask(&self, window: Vec<Arc<Frame>>, asker: Asker) -> Result<Vec<f32>> {
        self.workers.ask(window, asker).await
    }

    /// What records say of it.
    pub fn tag(&self) -> &Arc<ModelTag> {
        &self.card.tag
    }
}
