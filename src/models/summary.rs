//! What a model folder holds, as its small files and the headers of its weights, for lists: nothing
//! of the weights themselves is read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Config;
use super::files::WeightSet;
use super::weights::header;
use crate::error::{Error, Result};

/// The file that says what a folder is of: one network, or a pipeline in Diffusers' layout with its
/// networks in subfolders.
const HEADS: [&str; 2] = ["config.json", "model_index.json"];

/// Parts of a pipeline that nothing here reads, so that it does not matter what they lack.
const UNREAD: [&str; 2] = ["safety_checker", "image_encoder"];

/// A model folder in a few figures.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSummary {
    /// The class that reads it: the first of `architectures`, or Diffusers' `_class_name`.
    pub architecture: String,
    /// Numbers in its weights, of all its networks.
    pub parameters: u64,
    /// The number format of most of them, as safetensors names it in lowercase: `f32`, `bf16`.
    pub format: String,
    /// Bytes of all files of the folder and of its subfolders.
    pub bytes: u64,
}

impl ModelSummary {
    /// Whether the folder says that it is a model.
    pub fn is_model(folder: &Path) -> bool {
        HEADS.iter().any(|head| folder.join(head).is_file())
    }

    /// Reads the folder.
    ///
    /// # Errors
    /// Config, where a file that it must have is not there; model, where one is not what it should
    /// be; external, where one cannot be read.
    pub fn read(folder: &Path) -> Result<Self> {
        let head = HEADS
            .iter()
            .map(|head| folder.join(head))
            .find(|head| head.is_file());
        let head = head.ok_or_else(|| {
            Error::config(format!(
                "model folder {} has no config.json",
                folder.display()
            ))
        })?;
        let config = Config::read(&head)?;
        let first = config
            .field("architectures")
            .and_then(|list| list.get(0))
            .or_else(|| config.field("_class_name"));
        let architecture = first
            .and_then(Value::as_str)
            .ok_or_else(|| config.error("`architectures` names no network's class"))?;
        let mut formats: BTreeMap<String, u64> = BTreeMap::new();
        for file in weights(folder)? {
            for info in header(&file)?.1.tensors().values() {
                let numbers = info.shape.iter().map(|&size| size as u64).product::<u64>();
                *formats
                    .entry(format!("{:?}", info.dtype).to_lowercase())
                    .or_default() += numbers;
            }
        }
        let most = formats.iter().max_by_key(|(_, numbers)| **numbers);
        Ok(Self {
            architecture: architecture.to_owned(),
            parameters: formats.values().sum(),
            format: most.map(|(format, _)| format.clone()).unwrap_or_default(),
            bytes: bytes(folder)?,
        })
    }
}

/// The weights of the folder's network, or of every network in its subfolders.
fn weights(folder: &Path) -> Result<Vec<PathBuf>> {
    if folder.join(HEADS[0]).is_file() {
        return of_network(folder);
    }
    let mut files = Vec::new();
    for part in entries(folder)? {
        let read = part
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| !UNREAD.contains(&name));
        if read && part.join(HEADS[0]).is_file() {
            files.extend(of_network(&part)?);
        }
    }
    Ok(files)
}

fn of_network(folder: &Path) -> Result<Vec<PathBuf>> {
    let found = entries(folder)?;
    let names = found.iter().filter_map(|path| path.file_name()?.to_str());
    let lacks =
        |what: &str| Error::config(format!("model folder {} has no {what}", folder.display()));
    let set = WeightSet::among(names, None).ok_or_else(|| lacks("safetensors weights"))?;
    let Some(index) = set.index else {
        return Ok(set.files.iter().map(|file| folder.join(file)).collect());
    };
    let index = Config::read(&folder.join(index))?;
    let map = index
        .field("weight_map")
        .and_then(Value::as_object)
        .ok_or_else(|| index.error("`weight_map` must be an object of file names"))?;
    let mut files: Vec<&str> = map.values().filter_map(Value::as_str).collect();
    files.sort_unstable();
    files.dedup();
    match files
        .iter()
        .find(|file| !found.contains(&folder.join(file)))
    {
        Some(missing) => Err(lacks(missing)),
        None => Ok(files.into_iter().map(|file| folder.join(file)).collect()),
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let unreadable =
        |error| Error::external(format!("cannot read {}", folder.display())).because(error);
    let entries = std::fs::read_dir(folder).map_err(unreadable)?;
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<Vec<_>>>()
        .map_err(unreadable)?;
    paths.sort();
    Ok(paths)
}

/// Of a folder of links the bytes that they lead to; hidden folders, in which what fetched it keeps
/// its notes, are not the model's.
fn bytes(folder: &Path) -> Result<u64> {
    let mut total = 0;
    for path in entries(folder)? {
        let hidden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        match std::fs::metadata(&path) {
            Ok(data) if data.is_dir() && !hidden => total += bytes(&path)?,
            Ok(data) if data.is_file() => total += data.len(),
            Ok(_) => {}
            Err(error) => {
                return Err(
                    Error::config(format!("{} leads nowhere", path.display())).because(error)
                );
            }
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Kind, Tensor};

    fn network(folder: &Path, file: &str, sizes: &[(&str, i64, Kind)]) {
        std::fs::create_dir_all(folder).unwrap();
        let tensors: Vec<_> = sizes
            .iter()
            .map(|(key, size, kind)| (*key, Tensor::zeros([*size, 2], (*kind, tch::Device::Cpu))))
            .collect();
        Tensor::write_safetensors(&tensors, folder.join(file)).unwrap();
    }

    #[test]
    fn a_network_is_told_from_its_headers() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("config.json"),
            r#"{"architectures": ["X"]}"#,
        )
        .unwrap();
        assert_eq!(
            ModelSummary::read(folder.path()).unwrap_err().kind(),
            crate::error::Kind::Config
        );
        network(
            folder.path(),
            "model.safetensors",
            &[("a", 10, Kind::BFloat16), ("b", 3, Kind::Float)],
        );
        network(
            folder.path(),
            "model.fp16.safetensors",
            &[("a", 100, Kind::Half)],
        );
        let summary = ModelSummary::read(folder.path()).unwrap();
        assert_eq!(
            (&*summary.architecture, summary.parameters, &*summary.format),
            ("X", 26, "bf16")
        );
        let sizes = ["config.json", "model.safetensors", "model.fp16.safetensors"];
        assert_eq!(
            summary.bytes,
            sizes
                .map(|file| folder.path().join(file).metadata().unwrap().len())
                .iter()
                .sum::<u64>()
        );
    }

    #[test]
    fn a_pipeline_is_told_from_all_its_networks() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("model_index.json"),
            r#"{"_class_name": "StableDiffusionPipeline"}"#,
        )
        .unwrap();
        for (part, size) in [("unet", 5), ("vae", 2)] {
            network(
                &folder.path().join(part),
                "diffusion_pytorch_model.safetensors",
                &[("a", size, Kind::Half)],
            );
            std::fs::write(folder.path().join(part).join("config.json"), "{}").unwrap();
        }
        std::fs::create_dir(folder.path().join("scheduler")).unwrap();
        let summary = ModelSummary::read(folder.path()).unwrap();
        assert_eq!(
            (&*summary.architecture, summary.parameters, &*summary.format),
            ("StableDiffusionPipeline", 14, "f16")
        );
    }

    #[test]
    fn what_an_index_names_must_be_there() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("config.json"),
            r#"{"architectures": ["X"]}"#,
        )
        .unwrap();
        network(
            folder.path(),
            "model-00001-of-00002.safetensors",
            &[("a", 1, Kind::Float)],
        );
        let index = r#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
        std::fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
        assert!(
            ModelSummary::read(folder.path())
                .unwrap_err()
                .message()
                .contains("has no model-00002-of-00002.safetensors")
        );
        network(
            folder.path(),
            "model-00002-of-00002.safetensors",
            &[("b", 1, Kind::Float)],
        );
        assert_eq!(ModelSummary::read(folder.path()).unwrap().parameters, 4);
    }
}
