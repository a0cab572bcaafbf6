//! The object store: encoded pictures and videos by the digest of their content. Records carry
//! their URI instead of their bytes.
//!
//! In the folder `kept/` lies what stays, in `expiring/` what [`ObjectStore::sweep`] may delete:
//! there a file's modification time is the moment from which it may.

use std::fs;
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

const KEPT: &str = "kept";
const EXPIRING: &str = "expiring";

/// A stored object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Where it lies.
    pub uri: String,
    /// SHA-256 of its bytes, hexadecimal.
    pub sha256: String,
    /// How many bytes it has.
    pub bytes: u64,
    /// When the store may delete it, microseconds since 1970; none for never.
    pub expires_at: Option<i64>,
}

/// A folder of objects. A handle: cloning shares it.
#[derive(Debug, Clone)]
pub struct ObjectStore {
    root: Arc<Path>,
    inline_max: u64,
}

impl ObjectStore {
    /// Opens the store at `uri` (`file:./out/objects` or `file:///srv/objects`) and makes its
    /// folder. Objects of at most `inline_max` bytes also travel inside their records.
    ///
    /// # Errors
    /// Config for another scheme, external where the folder cannot be made.
    pub fn open(uri: &str, inline_max: u64) -> Result<Self> {
        let path = local(uri).ok_or_else(|| {
            Error::config(format!("objects cannot be stored at {uri:?}"))
                .hint("write file:./folder or file:///folder; other stores are not known")
        })?;
        let root = std::path::absolute(&path)
            .map_err(|error| Error::config(format!("{uri:?} names no folder")).because(error))?;
        for folder in [KEPT, EXPIRING] {
            fs::create_dir_all(root.join(folder)).map_err(|error| unwritable(&root, error))?;
        }
        Ok(Self {
            root: root.into(),
            inline_max,
        })
    }

    /// Whether an object of `bytes` bytes travels inside its record.
    pub fn is_inline(&self, bytes: u64) -> bool {
        bytes <= self.inline_max
    }

    /// Stores `data` for `ttl`, or for good. Equal data lies there once; the longer life wins.
    ///
    /// # Errors
    /// External where the folder cannot be written: a full disk, a missing right.
    pub async fn put(
        &self,
        data: Bytes,
        media_type: &str,
        ttl: Option<Duration>,
    ) -> Result<Object> {
        let (this, extension) = (self.clone(), extension(media_type));
        blocking(move || this.put_now(&data, extension, ttl)).await
    }

    fn put_now(&self, data: &[u8], extension: &str, ttl: Option<Duration>) -> Result<Object> {
        let sha256 = hex(&Sha256::digest(data));
        let name = format!("{}/{}/{sha256}.{extension}", &sha256[..2], &sha256[2..4]);
        let (kept, expiring) = (
            self.root.join(KEPT).join(&name),
            self.root.join(EXPIRING).join(&name),
        );
        let whole =
            |path: &Path| fs::metadata(path).is_ok_and(|seen| seen.len() == data.len() as u64);
        let object = |path: &Path, expires_at| Object {
            uri: uri_of(path),
            sha256: sha256.clone(),
            bytes: data.len() as u64,
            expires_at,
        };
        if whole(&kept) {
            return Ok(object(&kept, None));
        }
        let Some(expiry) = ttl.and_then(|ttl| SystemTime::now().checked_add(ttl)) else {
            write_whole(&kept, data, None).map_err(|error| unwritable(&kept, error))?;
            return Ok(object(&kept, None));
        };
        let standing = fs::metadata(&expiring)
            .and_then(|seen| seen.modified())
            .ok()
            .filter(|_| whole(&expiring));
        let expiry = match standing {
            Some(until) if until >= expiry => until,
            _ => {
                write_whole(&expiring, data, Some(expiry))
                    .map_err(|error| unwritable(&expiring, error))?;
                expiry
            }
        };
        Ok(object(
            &expiring,
            expiry
                .duration_since(UNIX_EPOCH)
                .ok()
                .map(|since| since.as_micros() as i64),
        ))
    }

    /// The bytes of an object of this store.
    ///
    /// # Errors
    /// Config for another scheme or a path outside the store, external where it is gone or damaged.
    pub async fn get(&self, uri: &str) -> Result<Bytes> {
        let path = local(uri).filter(|path| self.holds(path));
        let path = path.ok_or_else(|| {
            Error::config(format!(
                "{uri:?} is not an object of {}",
                uri_of(&self.root)
            ))
        })?;
        blocking(move || {
            let data = fs::read(&path).map_err(|error| {
                Error::external(format!("cannot read {}", path.display())).because(error)
            })?;
            let name = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .unwrap_or_default();
            match hex(&Sha256::digest(&data)) == name {
                true => Ok(Bytes::from(data)),
                false => Err(Error::external(format!(
                    "{} is damaged: its content is not its name's",
                    path.display()
                ))),
            }
        })
        .await
    }

    fn holds(&self, path: &Path) -> bool {
        path.starts_with(&self.root) && !path.components().any(|part| part == Component::ParentDir)
    }

    /// Deletes what has expired, and says how many objects that were.
    ///
    /// # Errors
    /// External where the folder cannot be read or an object not be deleted.
    pub async fn sweep(&self) -> Result<u64> {
        let root = self.root.join(EXPIRING);
        blocking(move || sweep(&root, SystemTime::now()).map_err(|error| unwritable(&root, error)))
            .await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::bug("the object store's work broke off").because(error))?
}

/// The path a `file:` URI names.
fn local(uri: &str) -> Option<PathBuf> {
    let rest = uri.strip_prefix("file:").filter(|rest| !rest.is_empty())?;
    match rest.strip_prefix("//") {
        Some(_) => url::Url::parse(uri).ok()?.to_file_path().ok(),
        None => Some(PathBuf::from(rest)),
    }
}

fn uri_of(path: &Path) -> String {
    url::Url::from_file_path(path)
        .map_or_else(|()| format!("file:{}", path.display()), String::from)
}

/// A reader sees the whole file or none: it is written beside its place and moved there.
fn write_whole(path: &Path, data: &[u8], modified: Option<SystemTime>) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(folder)?;
    let draft = folder.join(format!(".{:032x}", rand::random::<u128>()));
    let written = fs::File::create_new(&draft).and_then(|mut file| {
        file.write_all(data)?;
        modified.map_or(Ok(()), |modified| file.set_modified(modified))?;
        drop(file);
        fs::rename(&draft, path)
    });
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written
}

fn sweep(folder: &Path, now: SystemTime) -> io::Result<u64> {
    let mut deleted = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let seen = match entry.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            seen => seen?,
        };
        if seen.is_dir() {
            deleted += sweep(&entry.path(), now)?;
        } else if seen.modified()? <= now && !entry.file_name().as_encoded_bytes().starts_with(b".")
        {
            fs::remove_file(entry.path())?;
            deleted += 1;
        }
    }
    Ok(deleted)
}

fn unwritable(path: &Path, error: io::Error) -> Error {
    Error::unwritable(path, error, "`objects.store`")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn extension(media_type: &str) -> &'static str {
    match media_type {
        "image/jpeg" => "jpg",
        "image/png" => "png",
        "image/webp" => "webp",
        "video/mp4" => "mp4",
        "text/vtt" => "vtt",
        "application/json" => "json",
        _ => "bin",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn store(inline_max: u64) -> (tempfile::TempDir, ObjectStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = ObjectStore::open(
            &format!("file:{}", folder.path().join("a b").display()),
            inline_max,
        )
        .unwrap();
        (folder, store)
    }

    fn files(folder: &Path) -> usize {
        fs::read_dir(folder)
            .unwrap()
            .map(Result::unwrap)
            .map(|e| {
                if e.path().is_dir() {
                    files(&e.path())
                } else {
                    1
                }
            })
            .sum()
    }

    #[tokio::test]
    async fn equal_data_lies_there_once_and_comes_back() {
        let (folder, store) = store(4);
        let first = store
            .put(Bytes::from_static(b"jpeg"), "image/jpeg", None)
            .await
            .unwrap();
        assert_eq!(
            store
                .put(
                    Bytes::from_static(b"jpeg"),
                    "image/jpeg",
                    Some(Duration::from_secs(9))
                )
                .await
                .unwrap(),
            first
        );
        assert_eq!(files(folder.path()), 1);
        assert_eq!(first.sha256, hex(&Sha256::digest(b"jpeg")));
        assert!(
            first.uri.starts_with("file:///")
                && first.uri.contains("a%20b")
                && first.uri.ends_with(".jpg"),
            "{}",
            first.uri
        );
        assert_eq!(store.get(&first.uri).await.unwrap(), "jpeg");
        assert!(store.is_inline(4) && !store.is_inline(5));
    }

    #[tokio::test]
    async fn sweep_takes_what_expired_and_leaves_the_rest() {
        let (_folder, store) = store(0);
        let put = |data: &'static [u8], ttl: Option<Duration>| {
            store.put(Bytes::from_static(data), "image/png", ttl)
        };
        let gone = put(b"gone", Some(Duration::ZERO)).await.unwrap();
        let later = put(b"later", Some(Duration::from_secs(3600)))
            .await
            .unwrap();
        let longer = put(b"later", Some(Duration::from_secs(60))).await.unwrap();
        assert_eq!(longer.expires_at, later.expires_at, "the longer life wins");
        let kept = put(b"kept", None).await.unwrap();
        assert_eq!(store.sweep().await.unwrap(), 1);
        assert_eq!(
            store.get(&gone.uri).await.unwrap_err().kind(),
            Kind::External
        );
        assert_eq!(store.get(&later.uri).await.unwrap(), "later");
        assert_eq!(store.get(&kept.uri).await.unwrap(), "kept");
    }

    #[tokio::test]
    async fn damage_and_foreign_paths_are_refused() {
        let (folder, store) = store(0);
        let object = store
            .put(Bytes::from_static(b"whole"), "image/png", None)
            .await
            .unwrap();
        fs::write(
            url::Url::parse(&object.uri)
                .unwrap()
                .to_file_path()
                .unwrap(),
            b"wrong",
        )
        .unwrap();
        assert!(
            store
                .get(&object.uri)
                .await
                .unwrap_err()
                .message()
                .contains("damaged")
        );
        fs::write(folder.path().join("secret"), b"x").unwrap();
        for uri in [
            format!("file:{}/a b/../secret", folder.path().display()),
            "file:///etc/hostname".to_owned(),
            "s3://b/k".to_owned(),
        ] {
            assert_eq!(
                store.get(&uri).await.unwrap_err().kind(),
                Kind::Config,
                "{uri}"
            );
        }
    }

    #[test]
    fn other_schemes_and_unwritable_folders_say_what_to_do() {
        let error = ObjectStore::open("s3://bucket", 0).unwrap_err();
        assert_eq!(
            (error.kind(), error.hint_text().is_some()),
            (Kind::Config, true)
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        let error =
            ObjectStore::open(&format!("file:{}/objects", file.path().display()), 0).unwrap_err();
        assert_eq!(error.kind(), Kind::External);
        let full = unwritable(Path::new("/x"), io::ErrorKind::StorageFull.into());
        assert!(full.to_string().contains("free some space"), "{full}");
    }
}
