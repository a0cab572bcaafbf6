//! The section `models`: folders that are there, and networks that fit the stages that name them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{File, to_usize};
use crate::config::{Environment, Mention, Params, Provenance, Value, nearest};
use crate::inference::NetworkOptions;
use crate::models::attention::AttentionKind;
use crate::pipeline::plan::ModelPlan;
use crate::tensor::{DeviceChoice, PrecisionChoice};

/// The models by name; None when one is wrong, which was said.
pub(super) fn read(
    top: &Params,
    file: &mut File<'_>,
    mentions: &[Mention],
    environment: &Environment,
) -> Option<BTreeMap<String, ModelPlan>> {
    let entries = top.opt_map("models")?;
    let folder = PathBuf::from(&**top.opt_text("model_dir")?);
    let models: BTreeMap<String, Option<ModelPlan>> = entries
        .iter()
        .filter_map(|(name, value)| Some((name.clone(), model(name, value.as_object()?, &folder, file, environment))))
        .collect();
    for mention in mentions {
        match models.get(&*mention.name) {
            None => {
                let names: Vec<&str> = models.keys().map(String::as_str).collect();
                let problem = file.problems.add(mention.place, format!("there is no model `{}`", mention.name));
                match nearest(&mention.name, &names) {
                    Some(near) => problem.help(format!("did you mean `{near}`?")),
                    None => problem.help("add it under `models`"),
                };
            }
            Some(Some(model)) if !mention.architectures.is_empty() && !mention.architectures.contains(&&*model.architecture) => {
                let wanted = mention.architectures.join(" or ");
                file.problems.add(mention.place, format!("a {wanted} is needed here, and `{}` is a {}", mention.name, model.architecture));
            }
            _ => {}
        }
    }
    models.into_iter().map(|(name, model)| Some((name, model?))).collect()
}

fn model(name: &str, keys: &Params, folder: &Path, file: &mut File<'_>, environment: &Environment) -> Option<ModelPlan> {
    let devices = devices(name, keys, file);
    let (key, path) = chosen(name, keys, file)?;
    let at = file.at(&["models", name, key]);
    let path = place_of(path, folder, environment);
    let architecture = match architecture(&path) {
        Ok(architecture) => architecture,
        Err(fault) => {
            let problem = file.problems.add(at, format!("the model `{name}` {fault}"));
            problem.help(format!("put its config.json, safetensors and tokenizer.json into {}", path.display()));
            return None;
        }
    };
    let (batch, vae) = (keys.object("batch"), keys.object("vae"));
    Some(ModelPlan {
        path,
        architecture,
        precision: precision(keys.text("precision")),
        tf32: keys.bool("tf32"),
        options: NetworkOptions {
            attention: if &**keys.text("attention") == "sliced" { AttentionKind::Sliced } else { AttentionKind::Sdpa },
            vae_slicing: vae.bool("slicing"),
            vae_tiling: vae.bool("tiling"),
            offload: &**keys.text("offload") == "model",
        },
        devices: devices?,
        memory_limit: keys.opt_bytes("memory_limit"),
        max_size: batch.int_or_auto("max_size").map(to_usize),
        max_wait: batch.duration("max_wait"),
        queue: to_usize(keys.int("queue")),
    })
}

/// The word is one of the grammar's.
fn precision(word: &str) -> PrecisionChoice {
    word.parse().unwrap_or_default()
}

/// The key whose folder is loaded, and what it says.
fn chosen<'a>(name: &str, keys: &'a Params, file: &mut File<'_>) -> Option<(&'static str, &'a str)> {
    let small = keys.opt_text("small");
    match (&**keys.text("size"), small) {
        ("small", Some(path)) => Some(("small", path)),
        ("small", None) if !matches!(keys.setting("size").map(|size| &size.provenance), Some(Provenance::Profile(_))) => {
            let at = file.at(&["models", name, "size"]);
            file.problems.add(at, format!("`{name}` has no small model")).help("name its folder with the key `small`");
            None
        }
        _ => Some(("path", keys.text("path"))),
    }
}

/// All of them on CPUs, or all on GPUs, as one number format and one name in the cache must fit them all.
fn devices(name: &str, keys: &Params, file: &mut File<'_>) -> Option<Vec<DeviceChoice>> {
    let at = file.at(&["models", name, "device"]);
    let words: Vec<&str> = keys.list("device").iter().filter_map(Value::as_text).map(|word| &**word).collect();
    let mut devices = Vec::new();
    for word in &words {
        match word.parse::<DeviceChoice>() {
            Ok(device) => devices.push(device),
            Err(_) => {
                file.problems.add(at, format!("`{word}` is not a device")).help("write `auto`, `cpu` or `cuda:0`");
            }
        }
    }
    if words.is_empty() {
        file.problems.add(at, format!("`{name}` has no device")).help("write `auto`, `cpu` or `cuda:0`");
    }
    let gpus = devices.iter().filter(|device| matches!(device, DeviceChoice::Cuda(_))).count();
    let cpus = devices.iter().filter(|device| **device == DeviceChoice::Cpu).count();
    if words.len() > 1 && devices.len() == words.len() && gpus.max(cpus) < words.len() {
        file.problems.add(at, "several devices are all GPUs, or all `cpu`").help("for example `[cuda:0, cuda:1]`");
    }
    (!devices.is_empty()).then_some(devices)
}

/// A path of its own, a folder inside `model_dir`, or the hub's cache where that has it.
fn place_of(path: &str, folder: &Path, environment: &Environment) -> PathBuf {
    if Path::new(path).is_absolute() || path.starts_with("./") || path.starts_with("../") {
        return PathBuf::from(path);
    }
    let inside = folder.join(path);
    if inside.exists() { inside } else { in_hub(path, environment).unwrap_or(inside) }
}

/// The snapshot that the hub's cache has as `main`.
fn in_hub(id: &str, environment: &Environment) -> Option<PathBuf> {
    let (owner, name) = id.split_once('/').filter(|(_, name)| !name.contains('/'))?;
    let home = environment.get("HF_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(Path::new(environment.get("HOME")?).join(".cache/huggingface")))?;
    let model = home.join("hub").join(format!("models--{owner}--{name}"));
    let revision = std::fs::read_to_string(model.join("refs/main")).ok()?;
    Some(model.join("snapshots").join(revision.trim())).filter(|snapshot| snapshot.exists())
}

/// The class that reads the folder: config.json's first architecture, or the pipeline of a folder of parts.
fn architecture(path: &Path) -> Result<String, String> {
    if !path.is_dir() {
        return Err(format!("has no folder {}", path.display()));
    }
    let of_parts = path.join("model_index.json").is_file();
    let (file, place) = if of_parts { ("model_index.json", "/_class_name") } else { ("config.json", "/architectures/0") };
    let text = std::fs::read_to_string(path.join(file)).map_err(|_| format!("has no {file} in {}", path.display()))?;
    let config: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| format!("has a {file} in {} that is not JSON: {error}", path.display()))?;
    let named = config.pointer(place).and_then(serde_json::Value::as_str);
    let key = if of_parts { "_class_name" } else { "architectures" };
    named.map(str::to_owned).ok_or_else(|| format!("has a {file} in {} that names no `{key}`", path.display()))
}
