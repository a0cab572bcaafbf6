//! Models that write text.

use std::sync::Arc;

use super::super::networks::Text;
use super::super::start::Start;
use super::super::{Asker, Pool};
use super::Card;
use crate::error::Result;
use crate::models::text::{Generation, Generator, Request};
use crate::packet::ModelTag;

/// Writes text.
#[derive(Debug, Clone)]
pub struct TextModel {
    workers: Pool<Text>,
    card: Card,
}

impl TextModel {
    pub(in super::super) async fn load(start: &Start<'_>) -> Result<Self> {
        let workers = start.pool(|folder, device, precision| Generator::load(folder, device, precision).map(Text)).await?;
        Ok(Self { workers, card: start.card() })
    }

    /// A text for a prompt.
    ///
    /// # Errors
    /// Those of [`Pool::ask`].
    pub async fn ask(&self, request: Request, asker: Asker) -> Result<Generation> {
        self.workers.ask(request, asker).await
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
