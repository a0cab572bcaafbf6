//! What a folder's files must hash to: in the cache the name of the blob that each links to, in a
//! plain folder the notes that huggingface_hub keeps there of what it downloaded.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::hash::FileHash;
use super::{is_commit, repository_of};

/// Where a folder keeps notes about what was downloaded into it.
const NOTES: &str = ".cache/huggingface/download";

/// The note with this ending about a file of the folder: `metadata`, `lock`.
pub fn note(folder: &Path, file: &str, ending: &str) -> PathBuf {
    folder.join(NOTES).join(format!("{file}.{ending}"))
}

/// Notes what a file of the folder is, as huggingface_hub does: the commit, the hash and the time.
///
/// # Errors
/// Where it cannot be written.
pub fn write_note(folder: &Path, file: &str, (commit, hash): (&str, &FileHash)) -> io::Result<()> {
    let path = note(folder, file, "metadata");
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64();
    fs::write(path, format!("{commit}\n{}\n{now}\n", hash.as_str()))
}

/// The commit that a snapshot of the cache is, or that a folder was filled from.
pub fn commit_of(folder: &Path) -> Option<String> {
    if repository_of(folder).is_some() {
        return folder.file_name()?.to_str().map(str::to_owned);
    }
    let text = ["config.json", "model_index.json"]
        .into_iter()
        .find_map(|file| fs::read_to_string(note(folder, file, "metadata")).ok())?;
    text.lines()
        .next()
        .filter(|commit| is_commit(commit))
        .map(str::to_owned)
}

/// Every file of a snapshot of the cache, or of a folder with notes, of which a hash is known, with
/// the hash. Whether a file is there, and is what it should be, is not looked at.
///
/// # Errors
/// Where a folder cannot be read.
pub fn hashes_of(folder: &Path) -> io::Result<Vec<(PathBuf, FileHash)>> {
    let mut found = Vec::new();
    if repository_of(folder).is_some() {
        for path in files(folder)? {
            // The first step: a blob may itself be a link into a store that several caches share.
            let blob = fs::read_link(&path).ok();
            let name = blob
                .as_deref()
                .and_then(Path::file_name)
                .and_then(|name| name.to_str());
            found.extend(name.and_then(FileHash::parse).map(|hash| (path, hash)));
        }
    } else {
        let notes = folder.join(NOTES);
        for path in if notes.is_dir() {
            files(&notes)?
        } else {
            Vec::new()
        } {
            let Some(file) = path
                .strip_prefix(&notes)
                .ok()
                .and_then(Path::to_str)
                .and_then(|name| name.strip_suffix(".metadata"))
            else {
                continue;
            };
            let hash = fs::read_to_string(&path)?
                .lines()
                .nth(1)
                .and_then(FileHash::parse);
            found.extend(hash.map(|hash| (folder.join(file), hash)));
        }
    }
    found.sort();
    Ok(found)
}

/// Every file and link in a folder and its subfolders.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?)
        } else {
            found.push(entry.path())
        }
    }
    Ok(found)
}
