//! The models of a pipeline: each entry of `models:` loaded behind a handle of its network's type.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::networks::{Clips, Encoded, Frames, Painted, Painter, PictureRequest, Shots, Text};
use super::{Asker, Model, ModelSettings, NetworkOptions, Pool, Remembered, WorkerKey, WorkerSettings, Workers};
use crate::error::{Error, Result};
use crate::models::ModelFolder;
use crate::models::diffusion::Memory;
use crate::models::diffusion::pipeline::{self, Pipeline};
use crate::models::opus_encoder::OpusEncoder;
use crate::models::resnet::{ResNet, class_names};
use crate::models::text::{Generation, Generator, Request};
use crate::models::transnetv2::TransNetV2;
use crate::packet::{Frame, ModelTag};
use crate::tensor::{self, Device, Precision};

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
    Text(TextModel),
    Paint(PaintModel),
}

/// Finds cuts.
#[derive(Debug, Clone)]
pub struct ShotsModel {
    workers: Pool<Shots>,
    card: Card,
}

/// Makes vectors.
#[derive(Debug, Clone)]
pub struct EncodeModel {
    workers: Encoder,
    labels: Option<Arc<[Arc<str>]>>,
    card: Card,
}

#[derive(Debug, Clone)]
enum Encoder {
    Frames(Pool<Frames>),
    Clips(Pool<Clips>),
}

/// Writes text.
#[derive(Debug, Clone)]
pub struct TextModel {
    workers: Pool<Text>,
    card: Card,
}

/// Paints pictures.
#[derive(Debug, Clone)]
pub struct PaintModel {
    workers: Pool<Painter>,
    card: Card,
}

impl ShotsModel {
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

impl EncodeModel {
    /// The vector of a frame, or of a window of frames of one size.
    ///
    /// # Errors
    /// Those of [`Pool::ask`].
    pub async fn ask(&self, frames: Vec<Arc<Frame>>, asker: Asker) -> Result<Encoded> {
        match &self.workers {
            Encoder::Frames(workers) => workers.ask(frames, asker).await,
            Encoder::Clips(workers) => workers.ask(frames, asker).await,
        }
    }

    /// Whether it takes windows of frames, not single ones.
    pub fn is_windowed(&self) -> bool {
        matches!(self.workers, Encoder::Clips(_))
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

impl TextModel {
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

impl PaintModel {
    /// A picture for a prompt, and perhaps from a frame.
    ///
    /// # Errors
    /// Those of [`Pool::ask`].
    pub async fn ask(&self, request: PictureRequest, asker: Asker) -> Result<Painted> {
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

impl Models {
    /// Loads every model, one after the other, each on a worker of `workers`. A model that is being loaded when `stop` is told is the last.
    ///
    /// # Errors
    /// The first that does not load, by its name; overload, where `stop` came before the last.
    pub async fn load(settings: &BTreeMap<String, ModelSettings>, workers: &Workers, stop: &CancellationToken) -> Result<Self> {
        let on_gpus = |settings: &&ModelSettings| settings.devices.iter().any(|device| device.resolve().is_ok_and(Device::is_cuda));
        // One switch for the process, which a single model that needs whole numbers turns off.
        tensor::allow_tf32(settings.values().filter(on_gpus).all(|settings| settings.tf32));
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
    let what = if known { format!("`{name}` is no model that {does}") } else { format!("there is no model `{name}`") };
    Error::config(what).hint("name an entry of `models:` whose network fits the stage")
}

/// A model on its way into its workers.
struct Start<'a> {
    name: &'a str,
    folder: ModelFolder,
    settings: &'a ModelSettings,
    workers: &'a Workers,
    /// Digest of its files.
    digest: Arc<str>,
    devices: Vec<Device>,
    precision: Precision,
}

impl<'a> Start<'a> {
    async fn of(name: &'a str, settings: &'a ModelSettings, workers: &'a Workers) -> Result<Self> {
        let folder = ModelFolder::open(&settings.path)?.with_attention(settings.options.attention);
        let devices = settings.devices.iter().map(|device| device.resolve()).collect::<Result<Vec<_>>>()?;
        let hashed = folder.clone();
        let digest = tokio::task::spawn_blocking(move || hashed.digest()).await;
        let digest = digest.map_err(|error| Error::bug(format!("hashing ended: {error}")))??;
        // All workers of a model give the same answers: what one of its devices is not fast at, none does.
        let mut precisions = devices.iter().map(|device| settings.precision.resolve(*device));
        let first = precisions.next().ok_or_else(|| Error::bug("a model without a device"))?;
        let precision = if precisions.all(|other| other == first) { first } else { Precision::F32 };
        if devices.iter().any(|device| precision.is_slow_on(*device)) {
            tracing::warn!(model = name, %precision, "this processor has no instructions for the number format: f32 or bf16 are faster");
        }
        Ok(Self { name, folder, settings, workers, digest, devices, precision })
    }

    /// What records say of it, and where it runs.
    fn card(&self) -> Card {
        let (revision, precision) = (self.digest.to_string(), self.precision.as_str().to_owned());
        let tag = ModelTag { id: self.folder.name().to_owned(), revision, precision };
        let class = if self.devices.iter().any(|device| device.is_cuda()) { "cuda" } else { "cpu" };
        Card { tag: Arc::new(tag), device: class.into() }
    }

    /// A worker on each device, whose model `make` reads from the folder.
    async fn pool<M, F>(&self, make: F) -> Result<Pool<M>>
    where
        M: Model,
        F: Fn(&ModelFolder, Device, Precision) -> Result<M> + Clone + Send + 'static,
    {
        let mut pool = Vec::new();
        for (number, &device) in self.devices.iter().enumerate() {
            let same = self.devices[..number].iter().filter(|other| **other == device).count();
            let key = self.key(device, same);
            let settings = WorkerSettings {
                batch: self.settings.batch,
                device,
                place: key.device.clone(),
                memory_limit: self.settings.memory_limit,
                remembered: Some(self.remembered(&key)),
                compute: None,
            };
            let (folder, precision, make) = (self.folder.clone(), self.precision, make.clone());
            pool.push(self.workers.get(&key, self.name, settings, move || make(&folder, device, precision)).await?);
        }
        Ok(Pool::new(pool))
    }

    fn key(&self, device: Device, same: usize) -> WorkerKey {
        let place = if let Device::Cuda(index) = device { format!("cuda:{index}") } else { "cpu".to_owned() };
        WorkerKey {
            weights: self.digest.to_string(),
            device: if same == 0 { place } else { format!("{place}.{same}") },
            precision: self.precision.as_str().to_owned(),
            options: self.settings.options.words(),
        }
    }

    fn remembered(&self, key: &WorkerKey) -> Remembered {
        let WorkerKey { weights, precision, options, .. } = key.clone();
        Remembered { folder: self.settings.cache.clone(), model: self.folder.name().to_owned(), weights, precision, options }
    }
}

impl Loaded {
    async fn load(name: &str, settings: &ModelSettings, workers: &Workers) -> Result<Self> {
        let start = Start::of(name, settings, workers).await?;
        let card = start.card();
        Ok(match start.folder.architecture()? {
            "TransNetV2" => {
                let workers = start.pool(|folder, device, precision| TransNetV2::open(folder, device, precision).map(Shots)).await?;
                Self::Shots(ShotsModel { workers, card })
            }
            "ResNetForImageClassification" => {
                let labels = Some(class_names(&start.folder)?);
                let workers = start.pool(|folder, device, precision| ResNet::open(folder, device, precision).map(Frames)).await?;
                Self::Encode(EncodeModel { workers: Encoder::Frames(workers), labels, card })
            }
            "OpusEncoder" => {
                let workers = start.pool(|folder, device, precision| OpusEncoder::open(folder, device, precision).map(Clips)).await?;
                Self::Encode(EncodeModel { workers: Encoder::Clips(workers), labels: None, card })
            }
            "LlamaForCausalLM" => {
                let workers = start.pool(|folder, device, precision| Generator::load(folder, device, precision).map(Text)).await?;
                Self::Text(TextModel { workers, card })
            }
            class if pipeline::CLASSES.contains(&class) => {
                let NetworkOptions { vae_slicing: slicing, vae_tiling: tiling, offload, .. } = settings.options;
                let options = pipeline::Options { vae: Memory { slicing, tiling }, offload };
                let workers =
                    start.pool(move |folder, device, precision| Pipeline::open(folder, device, precision, options).map(Painter)).await?;
                Self::Paint(PaintModel { workers, card })
            }
            other => return Err(Error::config(format!("{}: no network here is called {other}", start.folder.path().display()))),
        })
    }
}
