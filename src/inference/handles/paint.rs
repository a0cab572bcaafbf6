//! Models that paint pictures.

use std::sync::Arc;

use super::super::networks::{DiffusionNetwork, Painted, PictureRequest};
use super::super::start::Start;
use super::super::{Asker, Pool};
use super::Card;
use crate::error::Result;
use crate::models::ModelFolder;
use crate::models::diffusion::pipeline::{Pipeline, is_latent_consistency};
use crate::packet::ModelTag;

/// Paints pictures.
#[derive(Debug, Clone)]
pub struct PaintModel {
    workers: Pool<DiffusionNetwork>,
    card: Card,
    consistent: bool,
}

impl PaintModel {
    pub(in super::super) async fn load(start: &Start<'_>) -> Result<Self> {
        let options = start.painting();
        let make = move |folder: &ModelFolder, device, precision| {
            Pipeline::open(folder, device, precision, options).map(DiffusionNetwork)
        };
        let consistent = is_latent_consistency(start.folder.architecture()?);
        Ok(Self {
            workers: start.pool(make).await?,
            card: start.card(),
            consistent,
        })
    }

    /// A picture for a prompt, and perhaps from a frame.
    ///
    /// # Errors
    /// Those of [`Pool::ask`].
    pub async fn ask(&self, request: PictureRequest, asker: Asker) -> Result<Painted> {
        self.workers.ask(request, asker).await
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
        &self.card.device
    }

    /// What records say of it.
    pub fn tag(&self) -> &Arc<ModelTag> {
        &self.card.tag
    }
}
