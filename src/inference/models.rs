//! The models of a pipeline: each entry of `models:` loaded behind a handle of its network's type.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::captioner::{Captioner, PictureCaptioner, TextModel, VideoCaptioner};
use super::networks::captioner::{Pictures, Text, Videos};
use super::networks::{Clips, Encoded, Frames, Shots};
use super::{Asker, BatchSettings, Worker, WorkerKey, Workers};
use crate::error::{Error, Result};
use crate::models::ModelFolder;
use crate::models::blip::Blip;
use crate::models::opus_captions;
use crate::models::opus_encoder::OpusEncoder;
use crate::models::resnet::{ResNet, class_names};
use crate::models::text::Generator;
use crate::models::transnetv2::TransNetV2;
use crate::packet::{Frame, ModelTag};
use crate::tensor::{Device, DeviceChoice, PrecisionChoice};

/// Which model to load, and how.
#[derive(Debug, Clone)]
pub struct ModelSettings {
    /// Its folder.
    pub path: PathBuf,
    /// The device asked for.
    pub device: DeviceChoice,
    /// The number format asked for.
    pub precision: PrecisionChoice,
    /// How its worker batches.
    pub batch: BatchSettings,
}

/// Loaded models by name. A handle: cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Models(Arc<BTreeMap<String, Loaded>>);

/// What every loaded model has.
#[derive(Debug, Clone)]
pub(super) struct Card {
    pub tag: Arc<ModelTag>,
    /// `cpu` or `cuda`.
    pub device: Arc<str>,
}

#[derive(Debug, Clone)]
enum Loaded {
    Shots(ShotsModel),
    Encode(EncodeModel),
    Caption(Captioner),
}

/// Finds cuts.
#[derive(Debug, Clone)]
pub struct ShotsModel {
    worker: Worker<Shots>,
    card: Card,
}

/// Makes vectors.
#[derive(Debug, Clone)]
pub struct EncodeModel {
    worker: Encoder,
    labels: Option<Arc<[Arc<str>]>>,
    card: Card,
}

#[derive(Debug, Clone)]
enum Encoder {
    Frames(Worker<Frames>),
    Clips(Worker<Clips>),
}

impl ShotsModel {
    /// The probability of a cut at each frame of a window of 100 frames of 48x27.
    ///
    /// # Errors
    /// Those of [`Worker::ask`].
    pub async fn ask(&self, window: Vec<Arc<Frame>>, asker: Asker) -> Result<Vec<f32>> {
        self.worker.ask(window, asker).await
    }

    /// What records say of it.
    pub fn tag(&self) -> &Arc<ModelTag> {
        &self.card.tag
    }
}

impl EncodeModel {
    /// The vector of a frame, or of a window of frames of one size.
    ///
    /// # Errors
    /// Those of [`Worker::ask`].
    pub async fn ask(&self, frames: Vec<Arc<Frame>>, asker: Asker) -> Result<Encoded> {
        match &self.worker {
            Encoder::Frames(worker) => worker.ask(frames, asker).await,
            Encoder::Clips(worker) => worker.ask(frames, asker).await,
        }
    }

    /// Whether it takes windows of frames, not single ones.
    pub fn is_windowed(&self) -> bool {
        matches!(self.worker, Encoder::Clips(_))
    }

    /// The names of its classes, where it has classes.
    pub fn labels(&self) -> Option<&Arc<[Arc<str>]>> {
        self.labels.as_ref()
    }

    /// The class of its device, `cpu` or `cuda`: answers differ between them in the last digits.
    pub fn device(&self) -> &str {
        &self.card.device
    }

    /// What records say of it.
    pub fn tag(&self) -> &Arc<ModelTag> {
        &self.card.tag
    }
}

impl Models {
    /// Loads every model, one after the other, each on a worker of `workers`. A model that is being loaded when `stop` is told is the last.
    ///
    /// # Errors
    /// The first that does not load, by its name; overload, where `stop` came before the last.
    pub async fn load(settings: &BTreeMap<String, ModelSettings>, workers: &Workers, stop: &CancellationToken) -> Result<Self> {
        let mut loaded = BTreeMap::new();
        for (name, settings) in settings {
            if stop.is_cancelled() {
                return Err(Error::overload(format!("model `{name}` was not loaded: the run is stopped")));
            }
            let model = Loaded::load(name, settings, workers).await.map_err(|error| error.context(format_args!("model `{name}`")))?;
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
}

fn unfit(name: &str, known: bool, does: &str) -> Error {
    let what = if known { format!("`{name}` is no model that {does}") } else { format!("there is no model `{name}`") };
    Error::config(what).hint("name an entry of `models:` whose network fits the stage")
}

impl Loaded {
    async fn load(name: &str, settings: &ModelSettings, workers: &Workers) -> Result<Self> {
        let folder = ModelFolder::open(&settings.path)?;
        let device = settings.device.resolve()?;
        let precision = settings.precision.resolve(device);
        let hashed = folder.clone();
        let digest = tokio::task::spawn_blocking(move || hashed.digest()).await;
        let digest = digest.map_err(|error| Error::bug(format!("hashing ended: {error}")))??;
        let class = if matches!(device, Device::Cpu) { "cpu" } else { "cuda" };
        let place = if let Device::Cuda(index) = device { format!("cuda:{index}") } else { "cpu".to_owned() };
        let key = WorkerKey { weights: digest.to_string(), device: place, precision: precision.as_str().to_owned() };
        let tag = ModelTag { id: folder.name().to_owned(), revision: digest.to_string(), precision: precision.as_str().to_owned() };
        let card = Card { tag: Arc::new(tag), device: class.into() };
        let (batch, made) = (settings.batch, folder.clone());
        Ok(match folder.architecture()? {
            "TransNetV2" => {
                let worker = workers.get(&key, name, batch, move || TransNetV2::open(&made, device, precision).map(Shots)).await?;
                Self::Shots(ShotsModel { worker, card })
            }
            "ResNetForImageClassification" => {
                let labels = Some(class_names(&folder)?);
                let worker = workers.get(&key, name, batch, move || ResNet::open(&made, device, precision).map(Frames)).await?;
                Self::Encode(EncodeModel { worker: Encoder::Frames(worker), labels, card })
            }
            "OpusEncoder" => {
                let worker = workers.get(&key, name, batch, move || OpusEncoder::open(&made, device, precision).map(Clips)).await?;
                Self::Encode(EncodeModel { worker: Encoder::Clips(worker), labels: None, card })
            }
            architecture if Generator::ARCHITECTURES.contains(&architecture) => {
                let worker = workers.get(&key, name, batch, move || Generator::load(&made, device, precision).map(Text)).await?;
                Self::Caption(Captioner::Text(TextModel { worker, card }))
            }
            "BlipForConditionalGeneration" => {
                let worker = workers.get(&key, name, batch, move || Blip::open(&made, device, precision).map(Pictures)).await?;
                Self::Caption(Captioner::Picture(PictureCaptioner { worker, card }))
            }
            "OpusCaptionDecoder" => {
                let worker = workers.get(&key, name, batch, move || opus_captions::open(&made, device, precision).map(Videos)).await?;
                Self::Caption(Captioner::Video(VideoCaptioner { worker, card }))
            }
            other => return Err(Error::config(format!("{}: no network here is called {other}", folder.path().display()))),
        })
    }
}
