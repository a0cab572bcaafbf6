//! A model on disk: in Hugging Face's layout config.json beside model.safetensors, or beside the
//! shards that an index names; in Diffusers' layout model_index.json over a subfolder for each
//! part; a TorchScript module is a model.pt. No other pickled file is ever read.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use tch::Device;

use super::attention::AttentionKind;
use super::config::Config;
use super::files::WeightSet;
use super::hub::repository_of;
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::tensor::Precision;

const CONFIG: &str = "config.json";
const PARTS: &str = "model_index.json";
const SINGLE: &str = "model.safetensors";

/// The class of a folder that holds a module, not weights.
pub(super) const TORCHSCRIPT: &str = "TorchScript";

/// The module of such a folder.
pub(super) const MODULE: &str = "model.pt";

/// What makes frames what the network reads: another file, another behaviour.
const PREPROCESSOR: &str = "preprocessor_config.json";

/// Parts of a Diffusers pipeline that nothing here reads, so that they need not be there.
const UNREAD: [&str; 3] = ["safety_checker", "feature_extractor", "image_encoder"];

/// An opened model folder. Cheap to clone; weights are read when asked for.
#[derive(Debug, Clone)]
pub struct ModelFolder {
    inner: Arc<Inner>,
    attention: AttentionKind,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    config: Config,
    /// Its safetensors files; none where it is a folder of parts.
    shards: Vec<PathBuf>,
    /// The files that a digest covers.
    files: Vec<PathBuf>,
    digest: Mutex<Option<(Vec<Stamp>, Arc<str>)>>,
}

/// What tells whether a file is still the one that was hashed.
type Stamp = (PathBuf, Option<SystemTime>, u64);

impl ModelFolder {
    /// Opens the folder: reads its config.json and finds its safetensors files, or reads its
    /// model_index.json and finds its parts.
    ///
    /// # Errors
    /// Config, where the folder, its config.json or its weights are not there; model, where
    /// config.json or an index are not well formed.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if !path.is_dir() {
            return Err(
                Error::config(format!("model folder {} is not there", path.display())).hint(
                    format!(
                        "fill it with {CONFIG} and {SINGLE} in Hugging Face layout; ops/setup \
                         makes the folders of the examples"
                    ),
                ),
            );
        }
        let of_parts = path.join(PARTS);
        let (config, shards, files) = if of_parts.is_file() {
            let config = Config::read(&of_parts)?;
            let mut files = vec![of_parts];
            for name in part_names(&config)? {
                files.extend(part_files(&path.join(name))?);
            }
            (config, Vec::new(), files)
        } else {
            let file = path.join(CONFIG);
            let config = Config::read(&file)?;
            let (shards, module) = if is_module(&config) {
                (Vec::new(), Some(module(path)?))
            } else {
                (shards(path)?, None)
            };
            let pictures = Some(path.join(PREPROCESSOR)).filter(|file| file.is_file());
            let files = std::iter::once(file)
                .chain(pictures)
                .chain(module)
                .chain(shards.iter().cloned())
                .collect();
            (config, shards, files)
        };
        let inner = Inner {
            path: path.to_path_buf(),
            config,
            shards,
            files,
            digest: Mutex::new(None),
        };
        Ok(Self {
            inner: Arc::new(inner),
            attention: AttentionKind::default(),
        })
    }

    /// The network in one of its subfolders: `unet`, `vae`, `text_encoder`.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn part(&self, name: &str) -> Result<Self> {
        Ok(Self::open(self.inner.path.join(name))?.with_attention(self.attention))
    }

    /// The same folder, for networks whose attentions are computed in this way.
    #[must_use]
    pub fn with_attention(self, attention: AttentionKind) -> Self {
        Self { attention, ..self }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// The folder's own name, or the id that the hub's cache has it under.
    pub fn name(&self) -> String {
        let own = || {
            self.inner
                .path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or("model")
                .to_owned()
        };
        repository_of(&self.inner.path).unwrap_or_else(own)
    }

    /// Its config.json, or its model_index.json where it is a folder of parts.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// The class that reads it: the first of `architectures`, or Diffusers' `_class_name`.
    ///
    /// # Errors
    /// Model, where config.json names none.
    pub fn architecture(&self) -> Result<&str> {
        let first = self
            .config()
            .field("architectures")
            .and_then(|list| list.get(0));
        let name = first
            .or_else(|| self.config().field("_class_name"))
            .and_then(|name| name.as_str());
        name.ok_or_else(|| {
            self.config()
                .error("`architectures` must be a list with the name of the network's class")
        })
    }

    /// Refuses the folder unless `architecture` reads it.
    ///
    /// # Errors
    /// Config, with both names: the YAML points a stage at another network's folder.
    pub fn expect(&self, architecture: &str) -> Result<()> {
        let found = self.architecture()?;
        if found == architecture {
            return Ok(());
        }
        Err(Error::config(format!(
            "model {} is a {found}, a {architecture} is needed here",
            self.path().display()
        )))
    }

    /// Another file of the folder (tokenizer.json, scheduler/scheduler_config.json), where it is
    /// there.
    pub fn file(&self, name: &str) -> Option<PathBuf> {
        Some(self.inner.path.join(name)).filter(|path| path.is_file())
    }

    /// BLAKE3 over config.json, preprocessor_config.json and all weights, or over all that its
    /// parts are read from, hexadecimal: one digest, one behaviour. Kept as long as paths, times of
    /// change and sizes stay as they are.
    ///
    /// # Errors
    /// External, where a file cannot be read.
    pub fn digest(&self) -> Result<Arc<str>> {
        let mut kept = self.inner.digest.lock();
        let stamps = self.stamps()?;
        if let Some((seen, digest)) = kept.as_ref()
            && *seen == stamps
        {
            return Ok(Arc::clone(digest));
        }
        let mut hasher = blake3::Hasher::new();
        for (path, _, length) in &stamps {
            hasher.update(&length.to_le_bytes());
            let file = std::fs::File::open(path).map_err(|error| unreadable(path, error))?;
            hasher
                .update_reader(file)
                .map_err(|error| unreadable(path, error))?;
        }
        let digest: Arc<str> = hasher.finalize().to_hex().as_str().into();
        *kept = Some((stamps, Arc::clone(&digest)));
        Ok(digest)
    }

    /// Its weights, to be taken key by key onto `device` in `precision`.
    ///
    /// # Errors
    /// External, where a file cannot be read; model, where one is not safetensors, is cut short, or
    /// repeats another's key.
    pub fn weights(&self, device: Device, precision: Precision) -> Result<Weights> {
        let weights = Weights::open(&self.inner.shards, device, precision);
        let weights = weights
            .map_err(|error| error.context(format_args!("model {}", self.path().display())))?;
        Ok(weights.with_attention(self.attention))
    }

    fn stamps(&self) -> Result<Vec<Stamp>> {
        let stamp = |path: &PathBuf| {
            let data = std::fs::metadata(path).map_err(|error| unreadable(path, error))?;
            Ok((path.clone(), data.modified().ok(), data.len()))
        };
        self.inner.files.iter().map(stamp).collect()
    }
}

fn unreadable(path: &Path, error: std::io::Error) -> Error {
    Error::external(format!("cannot read {}", path.display())).because(error)
}

/// The subfolders that model_index.json names: `"unet": ["diffusers", "UNet2DConditionModel"]`,
/// with nulls where a part is left out.
fn part_names(index: &Config) -> Result<Vec<&str>> {
    let mut names = Vec::new();
    for (name, value) in index.fields() {
        let Some([library, class]) = value.as_array().map(Vec::as_slice) else {
            continue;
        };
        if library.is_null() || class.is_null() || UNREAD.contains(&name) {
            continue;
        }
        if Path::new(name).file_name().is_none_or(|file| file != name) {
            return Err(index.error(format_args!("`{name}` must be the name of a subfolder")));
        }
        names.push(name);
    }
    Ok(names)
}

/// What a part is read from: its settings and, where it is a network, its weights.
fn part_files(path: &Path) -> Result<Vec<PathBuf>> {
    let missing = |error| {
        Error::config(format!(
            "model folder {} is not there, and its pipeline needs it",
            path.display()
        ))
        .because(error)
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(missing)? {
        let file = entry.map_err(|error| unreadable(path, error))?.path();
        if file
            .extension()
            .is_some_and(|extension| extension == "json" || extension == "txt")
            && file.is_file()
        {
            files.push(file);
        }
    }
    files.sort();
    if path.join(CONFIG).is_file() {
        files.extend(shards(path)?);
    }
    Ok(files)
}

fn is_module(config: &Config) -> bool {
    config
        .field("architectures")
        .and_then(|list| list.get(0))
        .is_some_and(|name| name == TORCHSCRIPT)
}

fn module(path: &Path) -> Result<PathBuf> {
    let file = Some(path.join(MODULE)).filter(|file| file.is_file());
    file.ok_or_else(|| {
        Error::config(format!("model folder {} has no {MODULE}", path.display()))
            .hint("save the module there by torch.jit.save")
    })
}

fn shards(path: &Path) -> Result<Vec<PathBuf>> {
    let names: Vec<String> = std::fs::read_dir(path)
        .map_err(|error| unreadable(path, error))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    let Some(set) = WeightSet::among(names.iter().map(String::as_str), None) else {
        return Err(
            Error::config(format!("model folder {} has no {SINGLE}", path.display())).hint(
                "weights are read from safetensors only; a pickled checkpoint must be converted \
                 first",
            ),
        );
    };
    let Some(index) = set.index else {
        return Ok(set.files.iter().map(|file| path.join(file)).collect());
    };
    let index = Config::read(&path.join(index))?;
    let map = index.field("weight_map").and_then(|map| map.as_object());
    let map = map.ok_or_else(|| index.error("`weight_map` must be an object of file names"))?;
    let mut files = BTreeSet::new();
    for (key, file) in map {
        let file = file.as_str().filter(|file| {
            Path::new(file)
                .file_name()
                .is_some_and(|name| name == *file)
        });
        files.insert(file.ok_or_else(|| {
            index.error(format_args!(
                "`weight_map.{key}` must be the name of a file in the folder"
            ))
        })?);
    }
    if let Some(missing) = files.iter().find(|file| !path.join(file).is_file()) {
        return Err(Error::config(format!(
            "model folder {} has no {missing}, which its index names",
            path.display()
        )));
    }
    Ok(files.into_iter().map(|file| path.join(file)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use tch::Tensor;

    fn write(folder: &Path, file: &str, key: &str, value: f32) {
        let tensor = Tensor::from_slice(&[value, value]);
        Tensor::write_safetensors(&[(key, tensor)], folder.join(file)).unwrap();
    }

    fn folder_with(architecture: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join(CONFIG),
            format!("{{\"architectures\": [\"{architecture}\"]}}"),
        )
        .unwrap();
        folder
    }

    #[test]
    fn a_missing_folder_says_what_to_fill_it_with() {
        let error = ModelFolder::open("/nowhere/resnet-18").unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        assert!(
            error.to_string().contains("/nowhere/resnet-18")
                && error.to_string().contains("config.json"),
            "{error}"
        );
    }

    #[test]
    fn a_folder_without_weights_is_refused() {
        let folder = folder_with("TransNetV2");
        assert_eq!(
            ModelFolder::open(folder.path()).unwrap_err().kind(),
            Kind::Config
        );
    }

    #[test]
    fn another_networks_folder_is_refused() {
        let folder = folder_with("TransNetV2");
        write(folder.path(), SINGLE, "a", 1.);
        let model = ModelFolder::open(folder.path()).unwrap();
        assert_eq!(model.architecture().unwrap(), "TransNetV2");
        assert!(model.expect("TransNetV2").is_ok());
        assert!(
            model
                .expect("LlamaForCausalLM")
                .unwrap_err()
                .message()
                .contains("is a TransNetV2")
        );
    }

    #[test]
    fn shards_are_read_as_the_index_names_them() {
        let folder = folder_with("X");
        write(folder.path(), "one.safetensors", "a", 1.);
        write(folder.path(), "two.safetensors", "b", 2.);
        std::fs::write(
            folder.path().join("model.safetensors.index.json"),
            r#"{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}"#,
        )
        .unwrap();
        let weights = ModelFolder::open(folder.path())
            .unwrap()
            .weights(Device::Cpu, Precision::F32)
            .unwrap();
        let (a, b) = (
            weights.take("a", &[2]).unwrap(),
            weights.take("b", &[2]).unwrap(),
        );
        assert_eq!((a.double_value(&[0]), b.double_value(&[1])), (1., 2.));
        weights.finish().unwrap();
    }

    #[test]
    fn an_index_cannot_lead_out_of_the_folder() {
        let folder = folder_with("X");
        std::fs::write(
            folder.path().join("model.safetensors.index.json"),
            r#"{"weight_map": {"a": "../one.safetensors"}}"#,
        )
        .unwrap();
        assert_eq!(
            ModelFolder::open(folder.path()).unwrap_err().kind(),
            Kind::Model
        );
    }

    #[test]
    fn digest_follows_the_files() {
        let folder = folder_with("X");
        write(folder.path(), SINGLE, "a", 1.);
        let model = ModelFolder::open(folder.path()).unwrap();
        let first = model.digest().unwrap();
        assert_eq!(first.len(), 64);
        assert!(Arc::ptr_eq(&first, &model.digest().unwrap()));
        assert_eq!(
            first,
            ModelFolder::open(folder.path()).unwrap().digest().unwrap()
        );
        write(folder.path(), SINGLE, "abc", 2.);
        let second = model.digest().unwrap();
        assert_ne!(first, second);
        std::fs::write(folder.path().join(PREPROCESSOR), "{}").unwrap();
        assert_ne!(
            second,
            ModelFolder::open(folder.path()).unwrap().digest().unwrap()
        );
    }

    #[test]
    fn a_modules_digest_follows_the_module() {
        let folder = folder_with("TorchScript");
        write(folder.path(), SINGLE, "a", 1.);
        assert_eq!(
            ModelFolder::open(folder.path()).unwrap_err().kind(),
            Kind::Config,
            "its weights are in the module"
        );
        std::fs::write(folder.path().join(MODULE), "one").unwrap();
        let first = ModelFolder::open(folder.path()).unwrap().digest().unwrap();
        std::fs::write(folder.path().join(MODULE), "two").unwrap();
        assert_ne!(
            first,
            ModelFolder::open(folder.path()).unwrap().digest().unwrap()
        );
    }

    fn pipeline_folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let index = r#"{"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"], "image_encoder": [null, null],
            "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}"#;
        std::fs::write(folder.path().join(PARTS), index).unwrap();
        for part in ["unet", "tokenizer"] {
            std::fs::create_dir(folder.path().join(part)).unwrap();
        }
        std::fs::write(
            folder.path().join("unet").join(CONFIG),
            r#"{"_class_name": "UNet2DConditionModel"}"#,
        )
        .unwrap();
        write(
            &folder.path().join("unet"),
            "diffusion_pytorch_model.fp16.safetensors",
            "a",
            1.,
        );
        std::fs::write(folder.path().join("tokenizer/merges.txt"), "a b").unwrap();
        folder
    }

    #[test]
    fn a_pipeline_is_a_folder_of_parts() {
        let folder = pipeline_folder();
        let model = ModelFolder::open(folder.path()).unwrap();
        assert_eq!(model.architecture().unwrap(), "StableDiffusionPipeline");
        let unet = model.part("unet").unwrap();
        assert!(unet.expect("UNet2DConditionModel").is_ok());
        assert_eq!(
            unet.weights(Device::Cpu, Precision::F32)
                .unwrap()
                .take("a", &[2])
                .unwrap()
                .double_value(&[0]),
            1.
        );
        assert!(model.file("tokenizer/merges.txt").is_some());
        assert_eq!(model.part("vae").unwrap_err().kind(), Kind::Config);
    }

    #[test]
    fn a_pipelines_digest_follows_every_part_that_is_read() {
        let folder = pipeline_folder();
        let digest = || ModelFolder::open(folder.path()).unwrap().digest().unwrap();
        let mut seen = vec![digest()];
        std::fs::write(folder.path().join("tokenizer/merges.txt"), "b c").unwrap();
        seen.push(digest());
        write(
            &folder.path().join("unet"),
            "diffusion_pytorch_model.fp16.safetensors",
            "a",
            2.,
        );
        seen.push(digest());
        // The whole weights go before the copy in half precision.
        write(
            &folder.path().join("unet"),
            "diffusion_pytorch_model.safetensors",
            "a",
            2.5,
        );
        seen.push(digest());
        std::fs::create_dir(folder.path().join("safety_checker")).unwrap();
        write(&folder.path().join("safety_checker"), SINGLE, "a", 3.);
        assert_eq!(seen[3], digest(), "what is not read does not count");
        assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 4, "{seen:?}");
    }

    #[test]
    fn a_pipeline_without_one_of_its_parts_is_refused() {
        let folder = pipeline_folder();
        std::fs::remove_dir_all(folder.path().join("tokenizer")).unwrap();
        let error = ModelFolder::open(folder.path()).unwrap_err();
        assert!(
            error.kind() == Kind::Config && error.message().contains("tokenizer"),
            "{error}"
        );
        std::fs::write(
            folder.path().join(PARTS),
            r#"{"../x": ["diffusers", "UNet2DConditionModel"]}"#,
        )
        .unwrap();
        assert_eq!(
            ModelFolder::open(folder.path()).unwrap_err().kind(),
            Kind::Model
        );
    }
}
