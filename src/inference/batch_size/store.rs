//! MeasuredBatch batch sizes on disk, so that a machine measures a model once: a small JSON file
//! for each model, device, number format, kind of item and memory limit, which people can read.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::measure::MeasuredBatch;
use crate::error::{Error, Result};
use crate::tensor::{self, Device};

/// Where the measured size of a model's batches is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchSizeStore {
    /// The folder.
    pub folder: PathBuf,
    /// The model's name there, for people.
    pub model: String,
    /// Digest of its weights.
    pub weights: String,
    /// `f32`, `bf16`, `f16`.
    pub precision: String,
    /// How its network uses memory, in words.
    pub options: String,
}

/// A [`BatchSizeStore`] on a device, for items of a shape, under a limit.
pub(in crate::inference) struct Entry {
    path: PathBuf,
    key: serde_json::Value,
}

impl BatchSizeStore {
    /// The entry for items of `shape` in batches of at most `most`.
    pub(in crate::inference) fn entry(
        &self,
        device: Device,
        shape: &str,
        memory_limit: Option<u64>,
        most: usize,
    ) -> Entry {
        let key = json!({
            "model": self.model,
            "weights": self.weights,
            "device": describe(device),
            "precision": self.precision,
            "options": self.options,
            "item": shape,
            "memory_limit": memory_limit,
            "most": most,
        });
        let digest = blake3::hash(key.to_string().as_bytes()).to_hex();
        let name: String = self
            .model
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') {
                    c
                } else {
                    '-'
                }
            })
            .collect();
        Entry {
            path: self.folder.join(format!("{name}-{}.json", &digest[..16])),
            key,
        }
    }
}

impl Entry {
    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The size that was measured before; none where there is no file, or it is about something
    /// else.
    pub fn read(&self) -> Option<usize> {
        let text = std::fs::read_to_string(&self.path).ok()?;
        let found: serde_json::Value = serde_json::from_str(&text).ok()?;
        if found.get("of") != Some(&self.key) {
            return None;
        }
        found
            .get("max_size")?
            .as_u64()
            .and_then(|size| usize::try_from(size).ok())
            .filter(|size| *size > 0)
    }

    /// Keeps what was measured, all of it or nothing.
    ///
    /// # Errors
    /// External, where the folder cannot be written.
    pub fn write(&self, measured: &MeasuredBatch) -> Result<()> {
        let failed =
            |error| Error::external(format!("cannot keep {}", self.path.display())).because(error);
        let curve: Vec<_> = measured
            .curve
            .iter()
            .map(|(size, rate)| json!({ "items": size, "per_second": rate }))
            .collect();
        let whole = json!({ "max_size": measured.max_size, "end": measured.end.as_str(), "curve": curve, "of": self.key });
        let text = serde_json::to_string_pretty(&whole)
            .map_err(|error| Error::bug("a measured size does not print").because(error))?;
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        let half = self
            .path
            .with_extension(format!("json.{}", std::process::id()));
        std::fs::write(&half, text + "\n")
            .and_then(|()| std::fs::rename(&half, &self.path))
            .map_err(failed)
    }
}

/// What makes two devices equal for batches: the processor and the threads that compute on it, or
/// the GPU's generation and memory.
fn describe(device: Device) -> String {
    match device {
        Device::Cuda(index) => {
            let (major, minor) = tensor::compute_capability(index).unwrap_or_default();
            format!(
                "GPU of compute capability {major}.{minor}, {} MiB",
                tensor::gpu_total(index) >> 20
            )
        }
        _ => {
            let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
            let model = cpus
                .lines()
                .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
                .map_or("CPU", |(_, name)| name.trim());
            format!("{model}, {} threads", tensor::thread_count())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::measure::StopReason;
    use super::*;

    fn store(folder: &Path, precision: &str) -> BatchSizeStore {
        let (model, weights) = ("a/b".to_owned(), "12ab".to_owned());
        BatchSizeStore {
            folder: folder.join("cache"),
            model,
            weights,
            precision: precision.to_owned(),
            options: String::new(),
        }
    }

    #[test]
    fn a_size_is_found_again_under_the_same_circumstances_only() {
        let folder = tempfile::tempdir().unwrap();
        let entry = |precision, shape, limit, most| {
            store(folder.path(), precision).entry(Device::Cpu, shape, limit, most)
        };
        let first = entry("f32", "64x64", None, 32);
        assert_eq!(first.read(), None);
        first
            .write(&MeasuredBatch {
                max_size: 4,
                end: StopReason::Knee,
                curve: vec![(1, 10.), (2, 20.), (4, 30.), (8, 30.5)],
            })
            .unwrap();
        assert_eq!(entry("f32", "64x64", None, 32).read(), Some(4));
        for other in [
            entry("bf16", "64x64", None, 32),
            entry("f32", "32x32", None, 32),
            entry("f32", "64x64", Some(5), 32),
            entry("f32", "64x64", None, 8),
        ] {
            assert_eq!(other.read(), None);
        }
        assert!(
            first.path().starts_with(folder.path().join("cache")),
            "a model's name leads nowhere else: {:?}",
            first.path()
        );
        std::fs::write(first.path(), "{").unwrap();
        assert_eq!(first.read(), None);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cache"), "a file").unwrap();
        let entry = store(folder.path(), "f32").entry(Device::Cpu, "", None, 1);
        assert!(
            entry
                .write(&MeasuredBatch {
                    max_size: 1,
                    end: StopReason::Most,
                    curve: vec![]
                })
                .is_err()
        );
    }
}
