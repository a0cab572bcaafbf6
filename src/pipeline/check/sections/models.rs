//! The section `models`: folders that are there, and networks that fit the stages that name them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{File, to_usize};
use crate::config::{Environment, Mention, Params, Value, nearest};
use crate::pipeline::plan::ModelPlan;

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
    let device = keys.text("device");
    let cuda = device.strip_prefix("cuda:").is_some_and(|number| number.parse::<u16>().is_ok());
    if !cuda && !matches!(&**device, "auto" | "cpu") {
        let at = file.at(&["models", name, "device"]);
        file.problems.add(at, format!("`{device}` is not a device")).help("write `auto`, `cpu` or `cuda:0`");
    }
    let at = file.at(&["models", name, "path"]);
    let path = place_of(keys.text("path"), folder, environment);
    let architecture = match architecture(&path) {
        Ok(architecture) => architecture,
        Err(fault) => {
            let problem = file.problems.add(at, format!("the model `{name}` {fault}"));
            problem.help(format!("put its config.json, safetensors and tokenizer.json into {}", path.display()));
            return None;
        }
    };
    let batch = keys.object("batch");
    Some(ModelPlan {
        path,
        architecture,
        precision: keys.text("precision").to_string(),
        device: device.to_string(),
        max_size: to_usize(batch.int("max_size")),
        max_wait: batch.duration("max_wait"),
        queue: to_usize(keys.int("queue")),
    })
}

/// The architecture of each model whose folder tells it; what is wrong with the others is said elsewhere.
pub(in crate::pipeline::check) fn architectures(top: &Params, environment: &Environment) -> super::Architectures {
    let folder = PathBuf::from(top.opt_text("model_dir").map_or("", |folder| folder));
    let entries = top.opt_map("models").unwrap_or_default();
    let known = |value: &Value| architecture(&place_of(value.as_object()?.opt_text("path")?, &folder, environment)).ok();
    entries.iter().filter_map(|(name, value)| Some((name.clone(), known(value)?))).collect()
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
