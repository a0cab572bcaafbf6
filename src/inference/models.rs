//! The models of a pipeline: each entry of `models:` loaded behind a handle of its network's type.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::networks::{Asked, Call, Clips, Encoded, PICTURES, Pictures, Script, Shots, Text, Told};
use super::{Asker, BatchSettings, Worker, WorkerKey, Workers, ZeroShot};
use crate::error::{Error, Result};
use crate::models::ModelFolder;
use crate::models::classes;
use crate::models::opus_encoder::OpusEncoder;
use crate::models::text::{Generation, Generator, Request};
use crate::models::torchscript::{Declared, TorchScript};
use crate::models::transnetv2::TransNetV2;
use crate::packet::{Frame, ModelTag};
use crate::tensor::{Device, DeviceChoice, Precision, PrecisionChoice};

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
struct Card {
    tag: Arc<ModelTag>,
    device: Arc<str>,
}

#[derive(Debug, Clone)]
enum Loaded {
    Shots(ShotsModel),
    Encode(EncodeModel),
    Script(ScriptModel),
    Text(TextModel),
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
    unit: bool,
    card: Card,
}

#[derive(Debug, Clone)]
enum Encoder {
    Frames(Worker<Pictures>),
    Clips(Worker<Clips>),
}

/// Makes what a TorchScript module makes.
#[derive(Debug, Clone)]
pub struct ScriptModel {
    worker: Worker<Script>,
    declared: Declared,
    labels: Option<Arc<[Arc<str>]>>,
    card: Card,
}

/// Writes text.
#[derive(Debug, Clone)]
pub struct TextModel {
    worker: Worker<Text>,
    card: Card,
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
            Encoder::Frames(worker) => match worker.ask(Asked::Frames(frames), asker).await? {
                Told::Frame(encoded) => Ok(encoded),
                Told::Texts(..) => Err(Error::bug("a frame was answered as texts")),
            },
            Encoder::Clips(worker) => worker.ask(frames, asker).await,
        }
    }

    /// Labels for its pictures: the vectors of their texts, `template` with each in the place of its `{}`.
    ///
    /// # Errors
    /// Config, where the model knows no texts, or there are no labels or no place for them; those of [`Worker::ask`].
    pub async fn zero_shot(&self, labels: Arc<[Arc<str>]>, template: &str, asker: Asker) -> Result<ZeroShot> {
        let texts = ZeroShot::texts(&labels, template)?;
        let Encoder::Frames(worker) = &self.worker else {
            return Err(
                Error::config(format!("{} knows clips only, no texts", self.card.tag.id)).hint("labels need a CLIPModel or a SiglipModel")
            );
        };
        match worker.ask(Asked::Texts(texts), asker).await? {
            Told::Texts(vectors, scoring) => Ok(ZeroShot::new(labels, vectors, scoring)),
            Told::Frame(_) => Err(Error::bug("texts were answered as a frame")),
        }
    }

    /// Whether its vectors have length 1.
    pub fn is_unit(&self) -> bool {
        self.unit
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

impl ScriptModel {
    /// What the module makes of a frame as `declared`: the vector; there are no probabilities.
    ///
    /// # Errors
    /// Those of [`Worker::ask`].
    pub async fn ask(&self, frame: Arc<Frame>, declared: Arc<Declared>, asker: Asker) -> Result<Encoded> {
        self.worker.ask(Call { frame: vec![frame], declared }, asker).await
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

impl TextModel {
    /// A text for a prompt.
    ///
    /// # Errors
    /// Those of [`Worker::ask`].
    pub async fn ask(&self, request: Request, asker: Asker) -> Result<Generation> {
        self.worker.ask(request, asker).await
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

    /// The model called `name`, which writes text.
    ///
    /// # Errors
    /// Where there is none, or it is of another network.
    pub fn text(&self, name: &str) -> Result<TextModel> {
        match self.0.get(name) {
            Some(Loaded::Text(model)) => Ok(model.clone()),
            other => Err(unfit(name, other.is_some(), "writes text")),
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
        // A module computes as it was saved, which is in f32 where nothing else is said.
        let precision = match (folder.architecture()?, settings.precision) {
            ("TorchScript", PrecisionChoice::Auto) => Precision::F32,
            (_, choice) => choice.resolve(device),
        };
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
            architecture if PICTURES.contains(&architecture) => {
                let (labels, unit) = (Pictures::classes(&folder)?, Pictures::are_unit(architecture));
                let worker = workers.get(&key, name, batch, move || Pictures::open(&made, device, precision)).await?;
                Self::Encode(EncodeModel { worker: Encoder::Frames(worker), labels, unit, card })
            }
            "OpusEncoder" => {
                let worker = workers.get(&key, name, batch, move || OpusEncoder::open(&made, device, precision).map(Clips)).await?;
                Self::Encode(EncodeModel { worker: Encoder::Clips(worker), labels: None, unit: false, card })
            }
            "TorchScript" => {
                let config = folder.config();
                let (declared, named) = (Declared::read(config)?, classes::count(config, 0)?);
                let labels = (named > 0).then(|| classes::names(config, named)).transpose()?;
                let own = declared.clone();
                let make = move || Ok(Script(TorchScript::open(&made, device, precision)?, own.clone()));
                let worker = workers.get(&key, name, batch, make).await?;
                Self::Script(ScriptModel { worker, declared, labels, card })
            }
            "LlamaForCausalLM" => {
                let worker = workers.get(&key, name, batch, move || Generator::load(&made, device, precision).map(Text)).await?;
                Self::Text(TextModel { worker, card })
            }
            other => return Err(Error::config(format!("{}: no network here is called {other}", folder.path().display()))),
        })
    }
}
