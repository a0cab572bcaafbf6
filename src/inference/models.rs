//! The models of a pipeline: each entry of `models:` loaded behind a handle of its network's type.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::handles::{
    Captioner, EncodeModel, PaintModel, ScriptModel, ShotsModel, SpeechModel, VadModel,
};
use super::loader::ModelLoader;
use super::{ModelSettings, Workers};
use crate::error::{Error, Result};
use crate::models::network_spec::NetworkTask;
use crate::models::networks;
use crate::tensor::{self, Device};

/// Loaded models by name. A handle: cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Models(Arc<BTreeMap<String, Loaded>>);

#[derive(Debug, Clone)]
enum Loaded {
    Shots(ShotsModel),
    Encode(EncodeModel),
    Script(ScriptModel),
    Caption(Captioner),
    Speech(SpeechModel),
    Vad(VadModel),
    Paint(PaintModel),
}

impl Models {
    /// Loads every model, one after the other, each on a worker of `workers`. A model that is being
    /// loaded when `stop` is cancelled is the last.
    ///
    /// # Errors
    /// The first that does not load, by its name; overload, where `stop` came before the last.
    pub async fn load(
        settings: &BTreeMap<String, ModelSettings>,
        workers: &Workers,
        stop: &CancellationToken,
    ) -> Result<Self> {
        let on_gpus = |settings: &&ModelSettings| {
            settings
                .devices
                .iter()
                .any(|device| device.resolve().is_ok_and(Device::is_cuda))
        };
        // One switch for the process, which a single model that needs whole numbers turns off.
        tensor::allow_tf32(
            settings
                .values()
                .filter(on_gpus)
                .all(|settings| settings.tf32),
        );
        let mut loaded = BTreeMap::new();
        for (name, settings) in settings {
            if stop.is_cancelled() {
                return Err(Error::overload(format!(
                    "model `{name}` was not loaded: the run is stopped"
                )));
            }
            let model = Loaded::load(name, settings, workers)
                .await
                .map_err(|error| error.context(format_args!("model `{name}`")))?;
            loaded.insert(name.clone(), model);
        }
        Ok(Self(Arc::new(loaded)))
    }

    /// The model called `name`, which finds cuts.
    ///
    /// # Errors
    /// Where there is none, or it is of another network.
    pub fn shots(&self, name: &str) -> Result<ShotsModel> {
        match self.0.get(name) {
            Some(Loaded::Shots(model)) => Ok(model.clone()),
            other => Err(unfit(name, other.is_some(), "finds cuts")),
        }
    }

    /// The model called `name`, which makes vectors.
    ///
    /// # Errors
    /// Where there is none, or it is of another network.
    pub fn encoder(&self, name: &str) -> Result<EncodeModel> {
        match self.0.get(name) {
            Some(Loaded::Encode(model)) => Ok(model.clone()),
            other => Err(unfit(name, other.is_some(), "makes vectors")),
        }
    }

    /// The model called `name`, which is a TorchScript module.
    ///
    /// # Errors
    /// Where there is none, or it is of another network.
    pub fn script(&self, name: &str) -> Result<ScriptModel> {
        match self.0.get(name) {
            Some(Loaded::Script(model)) => Ok(model.clone()),
            other => Err(unfit(name, other.is_some(), "is a TorchScript module")),
        }
    }

    /// The model called `name`, which writes captions.
    ///
    /// # Errors
    /// Where there is none, or it is of another network.
    pub fn captioner(&self, name: &str) -> Result<Captioner> {
        match self.0.get(name) {
            Some(Loaded::Caption(model)) => Ok(model.clone()),
            other => Err(unfit(name, other.is_some(), "writes captions")),
        }
    }

    /// The model called `name`, which writes speech down.
    ///
    /// # Errors
    /// Where there is none, or it is of another network.
    pub fn speech(&self, name: &str) -> Result<SpeechModel> {
        match self.0.get(name) {
            Some(Loaded::Speech(model)) => Ok(model.clone()),
            other => Err(unfit(name, other.is_some(), "writes speech down")),
        }
    }

    /// The model called `name`, which hears where somebody speaks.
    ///
    /// # Errors
    /// Where there is none, or it is of another network.
    pub fn vad(&self, name: &str) -> Result<VadModel> {
        match self.0.get(name) {
            Some(Loaded::Vad(model)) => Ok(model.clone()),
            other => Err(unfit(name, other.is_some(), "hears where somebody speaks")),
        }
    }

    /// The model called `name`, which paints pictures.
    ///
    /// # Errors
    /// Where there is none, or it is of another network.
    pub fn painter(&self, name: &str) -> Result<PaintModel> {
        match self.0.get(name) {
            Some(Loaded::Paint(model)) => Ok(model.clone()),
            other => Err(unfit(name, other.is_some(), "paints pictures")),
        }
    }
}

fn unfit(name: &str, known: bool, does: &str) -> Error {
    let what = if known {
        format!("`{name}` is no model that {does}")
    } else {
        format!("there is no model `{name}`")
    };
    Error::config(what).hint("name an entry of `models:` whose network fits the stage")
}

impl Loaded {
    async fn load(name: &str, settings: &ModelSettings, workers: &Workers) -> Result<Self> {
        let loader = ModelLoader::open(name, settings, workers).await?;
        let (_, task) = networks::of_folder(&loader.folder)?;
        Ok(match task {
            NetworkTask::DetectShots => Self::Shots(ShotsModel::load(&loader).await?),
            NetworkTask::EncodeFrames | NetworkTask::EncodeFramesAndTexts => {
                Self::Encode(EncodeModel::load_for_pictures(&loader).await?)
            }
            NetworkTask::EncodeClips => Self::Encode(EncodeModel::load_for_clips(&loader).await?),
            NetworkTask::GenerateText => Self::Caption(Captioner::load_for_prompts(&loader).await?),
            NetworkTask::CaptionPictures => {
                Self::Caption(Captioner::load_for_pictures(&loader).await?)
            }
            NetworkTask::CaptionClips => Self::Caption(Captioner::load_for_videos(&loader).await?),
            NetworkTask::Transcribe => Self::Speech(SpeechModel::load(&loader).await?),
            NetworkTask::DetectSpeech => Self::Vad(VadModel::load(&loader).await?),
            NetworkTask::RunModule => Self::Script(ScriptModel::load(&loader).await?),
            NetworkTask::GeneratePictures => Self::Paint(PaintModel::load(&loader).await?),
        })
    }
}
