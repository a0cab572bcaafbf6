//! Which files of a repository are fetched: those that its network is read from, in formats that
//! hold no code. And why the others are not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::error::{Error, Result};
use crate::models::files::WeightSet;
use crate::models::hub::{FileHash, HubId};

const CONFIG: &str = "config.json";
const INDEX: &str = "model_index.json";

/// The subfolders of a pipeline in Diffusers' layout that are read.
const PARTS: [&str; 7] = [
    "scheduler",
    "text_encoder",
    "text_encoder_2",
    "tokenizer",
    "tokenizer_2",
    "unet",
    "vae",
];

/// A file as the hub lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RepoFile {
    /// Its path in the repository.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// What its content must hash to.
    pub hash: FileHash,
}

impl RepoFile {
    fn split(&self) -> (&str, &str) {
        self.path.rsplit_once('/').unwrap_or(("", &self.path))
    }
}

/// SkipReason a file is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SkipReason {
    /// It may hold weights, but in a format that is never read: pickled, or of another framework.
    Format,
    /// It holds weights that the network is not read from: a variant, or a checkpoint beside a
    /// pipeline.
    OtherWeights,
    /// It holds weights in a folder that is not read.
    OtherFolder,
    /// Its name has characters that no file of a model needs.
    OddName,
    /// It is neither weights nor settings: a text, a picture.
    NotNeeded,
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Format => "in a format that is not read",
            Self::OtherWeights => "weights that the network is not read from",
            Self::OtherFolder => "in a folder that is not read",
            Self::OddName => "with an odd name",
            Self::NotNeeded => "not needed",
        })
    }
}

/// What is fetched and what is not.
#[derive(Debug, Default)]
pub(super) struct Selection {
    pub files: Vec<RepoFile>,
    pub left: Vec<(SkipReason, Vec<String>)>,
}

/// Chooses among the files of a repository, with the weights of `variant` where there are such.
pub(super) fn select(
    listing: Vec<RepoFile>,
    id: &HubId,
    variant: Option<&str>,
) -> Result<Selection> {
    let sets = weight_sets(&listing, id, variant)?;
    let pipeline = listing.iter().any(|file| file.path == INDEX);
    let mut selection = Selection::default();
    let mut left: BTreeMap<SkipReason, Vec<String>> = BTreeMap::new();
    for file in listing {
        match why_not(&file, pipeline, &sets) {
            None => selection.files.push(file),
            Some(why) => left.entry(why).or_default().push(file.path),
        }
    }
    selection.left = left.into_iter().collect();
    Ok(selection)
}

/// The weights of each folder that is read.
fn weight_sets(
    listing: &[RepoFile],
    id: &HubId,
    variant: Option<&str>,
) -> Result<BTreeMap<String, WeightSet>> {
    let has = |path: &str| listing.iter().any(|file| file.path == path);
    let (pipeline, network) = (has(INDEX), has(CONFIG));
    if !pipeline && !network {
        return Err(Error::config(format!(
            "{id} has neither a {CONFIG} nor a {INDEX}, so nothing here can read it"
        ))
        .hint(
            "name the repository of the model itself, in the layout of transformers or of \
             Diffusers",
        ));
    }
    let parts: &[&str] = if pipeline { &PARTS } else { &[""] };
    let (mut sets, mut variants) = (BTreeMap::new(), BTreeSet::new());
    for part in parts {
        let names: Vec<&str> = listing
            .iter()
            .map(RepoFile::split)
            .filter(|(folder, _)| folder == part)
            .map(|(_, name)| name)
            .collect();
        let set = WeightSet::among(names.iter().copied(), variant);
        if set.is_none() && names.contains(&CONFIG) {
            return Err(without_weights(id, part, &names));
        }
        variants.extend(WeightSet::variants(names));
        sets.insert((*part).to_owned(), set.unwrap_or_default());
    }
    match variant.filter(|variant| !variants.contains(*variant)) {
        None => Ok(sets),
        Some(variant) => {
            let there: Vec<String> = variants.into_iter().collect();
            let hint = if there.is_empty() {
                "it has no variants".to_owned()
            } else {
                format!("it has {}", there.join(", "))
            };
            Err(Error::config(format!("{id} has no variant `{variant}`")).hint(hint))
        }
    }
}

fn without_weights(id: &HubId, part: &str, names: &[&str]) -> Error {
    let of = if part.is_empty() {
        String::new()
    } else {
        format!(" for its {part}")
    };
    let error = Error::config(format!("{id} has no safetensors weights{of}"));
    match names.iter().find(|name| matches!(kind(name), Kind::Unread)) {
        Some(name) => error.hint(format!(
            "{name} is of a format that is never read; look among the model's pull requests for a \
             conversion and name it: {}@refs/pr/N",
            id.repository()
        )),
        None => error,
    }
}

enum Kind {
    Weights,
    Settings,
    /// Weights of another format.
    Unread,
    Other,
}

fn kind(name: &str) -> Kind {
    const UNREAD: [&str; 13] = [
        "bin",
        "pt",
        "pth",
        "ckpt",
        "h5",
        "msgpack",
        "onnx",
        "onnx_data",
        "gguf",
        "ot",
        "tflite",
        "pkl",
        "mlmodel",
    ];
    let (bare, index) = match name.rsplit_once(".index") {
        Some((bare, rest)) if rest.ends_with(".json") => (bare, true),
        _ => (name, false),
    };
    match bare.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "safetensors" => Kind::Weights,
        extension if UNREAD.contains(&extension) => Kind::Unread,
        "json" | "jinja" | "model" => Kind::Settings,
        // What is an index of neither is an index of something else.
        _ if index => Kind::Other,
        "txt" if matches!(name, "merges.txt" | "vocab.txt") => Kind::Settings,
        _ => Kind::Other,
    }
}

fn why_not(
    file: &RepoFile,
    pipeline: bool,
    sets: &BTreeMap<String, WeightSet>,
) -> Option<SkipReason> {
    let (folder, name) = file.split();
    let why = match (kind(name), sets.get(folder)) {
        (Kind::Unread, _) => Some(SkipReason::Format),
        (Kind::Other, _) => Some(SkipReason::NotNeeded),
        (Kind::Weights, Some(set)) => (!set.has(name)).then_some(SkipReason::OtherWeights),
        (Kind::Weights, None) => Some(if folder.is_empty() {
            SkipReason::OtherWeights
        } else {
            SkipReason::OtherFolder
        }),
        (Kind::Settings, Some(_)) => None,
        (Kind::Settings, None) => {
            (!pipeline || name != INDEX || !folder.is_empty()).then_some(SkipReason::NotNeeded)
        }
    };
    why.or_else(|| odd(&file.path).then_some(SkipReason::OddName))
}

/// Whether a path has more in it than the names of a model's files do.
fn odd(path: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'+' | b'=');
    let name = |name: &str| name.len() <= 128 && !name.starts_with('.') && name.bytes().all(plain);
    !path.split('/').all(name)
}

/// Whether a path could leave the folder that it is put into. No honest hub lists one.
pub(super) fn escapes_folder(path: &str) -> bool {
    let step = |step: &str| step.is_empty() || step == "." || step == "..";
    path.len() > 1024
        || path.split('/').any(step)
        || path.contains(['\\', ':'])
        || path.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Left = BTreeMap<SkipReason, Vec<String>>;

    fn chosen(paths: &[&str], variant: Option<&str>) -> Result<(Vec<String>, Left)> {
        let hash = FileHash::parse(&"0".repeat(40)).unwrap();
        let listing = paths
            .iter()
            .map(|path| RepoFile {
                path: (*path).to_owned(),
                size: 1,
                hash: hash.clone(),
            })
            .collect();
        let selection = select(listing, &"owner/name".parse().unwrap(), variant)?;
        Ok((
            selection.files.into_iter().map(|file| file.path).collect(),
            selection.left.into_iter().collect(),
        ))
    }

    /// The files of openai/whisper-tiny and a few more.
    #[test]
    fn a_network_is_its_root() {
        let taken = [
            "added_tokens.json",
            "chat_template.jinja",
            "config.json",
            "generation_config.json",
            "merges.txt",
            "model.safetensors",
            "spiece.model",
            "tokenizer.json",
        ];
        let left = [
            ".gitattributes",
            "README.md",
            "flax_model.msgpack",
            "model.fp32-00001-of-00002.safetensors",
            "model.safetensors.index.fp32.json",
            "onnx/decoder.onnx",
            "onnx/config.json",
            "openvino/model.safetensors",
            "pytorch_model.bin",
            "pytorch_model.bin.index.json",
            "requirements.txt",
            "strange name.json",
            "tf_model.h5",
        ];
        let (files, why) = chosen(&[&taken[..], &left].concat(), None).unwrap();
        assert_eq!(files, taken);
        assert_eq!(
            why[&SkipReason::Format],
            [left[2], left[5], left[8], left[9], left[12]]
        );
        assert_eq!(why[&SkipReason::OtherWeights], left[3..5]);
        assert_eq!(why[&SkipReason::OtherFolder], [left[7]]);
        assert_eq!(why[&SkipReason::OddName], [left[11]]);
        assert_eq!(
            why[&SkipReason::NotNeeded],
            [left[0], left[1], left[6], left[10]]
        );
    }

    /// The files of stabilityai/sd-turbo and a few more.
    #[test]
    fn a_pipeline_is_the_parts_that_are_read() {
        let taken = [
            "model_index.json",
            "scheduler/scheduler_config.json",
            "text_encoder/config.json",
            "text_encoder/model.safetensors",
            "tokenizer/merges.txt",
            "tokenizer/vocab.json",
            "unet/config.json",
            "unet/diffusion_pytorch_model.safetensors",
            "vae/config.json",
            "vae/diffusion_pytorch_model.safetensors",
        ];
        let left = [
            "sd_turbo.safetensors",
            "safety_checker/config.json",
            "safety_checker/model.safetensors",
            "text_encoder/model.fp16.safetensors",
            "unet/diffusion_pytorch_model.bin",
            "unet/diffusion_pytorch_model.fp16.safetensors",
            "vae/diffusion_pytorch_model.fp16.safetensors",
        ];
        let all = [&taken[..], &left].concat();
        let (files, why) = chosen(&all, None).unwrap();
        assert_eq!(files, taken);
        assert_eq!(
            why[&SkipReason::OtherWeights],
            [left[0], left[3], left[5], left[6]]
        );
        assert_eq!(
            (
                &why[&SkipReason::OtherFolder][..],
                &why[&SkipReason::Format][..]
            ),
            (&[left[2].to_owned()][..], &[left[4].to_owned()][..])
        );
        let (files, _) = chosen(&all, Some("fp16")).unwrap();
        assert_eq!(
            files
                .iter()
                .filter(|file| file.ends_with(".fp16.safetensors"))
                .count(),
            3
        );
        assert_eq!(files.len(), taken.len());
        let error = chosen(&all, Some("fp8")).unwrap_err().to_string();
        assert!(
            error.contains("no variant `fp8`") && error.contains("it has fp16"),
            "{error}"
        );
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let error = chosen(&["config.json", "pytorch_model.bin"], None)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("no safetensors weights") && error.contains("owner/name@refs/pr/N"),
            "{error}"
        );
        let error = chosen(
            &["model_index.json", "unet/config.json", "unet/model.onnx"],
            None,
        )
        .unwrap_err()
        .to_string();
        assert!(
            error.contains("for its unet") && error.contains("model.onnx"),
            "{error}"
        );
        let error = chosen(&["README.md", "model.safetensors"], None)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("neither a config.json nor a model_index.json"),
            "{error}"
        );
    }

    #[test]
    fn paths_that_lead_out_are_seen() {
        for path in [
            "../config.json",
            "/etc/passwd",
            "a/../b.json",
            "a//b",
            "a\\b",
            "c:x",
            "a/./b",
            "",
            "a\nb",
            "a/",
            "x\0",
        ] {
            assert!(escapes_folder(path), "{path:?}");
        }
        for path in [
            "config.json",
            "a/b..c.json",
            "pictures/eine übung.png",
            ".gitattributes",
        ] {
            assert!(!escapes_folder(path), "{path:?}");
        }
    }
}
