//! The section `models`: folders that are there or may be fetched, and networks that fit the stages
//! that name them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::reader::SectionReader;
use crate::config::{Environment, NameRef, Params, Provenance, Value, nearest};
use crate::inference::NetworkOptions;
use crate::models::ModelSummary;
use crate::models::attention::AttentionKind;
use crate::models::hub::{HubId, HubSettings};
use crate::pipeline::check::values::to_usize;
use crate::pipeline::plan::{AbsentModel, ModelPlan};
use crate::tensor::{DeviceChoice, PrecisionChoice};

/// The architecture of each model, by the model's name.
pub(crate) type Architectures = BTreeMap<String, String>;

/// The models by name.
pub(super) struct CheckedModels {
    /// Those that are there.
    pub here: BTreeMap<String, ModelPlan>,
    /// Those that a run fetches first.
    pub absent: BTreeMap<String, AbsentModel>,
}

enum Model {
    Here(Box<ModelPlan>),
    Absent(AbsentModel),
}

/// What models are looked up in.
struct ModelFolders {
    /// `model_dir`.
    folder: PathBuf,
    /// The hub and its cache; none where there is no home folder for it.
    hub: Option<HubSettings>,
}

/// The models by name; None when one is wrong, which was said.
pub(super) fn read(
    top: &Params,
    file: &mut SectionReader<'_>,
    mentions: &[NameRef],
    environment: &Environment,
) -> Option<CheckedModels> {
    let entries = top.opt_map("models")?;
    let places = ModelFolders::new(top, environment);
    let models: BTreeMap<String, Option<Model>> = entries
        .iter()
        .filter_map(|(name, value)| {
            Some((name.clone(), model(name, value.as_object()?, &places, file)))
        })
        .collect();
    check_mentions(mentions, &models, file);
    let mut found = CheckedModels {
        here: BTreeMap::new(),
        absent: BTreeMap::new(),
    };
    for (name, model) in models {
        match model? {
            Model::Here(model) => drop(found.here.insert(name, *model)),
            Model::Absent(model) => drop(found.absent.insert(name, model)),
        }
    }
    Some(found)
}

/// What stages name must be there, and be a network that they can use.
fn check_mentions(
    mentions: &[NameRef],
    models: &BTreeMap<String, Option<Model>>,
    file: &mut SectionReader<'_>,
) {
    for mention in mentions {
        match models.get(&*mention.name) {
            None if mention.key.is_some() => {} // The model's own mention says so.
            None => {
                let names: Vec<&str> = models.keys().map(String::as_str).collect();
                let problem = file.problems.add(
                    mention.place,
                    format!("there is no model `{}`", mention.name),
                );
                match nearest(&mention.name, &names) {
                    Some(near) => problem.help(format!("did you mean `{near}`?")),
                    None => problem.help("add it under `models`"),
                };
            }
            Some(Some(Model::Here(model)))
                if !mention.architectures.is_empty()
                    && !mention.architectures.contains(&&*model.architecture) =>
            {
                let wanted = mention.architectures.join(" or ");
                let what = mention.key.map_or_else(
                    || format!("a {wanted} is needed here"),
                    |key| format!("`{key}` needs a {wanted}"),
                );
                file.problems.add(
                    mention.place,
                    format!("{what}, and `{}` is a {}", mention.name, model.architecture),
                );
            }
            _ => {}
        }
    }
}

fn model(
    name: &str,
    keys: &Params,
    places: &ModelFolders,
    file: &mut SectionReader<'_>,
) -> Option<Model> {
    let devices = devices(name, keys, file);
    let (key, written) = chosen(name, keys, file)?;
    let place = places.find(written);
    if pulls(keys) && place.id.is_none() {
        let problem = file.problems.add(
            file.at(&["models", name, "pull"]),
            format!("`{written}` cannot be pulled: it is not a hub id"),
        );
        problem.help("write `path: owner/name` or `path: owner/name@revision`");
        return None;
    }
    let architecture = match (architecture(&place.path), place.missing(), &places.hub) {
        (Ok(architecture), ..) => architecture,
        (Err(_), Some(id), Some(hub)) if pulls(keys) && !hub.offline => {
            return Some(Model::Absent(AbsentModel {
                id: id.clone(),
                folder: place.path.clone(),
            }));
        }
        (Err(fault), ..) => {
            let (fault, help) = missing(&place, fault, places.hub.as_ref(), pulls(keys));
            file.problems
                .add(
                    file.at(&["models", name, key]),
                    format!("the model `{name}` {fault}"),
                )
                .help(help);
            return None;
        }
    };
    let (batch, vae) = (keys.object("batch"), keys.object("vae"));
    Some(Model::Here(Box::new(ModelPlan {
        path: place.path,
        architecture,
        precision: precision(keys.text("precision")),
        tf32: keys.bool("tf32"),
        options: NetworkOptions {
            attention: if &**keys.text("attention") == "sliced" {
                AttentionKind::Sliced
            } else {
                AttentionKind::Sdpa
            },
            vae_slicing: vae.bool("slicing"),
            vae_tiling: vae.bool("tiling"),
            offload: &**keys.text("offload") == "model",
        },
        devices: devices?,
        memory_limit: keys.opt_bytes("memory_limit"),
        max_size: batch.int_or_auto("max_size").map(to_usize),
        max_wait: batch.duration("max_wait"),
        queue: to_usize(keys.int("queue")),
    })))
}

/// The architecture of each model whose folder tells it; what is wrong with the others is said
/// elsewhere.
pub(crate) fn architectures(top: &Params, environment: &Environment) -> Architectures {
    let places = ModelFolders::new(top, environment);
    let entries = top.opt_map("models").unwrap_or_default();
    let known = |value: &Value| architecture(&places.find(written(value.as_object()?)?).path).ok();
    entries
        .iter()
        .filter_map(|(name, value)| Some((name.clone(), known(value)?)))
        .collect()
}

/// Whether a run fetches what is missing.
fn pulls(keys: &Params) -> bool {
    **keys.text("pull") == *"missing"
}

/// What is wrong with a model that is not there, and what to do.
fn missing(
    place: &ModelLocation,
    fault: String,
    hub: Option<&HubSettings>,
    pull: bool,
) -> (String, String) {
    let by_hand = format!(
        "put its config.json, safetensors and tokenizer.json into {}",
        place.path.display()
    );
    let Some((id, hub)) = place.missing().filter(|id| pull || id.has_owner()).zip(hub) else {
        return (fault, by_hand);
    };
    let fault = format!(
        "{fault}, and the hub's cache {} does not have the whole of {id}",
        hub.cache.path().display()
    );
    let forbidden = pull && hub.offline;
    let other = if forbidden {
        "unset HF_HUB_OFFLINE".to_owned()
    } else {
        format!("run `opusflow models pull {id}`")
    };
    (fault, format!("{other}, or {by_hand}"))
}

/// The word is one of the grammar's.
fn precision(word: &str) -> PrecisionChoice {
    word.parse().unwrap_or_default()
}

/// The folder that is loaded, where the entry's keys go together.
fn written(keys: &Params) -> Option<&str> {
    let small = keys
        .opt_text("small")
        .filter(|_| keys.opt_text("size").is_some_and(|size| **size == *"small"));
    small.or_else(|| keys.opt_text("path")).map(|path| &**path)
}

/// The key whose folder is loaded, and what it says.
fn chosen<'a>(
    name: &str,
    keys: &'a Params,
    file: &mut SectionReader<'_>,
) -> Option<(&'static str, &'a str)> {
    let small = keys.opt_text("small");
    match (&**keys.text("size"), small) {
        ("small", Some(path)) => Some(("small", path)),
        ("small", None)
            if !matches!(
                keys.setting("size").map(|size| &size.provenance),
                Some(Provenance::Profile(_))
            ) =>
        {
            let at = file.at(&["models", name, "size"]);
            file.problems
                .add(at, format!("`{name}` has no small model"))
                .help("name its folder with the key `small`");
            None
        }
        _ => Some(("path", keys.text("path"))),
    }
}

/// All of them on CPUs, or all on GPUs, as one number format and one name in the cache must fit
/// them all.
fn devices(name: &str, keys: &Params, file: &mut SectionReader<'_>) -> Option<Vec<DeviceChoice>> {
    let at = file.at(&["models", name, "device"]);
    let words: Vec<&str> = keys
        .list("device")
        .iter()
        .filter_map(Value::as_text)
        .map(|word| &**word)
        .collect();
    let mut devices = Vec::new();
    for word in &words {
        match word.parse::<DeviceChoice>() {
            Ok(device) => devices.push(device),
            Err(_) => {
                file.problems
                    .add(at, format!("`{word}` is not a device"))
                    .help("write `auto`, `cpu` or `cuda:0`");
            }
        }
    }
    if words.is_empty() {
        file.problems
            .add(at, format!("`{name}` has no device"))
            .help("write `auto`, `cpu` or `cuda:0`");
    }
    let gpus = devices
        .iter()
        .filter(|device| matches!(device, DeviceChoice::Cuda(_)))
        .count();
    let cpus = devices
        .iter()
        .filter(|device| **device == DeviceChoice::Cpu)
        .count();
    if words.len() > 1 && devices.len() == words.len() && gpus.max(cpus) < words.len() {
        file.problems
            .add(at, "several devices are all GPUs, or all `cpu`")
            .help("for example `[cuda:0, cuda:1]`");
    }
    (!devices.is_empty()).then_some(devices)
}

/// Where a model is, or would be.
struct ModelLocation {
    path: PathBuf,
    /// What it is called on the hub, where its path may be read as that.
    id: Option<HubId>,
}

impl ModelLocation {
    /// The hub's id of what is nowhere.
    fn missing(&self) -> Option<&HubId> {
        self.id.as_ref().filter(|_| !self.path.exists())
    }
}

impl ModelFolders {
    fn new(top: &Params, environment: &Environment) -> Self {
        let hub = HubSettings::of(|name| environment.get(name).cloned()).ok();
        Self {
            folder: PathBuf::from(top.opt_text("model_dir").map_or("", |folder| folder)),
            hub,
        }
    }

    /// A path of its own, a folder inside `model_dir`, or the hub's cache where that has all of it:
    /// Python's tools leave parts there, too.
    fn find(&self, path: &str) -> ModelLocation {
        if Path::new(path).is_absolute() || path.starts_with("./") || path.starts_with("../") {
            return ModelLocation {
                path: PathBuf::from(path),
                id: None,
            };
        }
        let id: Option<HubId> = path.parse().ok();
        let inside = self.folder.join(path);
        if inside.exists() {
            return ModelLocation { path: inside, id };
        }
        let snapshot = id
            .as_ref()
            .zip(self.hub.as_ref())
            .and_then(|(id, hub)| hub.cache.snapshot(id));
        ModelLocation {
            path: snapshot
                .filter(|folder| ModelSummary::read(folder).is_ok())
                .unwrap_or(inside),
            id,
        }
    }
}

/// The class that reads the folder: config.json's first architecture, or the pipeline of a folder
/// of parts.
fn architecture(path: &Path) -> Result<String, String> {
    if !path.is_dir() {
        return Err(format!("has no folder {}", path.display()));
    }
    let of_parts = path.join("model_index.json").is_file();
    let (file, place) = if of_parts {
        ("model_index.json", "/_class_name")
    } else {
        ("config.json", "/architectures/0")
    };
    let text = std::fs::read_to_string(path.join(file))
        .map_err(|_| format!("has no {file} in {}", path.display()))?;
    let config: serde_json::Value = serde_json::from_str(&text).map_err(|error| {
        format!(
            "has a {file} in {} that is not JSON: {error}",
            path.display()
        )
    })?;
    let named = config.pointer(place).and_then(serde_json::Value::as_str);
    let key = if of_parts {
        "_class_name"
    } else {
        "architectures"
    };
    named
        .map(str::to_owned)
        .ok_or_else(|| format!("has a {file} in {} that names no `{key}`", path.display()))
}
