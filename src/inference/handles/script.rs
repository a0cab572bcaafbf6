//! Models that are TorchScript modules.

use std::sync::Arc;

use super::super::networks::{Encoded, ScriptInput, ScriptModule};
use super::super::start::Start;
use super::super::{Asker, Pool};
use super::Card;
use crate::error::Result;
use crate::models::torchscript::{Declared, TorchScript};
use crate::models::{ModelFolder, classes};
use crate::packet::{Frame, ModelTag};

/// Makes what a TorchScript module makes.
#[derive(Debug, Clone)]
pub struct ScriptModel {
    workers: Pool<ScriptModule>,
    declared: Declared,
    labels: Option<Arc<[Arc<str>]>>,
    card: Card,
}

impl ScriptModel {
    pub(in super::super) async fn load(start: &Start<'_>) -> Result<Self> {
        let config = start.folder.config();
        let (declared, named) = (Declared::read(config)?, classes::count(config, 0)?);
        let labels = (named > 0)
            .then(|| classes::names(config, named))
            .transpose()?;
        let own = declared.clone();
        let make = move |folder: &ModelFolder, device, precision| {
            Ok(ScriptModule(
                TorchScript::open(folder, device, precision)?,
                own.clone(),
            ))
        };
        Ok(Self {
            workers: start.pool(make).await?,
            declared,
            labels,
            card: start.card(),
        })
    }

    /// What the module makes of a frame as `declared`: the vector; there are no probabilities.
    ///
    /// # Errors
    /// Those of [`Pool::ask`].
    pub async fn ask(
        &self,
        frame: Arc<Frame>,
        declared: Arc<Declared>,
        asker: Asker,
    ) -> Result<Encoded> {
        self.workers
            .ask(
                ScriptInput {
                    frame: vec![frame],
                    declared,
                },
                asker,
            )
            .await
    }

    /// What its config.json declares.
    pub fn declared(&self) -> &Declared {
        &self.declared
    }

    /// The names of its classes, where its config.json has them.
    pub fn labels(&self) -> Option<&Arc<[Arc<str>]>> {
        self.labels.as_ref()
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
