//! The cache that huggingface_hub keeps of models from a hub,
//! `models--OWNER--NAME/{blobs,refs,snapshots}`, laid out and locked as it does, so that Python's
//! tools and opusflow share what either of them fetched.

mod hash;
mod notes;
mod settings;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::{Error, Result};

pub use self::hash::{FileHash, Hashing};
pub use self::notes::{commit_of, hashes_of, note, write_note};
pub use self::settings::HubSettings;

/// The revision that is meant where none is named.
const MAIN: &str = "main";

/// Folders of the cache that hold models begin with this.
const PREFIX: &str = "models--";

/// A model of a hub at a revision: `owner/name`, or `owner/name@revision` with a branch, a tag or a
/// commit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HubId {
    repository: String,
    revision: String,
}

impl HubId {
    /// `owner/name`, or `name` for the few models without an owner.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The branch, tag or commit; `main` where none was named.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// Whether it names an owner: what does not may as well be a folder of one's own.
    pub fn has_owner(&self) -> bool {
        self.repository.contains('/')
    }
}

impl FromStr for HubId {
    type Err = Error;

    /// Takes what huggingface_hub takes as the id of a repository.
    ///
    /// # Errors
    /// Config, where it is no such id. What passes can stand in a path: it has no `..` and begins
    /// with no `/`.
    fn from_str(text: &str) -> Result<Self> {
        let (repository, revision) = text.split_once('@').unwrap_or((text, MAIN));
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        let edge = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        let part =
            |part: &str| part.starts_with(edge) && part.ends_with(edge) && part.bytes().all(letter);
        let repository_fits = repository.len() <= 96
            && repository.split('/').count() <= 2
            && repository.split('/').all(part)
            && !repository.contains("--")
            && !repository.contains("..")
            && !repository.ends_with(".git");
        if !repository_fits {
            return Err(
                Error::config(format!("`{text}` is not the id of a model on a hub"))
                    .hint("write `owner/name` or `owner/name@revision`"),
            );
        }
        let step = |step: &str| {
            !step.is_empty()
                && !step.starts_with('.')
                && step.bytes().all(|byte| letter(byte) || byte == b'+')
        };
        if revision.len() > 200 || revision.contains("..") || !revision.split('/').all(step) {
            return Err(
                Error::config(format!("`{revision}` in `{text}` is not a revision"))
                    .hint("name a branch, a tag or a commit"),
            );
        }
        Ok(Self {
            repository: repository.to_owned(),
            revision: revision.to_owned(),
        })
    }
}

impl fmt::Display for HubId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        if self.revision == MAIN {
            Ok(())
        } else {
            write!(f, "@{}", self.revision)
        }
    }
}

/// Whether this is the full name of a commit.
pub fn is_commit(text: &str) -> bool {
    text.len() == 40
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The repository that a snapshot of the cache is of, read from its path.
pub fn repository_of(snapshot: &Path) -> Option<String> {
    let commit = snapshot.file_name()?.to_str()?;
    let snapshots = snapshot
        .parent()
        .filter(|folder| folder.file_name().is_some_and(|name| name == "snapshots"))?;
    let model = snapshots
        .parent()?
        .file_name()?
        .to_str()?
        .strip_prefix(PREFIX)?;
    is_commit(commit).then(|| model.replace("--", "/"))
}

/// A cache of what came from hubs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubCache(PathBuf);

/// A model of the cache at one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// `owner/name`.
    pub repository: String,
    /// The commit.
    pub commit: String,
    /// The branches and tags that stood there when they were last asked for.
    pub refs: Vec<String>,
    /// The folder, in Hugging Face layout.
    pub path: PathBuf,
}

impl HubCache {
    /// The cache in a folder, which need not be there yet.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self(folder.into())
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    fn model(&self, id: &HubId) -> PathBuf {
        self.0.join(folder_name(id))
    }

    /// The commit that the cache knows the revision as.
    pub fn commit(&self, id: &HubId) -> Option<String> {
        if is_commit(&id.revision) {
            return Some(id.revision.clone());
        }
        let commit = fs::read_to_string(self.model(id).join("refs").join(&id.revision)).ok()?;
        Some(commit.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    /// Where the files of a commit lie, whether they are there or not.
    pub fn snapshot_at(&self, id: &HubId, commit: &str) -> PathBuf {
        self.model(id).join("snapshots").join(commit)
    }

    /// The folder of the model at its revision, where the cache has it.
    pub fn snapshot(&self, id: &HubId) -> Option<PathBuf> {
        Some(self.snapshot_at(id, &self.commit(id)?)).filter(|folder| folder.is_dir())
    }

    /// Where the content with this hash lies, whether it is there or not.
    pub fn blob(&self, id: &HubId, hash: &FileHash) -> PathBuf {
        self.model(id).join("blobs").join(hash.as_str())
    }

    /// The file whose lock is held while the content with this hash is fetched.
    pub fn lock(&self, id: &HubId, hash: &FileHash) -> PathBuf {
        self.0
            .join(".locks")
            .join(folder_name(id))
            .join(format!("{}.lock", hash.as_str()))
    }

    /// Puts a blob into the snapshot of a commit as `file`, a relative path with `/` that the
    /// caller knows to stay inside; gives the place.
    ///
    /// # Errors
    /// Where the link cannot be written.
    pub fn link(
        &self,
        id: &HubId,
        commit: &str,
        (file, hash): (&str, &FileHash),
    ) -> io::Result<PathBuf> {
        let link = self.snapshot_at(id, commit).join(file);
        let up = "../".repeat(2 + file.matches('/').count());
        let target = PathBuf::from(format!("{up}blobs/{}", hash.as_str()));
        if fs::read_link(&link).is_ok_and(|there| there == target) {
            return Ok(link);
        }
        if let Some(folder) = link.parent() {
            fs::create_dir_all(folder)?;
        }
        replace(&link, |path| std::os::unix::fs::symlink(&target, path))?;
        Ok(link)
    }

    /// Notes that the revision is the commit.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn refer(&self, id: &HubId, commit: &str) -> io::Result<()> {
        if self.commit(id).is_some_and(|known| known == commit) {
            return Ok(());
        }
        let path = self.model(id).join("refs").join(&id.revision);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        replace(&path, |path| fs::write(path, commit))
    }

    /// Every model of the cache at every commit, in order.
    ///
    /// # Errors
    /// Where the cache is there and cannot be read.
    pub fn snapshots(&self) -> io::Result<Vec<Snapshot>> {
        let mut found = Vec::new();
        for (name, model) in folders(&self.0)? {
            let Some(repository) = name
                .strip_prefix(PREFIX)
                .map(|name| name.replace("--", "/"))
            else {
                continue;
            };
            let refs = references(&model.join("refs"));
            for (commit, path) in folders(&model.join("snapshots"))? {
                let here = refs
                    .iter()
                    .filter(|(_, at)| *at == commit)
                    .map(|(name, _)| name.clone())
                    .collect();
                found.push(Snapshot {
                    repository: repository.clone(),
                    commit,
                    refs: here,
                    path,
                });
            }
        }
        Ok(found)
    }
}

fn folder_name(id: &HubId) -> String {
    format!("{PREFIX}{}", id.repository.replace('/', "--"))
}

/// Makes a file under another name and moves it into place, so that nobody ever sees half of it.
fn replace(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    // One that a process of the same id left behind.
    let _ = fs::remove_file(&aside);
    make(&aside)?;
    fs::rename(&aside, path)
}

/// The folders in a folder with their names, in order; none where it is not there.
fn folders(folder: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if let Some(name) = path
            .file_name()
            .and_then(|name| name.to_str())
            .filter(|_| path.is_dir())
        {
            found.push((name.to_owned(), path));
        }
    }
    found.sort();
    Ok(found)
}

/// Branches and tags with their commits. Their names may have slashes, so that they lie in folders.
fn references(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, name) = (
            entry.path(),
            entry.file_name().to_string_lossy().into_owned(),
        );
        if path.is_dir() {
            found.extend(
                references(&path)
                    .into_iter()
                    .map(|(inner, commit)| (format!("{name}/{inner}"), commit)),
            );
        } else if let Ok(commit) = fs::read_to_string(&path)
            && is_commit(commit.trim())
            && !name.starts_with('.')
        {
            found.push((name, commit.trim().to_owned()));
        }
    }
    found.sort();
    found
}
