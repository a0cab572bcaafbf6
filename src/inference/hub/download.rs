//! One file on its way: it grows beside its destination under another name, goes on where it broke,
//! and gets its own name when its hash is right.

use std::io::Read;
use std::path::{Path, PathBuf};

use reqwest::StatusCode;
use reqwest::header::CONTENT_RANGE;
use tokio::fs::File;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};

use super::client::{Failure, HubClient};
use super::destination::{Destination, create_parent, lock_file};
use super::progress::{Step, Watch};
use super::selection::RepoFile;
use crate::error::{Error, Result};
use crate::models::hub::{Hashing, HubId};

/// A file to be fetched.
pub(super) struct Download<'a> {
    pub hub: &'a HubClient,
    pub destination: &'a Destination<'a>,
    pub id: &'a HubId,
    pub commit: &'a str,
    pub file: &'a RepoFile,
    pub watch: Watch<'a>,
}

/// What is there of a file, and the hash of it so far.
struct Partial {
    path: PathBuf,
    file: File,
    length: u64,
    hashing: Hashing,
}

/// Whether a file got its name.
enum Verified {
    Right,
    Wrong(Error),
}

impl Download<'_> {
    /// Sees to it that the file is there; gives the bytes that came for it.
    pub async fn run(self) -> Result<u64> {
        let RepoFile { path, size, .. } = self.file;
        let there = || {
            (self.watch)(Step::Present {
                file: path,
                size: *size,
            });
            Ok(0)
        };
        if self.destination.has(self.file) {
            return there();
        }
        let paths = self.destination.paths(self.file);
        for file in [&paths.whole, &paths.partial, &paths.lock] {
            create_parent(file).map_err(|error| self.destination.unwritable(file, error))?;
        }
        let lock = lock_file(&paths.lock, || (self.watch)(Step::Waiting { file: path })).await;
        let _lock = lock.map_err(|error| self.destination.unwritable(&paths.lock, error))?;
        if self.destination.has(self.file) {
            return there();
        }
        loop {
            let mut partial = Partial::open(&paths.partial, self.file)
                .await
                .map_err(|error| self.destination.unwritable(&paths.partial, error))?;
            let had = partial.length;
            (self.watch)(Step::Started {
                file: path,
                size: *size,
                had,
            });
            self.fill(&mut partial).await?;
            match self.name(partial, &paths.whole).await? {
                // What an earlier pull left may be what is wrong.
                Verified::Wrong(_) if had > 0 => {}
                Verified::Wrong(error) => return Err(error),
                Verified::Right => {
                    (self.watch)(Step::Verified { file: path });
                    return Ok(size.saturating_sub(had));
                }
            }
        }
    }

    /// Fetches until all is there. What breaks is taken up again, unless it breaks again and again
    /// without bringing anything.
    async fn fill(&self, partial: &mut Partial) -> Result<()> {
        let mut failed = 0;
        while partial.length < self.file.size {
            let before = partial.length;
            let (error, pause) = match self.stream(partial).await {
                Ok(()) => continue,
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(error, pause)) => (error.context(&self.file.path), pause),
            };
            failed = if partial.length > before {
                1
            } else {
                failed + 1
            };
            if failed >= self.hub.retry.tries {
                return Err(error.hint("pull it again: it goes on where it broke"));
            }
            (self.watch)(Step::Retrying { error: &error });
            self.hub.rest(failed, pause).await;
        }
        Ok(())
    }

    /// One answer of the hub, as far as it comes.
    async fn stream(&self, partial: &mut Partial) -> Result<(), Failure> {
        let mut response = self
            .hub
            .file(self.id, self.commit, (&self.file.path, partial.length))
            .await?;
        let unwritable =
            |path: &Path, error| Failure::Final(self.destination.unwritable(path, error));
        let goes_on = response.status() == StatusCode::PARTIAL_CONTENT
            && range_start(&response) == Some(partial.length);
        if partial.length > 0 && !goes_on {
            // It sends the whole file, or another part of it than was asked for.
            partial
                .restart(self.file)
                .await
                .map_err(|error| unwritable(&partial.path, error))?;
            (self.watch)(Step::Received {
                file: &self.file.path,
                at: 0,
            });
        }
        if response.status() != StatusCode::OK && !goes_on {
            let error = Error::external(format!(
                "the hub answered {} to a part of the file",
                response.status()
            ));
            return Err(Failure::Passing(error, None));
        }
        loop {
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                end => return self.end(partial, end.map(drop)).await,
            };
            if partial.length + chunk.len() as u64 > self.file.size {
                partial.delete().await;
                return Err(Failure::Final(self.wrong(format_args!(
                    "more than the {} bytes that it lists",
                    self.file.size
                ))));
            }
            partial
                .take(&chunk)
                .await
                .map_err(|error| unwritable(&partial.path, error))?;
            (self.watch)(Step::Received {
                file: &self.file.path,
                at: partial.length,
            });
        }
    }

    /// What came by an answer is written out, however the answer ended.
    async fn end(&self, partial: &mut Partial, end: reqwest::Result<()>) -> Result<(), Failure> {
        partial
            .file
            .flush()
            .await
            .map_err(|error| Failure::Final(self.destination.unwritable(&partial.path, error)))?;
        match end {
            Err(error) => Err(self.hub.broken(error)),
            Ok(()) if partial.length < self.file.size => {
                Err(Failure::Passing(Error::external("the hub broke off"), None))
            }
            Ok(()) => Ok(()),
        }
    }

    /// Gives the file its name if it is what the hub lists, and deletes it if not.
    async fn name(&self, partial: Partial, whole: &Path) -> Result<Verified> {
        let Partial {
            path,
            mut file,
            hashing,
            ..
        } = partial;
        // A name must not outlive, through a loss of power, the content that it stands for.
        let synced = async { file.flush().await.and(file.sync_all().await) };
        synced
            .await
            .map_err(|error| self.destination.unwritable(&path, error))?;
        drop(file);
        let found = hashing.finish();
        if found != self.file.hash {
            // It is of no use to anybody, so that it does not matter whether it can be deleted.
            let _ = tokio::fs::remove_file(&path).await;
            let (found, listed) = (found.as_str(), self.file.hash.as_str());
            return Ok(Verified::Wrong(self.wrong(format_args!(
                "other bytes than it lists: their hash is {found}, not {listed}"
            ))));
        }
        tokio::fs::rename(&path, whole)
            .await
            .map_err(|error| self.destination.unwritable(whole, error))?;
        Ok(Verified::Right)
    }

    fn wrong(&self, what: impl std::fmt::Display) -> Error {
        Error::external(format!(
            "the hub sent {what}, for {} of {}",
            self.file.path, self.id
        ))
        .hint(
            "what came was deleted: pull again; if it stays so, something between here and the \
             hub changes files",
        )
    }
}

/// The first byte of the part of a file that an answer says it brings.
fn range_start(response: &reqwest::Response) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let start = range.strip_prefix("bytes ")?.split('-').next()?;
    start.parse().ok()
}

impl Partial {
    /// Opens what an earlier pull left, or begins a new one.
    async fn open(path: &Path, listed: &RepoFile) -> std::io::Result<Self> {
        let (destination, length, mut hashing) = (
            path.to_owned(),
            listed.size,
            listed.hash.hashing(listed.size),
        );
        let hashed = tokio::task::spawn_blocking(move || {
            let mut file = std::fs::File::options()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(destination)?;
            let found = file.metadata()?.len();
            if found > length {
                file.set_len(0)?;
            }
            let there = if found > length {
                0
            } else {
                hashing.read(&mut (&mut file).take(found))?
            };
            Ok::<_, std::io::Error>((file, there, hashing))
        });
        let (file, length, hashing) = hashed.await.map_err(std::io::Error::other)??;
        let mut file = File::from_std(file);
        file.seek(std::io::SeekFrom::Start(length)).await?;
        Ok(Self {
            path: path.to_owned(),
            file,
            length,
            hashing,
        })
    }

    async fn take(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_all(bytes).await?;
        self.hashing.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    async fn restart(&mut self, listed: &RepoFile) -> std::io::Result<()> {
        self.file.set_len(0).await?;
        self.file.rewind().await?;
        self.length = 0;
        self.hashing = listed.hash.hashing(listed.size);
        Ok(())
    }

    async fn delete(&self) {
        // It is of no use to anybody, so that it does not matter whether it can be deleted.
        let _ = tokio::fs::remove_file(&self.path).await;
    }
}
