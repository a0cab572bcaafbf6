//! The weights of a model, taken key by key by the network that they are for. Each is read when it
//! is taken, so that loading needs no more memory than the network; what is missing, left over or
//! of another shape is named in one error, all of it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use tch::{Device, Kind, Tensor};

use super::attention::AttentionKind;
use crate::error::{Error, Result};
use crate::tensor::Precision;

/// Headers are JSON of some 100 bytes a tensor; the format itself sets this limit.
const MAX_HEADER: u64 = 100 << 20;

/// How many keys of a kind an error lists before it only counts them.
const LISTED: usize = 20;

/// Weights on their way from disk into a network. A key may be taken more than once (tied weights).
#[derive(Debug)]
pub struct Weights {
    files: Vec<Shard>,
    tensors: BTreeMap<String, (usize, TensorInfo)>,
    device: Device,
    precision: Precision,
    attention: AttentionKind,
    progress: RefCell<Progress>,
}

/// An opened safetensors file.
#[derive(Debug)]
pub(super) struct Shard {
    path: PathBuf,
    file: File,
    data_start: u64,
}

#[derive(Debug, Default)]
struct Progress {
    taken: BTreeSet<String>,
    missing: BTreeSet<String>,
    misshapen: BTreeSet<String>,
    surplus_allowed: Vec<String>,
}

impl Weights {
    /// Reads the headers of the files.
    ///
    /// # Errors
    /// External, where a file cannot be read; model, where one is not safetensors, is cut short, or
    /// repeats another's key.
    pub fn open(files: &[PathBuf], device: Device, precision: Precision) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        let mut shards = Vec::new();
        for path in files {
            let (shard, metadata) = header(path)?;
            for (key, info) in metadata.tensors() {
                if let Some((other, _)) = tensors.insert(key.clone(), (shards.len(), info.clone()))
                {
                    let shard: &Shard = &shards[other];
                    return Err(Error::model(format!(
                        "`{key}` is in {} and in {}",
                        shard.path.display(),
                        path.display()
                    )));
                }
            }
            shards.push(shard);
        }
        let progress = RefCell::new(Progress {
            surplus_allowed: vec!["num_batches_tracked".into()],
            ..Progress::default()
        });
        Ok(Self {
            files: shards,
            tensors,
            device,
            precision,
            attention: AttentionKind::default(),
            progress,
        })
    }

    /// Where tensors are put.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The number format they are given.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// How the attentions made of them are computed.
    pub fn attention(&self) -> AttentionKind {
        self.attention
    }

    /// The same weights for networks whose attentions are computed in this way.
    #[must_use]
    pub fn with_attention(self, attention: AttentionKind) -> Self {
        Self { attention, ..self }
    }

    /// Whether the checkpoint has the key.
    pub fn has(&self, key: &str) -> bool {
        self.tensors.contains_key(key)
    }

    /// The start of the tree of keys: `weights.root() / "layer1.0" / "conv1"`.
    pub fn root(&self) -> Scope<'_> {
        Scope {
            weights: self,
            prefix: String::new(),
        }
    }

    /// A tensor in the model's precision on its device. One that is missing or has another shape is
    /// noted, and zeros stand in for it until [`finish`](Self::finish) refuses the lot.
    ///
    /// # Errors
    /// External, where the file cannot be read; model, where its number format is unknown.
    pub fn take(&self, key: &str, shape: &[i64]) -> Result<Tensor> {
        self.place(&self.take_f32(key, shape)?)
    }

    /// As [`take`](Self::take), in f32 on the CPU: for weights that are computed with before they
    /// are placed.
    ///
    /// # Errors
    /// As for [`take`](Self::take).
    pub fn take_f32(&self, key: &str, shape: &[i64]) -> Result<Tensor> {
        let mut progress = self.progress.borrow_mut();
        let Some((shard, info)) = self.tensors.get(key) else {
            progress.missing.insert(format!("{key} {shape:?}"));
            return Ok(Tensor::f_zeros(shape, (Kind::Float, Device::Cpu))?);
        };
        progress.taken.insert(key.to_owned());
        let found: Vec<i64> = info.shape.iter().map(|&size| size as i64).collect();
        if found != shape {
            progress
                .misshapen
                .insert(format!("{key} is {found:?}, not {shape:?}"));
            return Ok(Tensor::f_zeros(shape, (Kind::Float, Device::Cpu))?);
        }
        self.files[*shard].read(key, info, &found).map(as_wanted)
    }

    /// Puts a tensor computed from weights where [`take`](Self::take) puts them.
    ///
    /// # Errors
    /// Overload, where memory is short.
    pub fn place(&self, tensor: &Tensor) -> Result<Tensor> {
        Ok(as_wanted(
            tensor
                .f_to_kind(self.precision.kind())?
                .f_to_device(self.device)?,
        ))
    }

    /// Lets keys that end with `suffix` be left over. `num_batches_tracked` always may be.
    pub fn allow_surplus(&self, suffix: &str) {
        self.progress
            .borrow_mut()
            .surplus_allowed
            .push(suffix.to_owned());
    }

    /// Ends the taking. A network is whole only when this has passed.
    ///
    /// # Errors
    /// Model, listing every key that was missing, had another shape, or was not taken.
    pub fn finish(self) -> Result<()> {
        let Progress {
            taken,
            missing,
            misshapen,
            surplus_allowed,
        } = self.progress.into_inner();
        let surplus: Vec<&String> = self
            .tensors
            .keys()
            .filter(|key| {
                !taken.contains(*key)
                    && !surplus_allowed
                        .iter()
                        .any(|suffix| key.ends_with(suffix.as_str()))
            })
            .collect();
        let mut faults = Vec::new();
        list(&mut faults, "missing", &missing.iter().collect::<Vec<_>>());
        list(
            &mut faults,
            "misshapen",
            &misshapen.iter().collect::<Vec<_>>(),
        );
        list(&mut faults, "surplus", &surplus);
        if faults.is_empty() {
            return Ok(());
        }
        let files: Vec<String> = self
            .files
            .iter()
            .map(|shard| shard.path.display().to_string())
            .collect();
        Err(Error::model(format!(
            "weights in {} do not fit the network: {}",
            files.join(", "),
            faults.join("; ")
        ))
        .hint("config.json and the weights must be of the same model"))
    }
}

#[cfg(test)]
thread_local! {
    /// Whether weights taken on this thread ask for gradients: then every number of a network
    /// would, were a graph built of it.
    pub(super) static ASK_FOR_GRADIENTS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// The tensor, which in tests may be made to ask for gradients.
fn as_wanted(tensor: Tensor) -> Tensor {
    #[cfg(test)]
    if ASK_FOR_GRADIENTS.get() {
        return tensor.set_requires_grad(true);
    }
    tensor
}

fn list(faults: &mut Vec<String>, what: &str, keys: &[&String]) {
    if keys.is_empty() {
        return;
    }
    let shown: Vec<&str> = keys.iter().take(LISTED).map(|key| key.as_str()).collect();
    let more = keys.len().saturating_sub(LISTED);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    faults.push(format!("{what} {}: {}{more}", keys.len(), shown.join(", ")));
}

/// Opens a safetensors file and reads its header, which must tell its whole length.
pub(super) fn header(path: &Path) -> Result<(Shard, Metadata)> {
    let unreadable =
        |error| Error::external(format!("cannot read {}", path.display())).because(error);
    let broken = |what: &str| {
        Error::model(format!(
            "{} is not a whole safetensors file: {what}",
            path.display()
        ))
    };
    let file = File::open(path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    let mut size = [0; 8];
    if length < size.len() as u64 {
        return Err(broken("it has no header"));
    }
    file.read_exact_at(&mut size, 0).map_err(unreadable)?;
    let size = u64::from_le_bytes(size);
    if size > MAX_HEADER.min(length - 8) {
        return Err(broken(
            "its header would be longer than the file or than 100 MB",
        ));
    }
    let mut text = vec![0; size as usize];
    file.read_exact_at(&mut text, 8).map_err(unreadable)?;
    let metadata: Metadata = serde_json::from_slice(&text)
        .map_err(|error| broken("its header cannot be read").because(error))?;
    let data_start = 8 + size;
    if data_start + metadata.data_len() as u64 != length {
        return Err(broken("its length is not what its header says")
            .hint("it may have been cut short while it was copied"));
    }
    Ok((
        Shard {
            path: path.to_path_buf(),
            file,
            data_start,
        },
        metadata,
    ))
}

fn kind_of(dtype: Dtype) -> Option<Kind> {
    match dtype {
        Dtype::F32 => Some(Kind::Float),
        Dtype::BF16 => Some(Kind::BFloat16),
        Dtype::F16 => Some(Kind::Half),
        Dtype::F64 => Some(Kind::Double),
        Dtype::I64 => Some(Kind::Int64),
        Dtype::I32 => Some(Kind::Int),
        Dtype::U8 => Some(Kind::Uint8),
        _ => None,
    }
}

impl Shard {
    fn read(&self, key: &str, info: &TensorInfo, shape: &[i64]) -> Result<Tensor> {
        let kind = kind_of(info.dtype).ok_or_else(|| {
            Error::model(format!(
                "`{key}` in {} is {:?}, a number format that is not read here",
                self.path.display(),
                info.dtype
            ))
        })?;
        let (start, end) = info.data_offsets;
        let mut data = vec![0; end - start];
        self.file
            .read_exact_at(&mut data, self.data_start + start as u64)
            .map_err(|error| {
                Error::external(format!("cannot read `{key}` from {}", self.path.display()))
                    .because(error)
            })?;
        Ok(Tensor::f_from_data_size(&data, shape, kind)?.f_to_kind(Kind::Float)?)
    }
}

/// A place in the tree of keys. `scope / "conv1"` goes down; the path mirrors the checkpoint's key.
#[derive(Debug, Clone)]
pub struct Scope<'a> {
    weights: &'a Weights,
    prefix: String,
}

impl<'a> Scope<'a> {
    /// [`Weights::take`] of `name` under this place.
    ///
    /// # Errors
    /// As there.
    pub fn take(&self, name: &str, shape: &[i64]) -> Result<Tensor> {
        self.weights.take(&self.key(name), shape)
    }

    /// [`Weights::take_f32`] of `name` under this place.
    ///
    /// # Errors
    /// As there.
    pub fn take_f32(&self, name: &str, shape: &[i64]) -> Result<Tensor> {
        self.weights.take_f32(&self.key(name), shape)
    }

    /// Whether the checkpoint has `name` under this place.
    pub fn has(&self, name: &str) -> bool {
        self.weights.has(&self.key(name))
    }

    /// The weights it is a place of.
    pub fn weights(&self) -> &'a Weights {
        self.weights
    }

    fn key(&self, name: &str) -> String {
        if self.prefix.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.prefix)
        }
    }
}

impl<'a, T: fmt::Display> std::ops::Div<T> for &Scope<'a> {
    type Output = Scope<'a>;

    fn div(self, name: T) -> Scope<'a> {
        Scope {
            weights: self.weights,
            prefix: self.key(&name.to_string()),
        }
    }
}

impl<'a, T: fmt::Display> std::ops::Div<T> for Scope<'a> {
    type Output = Scope<'a>;

    fn div(self, name: T) -> Scope<'a> {
        &self / name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind as Who;

    fn file(tensors: &[(&str, Tensor)]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        Tensor::write_safetensors(tensors, &path).unwrap();
        (folder, path)
    }

    fn open(path: &Path, precision: Precision) -> Result<Weights> {
        Weights::open(&[path.to_path_buf()], Device::Cpu, precision)
    }

    #[test]
    fn every_fault_is_listed_at_once() {
        let ones = |shape: &[i64]| Tensor::ones(shape, (Kind::Float, Device::Cpu));
        let (_folder, path) = file(&[
            ("a.weight", ones(&[2, 3])),
            ("b.weight", ones(&[4])),
            ("c.bias", ones(&[1])),
            ("bn.num_batches_tracked", ones(&[1])),
        ]);
        let weights = open(&path, Precision::F32).unwrap();
        assert_eq!(weights.take("a.weight", &[3, 2]).unwrap().size(), [3, 2]);
        drop(weights.take("b.weight", &[4]).unwrap());
        drop(weights.take("d.weight", &[5]).unwrap());
        let error = weights.finish().unwrap_err();
        assert_eq!(error.kind(), Who::Model);
        let text = error.message();
        assert!(text.contains("missing 1: d.weight [5]"), "{text}");
        assert!(
            text.contains("misshapen 1: a.weight is [2, 3], not [3, 2]"),
            "{text}"
        );
        assert!(
            text.contains("surplus 1: c.bias") && !text.contains("num_batches_tracked"),
            "{text}"
        );
    }

    #[test]
    fn scopes_mirror_the_keys() {
        let (_folder, path) = file(&[("layer1.0.conv1.weight", Tensor::from_slice(&[1f32, 2.]))]);
        let weights = open(&path, Precision::F32).unwrap();
        let scope = weights.root() / "layer1" / 0 / "conv1";
        assert!(scope.has("weight") && !scope.has("bias"));
        assert_eq!(scope.take("weight", &[2]).unwrap().double_value(&[1]), 2.);
        weights.finish().unwrap();
    }

    #[test]
    fn weights_take_the_models_precision() {
        let (_folder, path) = file(&[("a", Tensor::from_slice(&[1f32, 2.]).to_kind(Kind::Half))]);
        let weights = open(&path, Precision::BF16).unwrap();
        assert_eq!(weights.take("a", &[2]).unwrap().kind(), Kind::BFloat16);
        assert_eq!(weights.take_f32("a", &[2]).unwrap().kind(), Kind::Float);
    }

    #[test]
    fn surplus_may_be_allowed() {
        let (_folder, path) = file(&[("a.position_ids", Tensor::from_slice(&[1f32]))]);
        let weights = open(&path, Precision::F32).unwrap();
        weights.allow_surplus("position_ids");
        weights.finish().unwrap();
    }

    #[test]
    fn broken_files_are_refused() {
        let (_folder, path) = file(&[("a", Tensor::from_slice(&[1f32, 2.]))]);
        let whole = std::fs::read(&path).unwrap();
        for broken in [
            &whole[..4],
            &whole[..20],
            &whole[..whole.len() - 1],
            &[0xff; 64][..],
            b"PK\x03\x04 a pickled checkpoint",
        ] {
            std::fs::write(&path, broken).unwrap();
            assert_eq!(open(&path, Precision::F32).unwrap_err().kind(), Who::Model);
        }
        let missing = open(Path::new("/nowhere/model.safetensors"), Precision::F32);
        assert_eq!(missing.unwrap_err().kind(), Who::External);
    }

    #[test]
    fn a_key_in_two_shards_is_refused() {
        let (_a, one) = file(&[("a", Tensor::from_slice(&[1f32]))]);
        let (_b, two) = file(&[("a", Tensor::from_slice(&[2f32]))]);
        let error = Weights::open(&[one, two], Device::Cpu, Precision::F32).unwrap_err();
        assert!(error.message().contains("`a` is in "), "{error}");
    }
}
