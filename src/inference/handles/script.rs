//! Models that are TorchScript modules.

use std::sync::Arc;

use crate::inference::loader::{ModelInfo, ModelLoader};
use crate::inference::networks::{Encoded, ScriptInput, ScriptModule};
use crate::inference::{Requester, WorkerPool};

use crate::error::Result;
use crate::models::torchscript::{Declared, TorchScript};
use crate::models::{ModelFolder, classes};
use crate::packet::{Frame, ModelTag};

/// Makes what a TorchScript module makes.
#[derive(Debug, Clone)]
pub struct ScriptModel {
    workers: WorkerPool<ScriptModule>,
    declared: Declared,
    labels: Option<Arc<[Arc<str>]>>,
    info: ModelInfo,
}

impl ScriptModel {
    pub(in crate::inference) async fn load(loader: &ModelLoader<'_>) -> Result<Self> {
        let config = loader.folder.config();
        let (declared, named) = (Declared::read(config)?, classes::count(config, 0)?);
        let labels = (named > 0)
            .then(|| classes::names(config, named))
            .transpose()?;
        let own = declared.clone();
        let make = move |folder: &ModelFolder, device, precision| {
            Ok(ScriptModule(
                TorchScript::load(folder, device, precision)?,
                own.clone(),
            ))
        };
        Ok(Self {
            workers: loader.pool(make).await?,
            declared,
            labels,
            info: loader.info(),
        })
    }

    /// What the module makes of a frame as `declared`: the vector; there are no probabilities.
    ///
    /// # Errors
    /// Those of [`WorkerPool::ask`].
    pub async fn ask(
        &self,
        frame: Arc<Frame>,
        declared: Arc<Declared>,
        requester: Requester,
    ) -> Result<Encoded> {
        self.workers
            .ask(
                ScriptInput {
                    frame: vec![frame],
                    declared,
                },
                requester,
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
        &self.info.device
    }

    /// What records say of it.
    pub fn tag(&self) -> &Arc<ModelTag> {
        &self.info.tag
    }
}
