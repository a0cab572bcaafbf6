//! Where fetched files are put: the hub's cache, whose layout Python's tools share, or a plain
//! folder with the notes that huggingface_hub keeps beside such downloads.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::selection::RepoFile;
use crate::error::{Error, Result};
use crate::models::hub::{HubCache, HubId, note, write_note};

/// Pause between two tries for a lock that another process holds.
const LOCK_PAUSE: Duration = Duration::from_millis(200);

/// Where a pull puts its files.
pub(super) enum Destination<'a> {
    Cache {
        cache: &'a HubCache,
        id: &'a HubId,
        commit: &'a str,
    },
    Folder {
        folder: &'a Path,
        commit: &'a str,
    },
}

/// The places of one file.
pub(super) struct DownloadPaths {
    /// Where it lies when it is whole.
    pub whole: PathBuf,
    /// Where it grows.
    pub partial: PathBuf,
    /// Whose lock is held meanwhile.
    pub lock: PathBuf,
}

impl Destination<'_> {
    pub fn paths(&self, file: &RepoFile) -> DownloadPaths {
        match self {
            Self::Cache { cache, id, .. } => {
                let whole = cache.blob(id, &file.hash);
                DownloadPaths {
                    partial: whole.with_extension("incomplete"),
                    lock: cache.lock(id, &file.hash),
                    whole,
                }
            }
            Self::Folder { folder, .. } => {
                let partial = note(
                    folder,
                    &file.path,
                    &format!("{}.incomplete", file.hash.as_str()),
                );
                DownloadPaths {
                    whole: folder.join(&file.path),
                    partial,
                    lock: note(folder, &file.path, "lock"),
                }
            }
        }
    }

    /// Whether the whole file is there. The cache is trusted by its names, as everybody does; in a
    /// folder anything may have been put.
    pub fn has(&self, file: &RepoFile) -> bool {
        let whole = self.paths(file).whole;
        let sized =
            fs::metadata(&whole).is_ok_and(|data| data.is_file() && data.len() == file.size);
        sized
            && (matches!(self, Self::Cache { .. })
                || file
                    .hash
                    .of_file(&whole)
                    .is_ok_and(|hash| hash == file.hash))
    }

    /// Puts whole files where they are looked for; gives the model's folder.
    pub fn publish(&self, files: &[RepoFile]) -> Result<PathBuf> {
        match self {
            Self::Cache { cache, id, commit } => {
                let unwritable = |error| self.unwritable(&cache.snapshot_at(id, commit), error);
                for file in files {
                    cache
                        .link(id, commit, (&file.path, &file.hash))
                        .map_err(unwritable)?;
                }
                cache.refer(id, commit).map_err(unwritable)?;
                Ok(cache.snapshot_at(id, commit))
            }
            Self::Folder { folder, commit } => {
                for file in files {
                    write_note(folder, &file.path, (commit, &file.hash))
                        .map_err(|error| self.unwritable(folder, error))?;
                }
                Ok(folder.to_path_buf())
            }
        }
    }

    pub fn unwritable(&self, path: &Path, error: io::Error) -> Error {
        Error::unwritable(
            path,
            error,
            if matches!(self, Self::Cache { .. }) {
                "`HF_HOME`"
            } else {
                "`--to`"
            },
        )
    }
}

/// Makes the folder that a file is to lie in.
pub(super) fn create_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// Takes the lock of a file, by `flock` as Python's filelock does, waiting for whoever has it. It
/// is held as long as the file is open.
pub(super) async fn lock_file(path: &Path, waiting: impl FnOnce()) -> io::Result<File> {
    let mut waiting = Some(waiting);
    loop {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        match file.try_lock() {
            // Who held it may have deleted the file: then the lock is of a file that nobody else
            // will find.
            Ok(())
                if fs::metadata(path).is_ok_and(|there| {
                    file.metadata().is_ok_and(|own| own.ino() == there.ino())
                }) =>
            {
                return Ok(file);
            }
            Ok(()) => continue,
            // There are file systems without locks. They save a second transfer, no more: what is
            // written is checked by its hash.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                return Ok(file);
            }
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) => {}
        }
        if let Some(waiting) = waiting.take() {
            waiting();
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}
