//! A file of text that grows by batches: a batch is in it whole or, where the disk fails on the
//! way, not at all, so that what is tried again stands there once.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;

use super::paths::{create, unwritable};
use crate::{Error, Result};

/// Bytes that are gathered before they are written.
const BUFFER: usize = 64 << 10;

/// An open file, and what the present batch has added to it.
pub(super) struct TextFile {
    path: PathBuf,
    file: File,
    opening: &'static str,
    /// Bytes of the file up to the end of the last batch.
    sure: u64,
    /// Bytes written since.
    since: u64,
    buffer: Vec<u8>,
    /// What the present batch failed at.
    failed: Option<Error>,
}

impl TextFile {
    /// Makes the file, empty, in its folder; `opening` will stand before the first text.
    ///
    /// # Errors
    /// External where the folder or the file cannot be made.
    pub fn create(path: PathBuf, opening: &'static str) -> Result<Self> {
        let file = create(&path)?;
        Ok(Self {
            path,
            file,
            opening,
            sure: 0,
            since: 0,
            buffer: Vec::new(),
            failed: None,
        })
    }

    /// Adds to the present batch. After an error the batch is lost, and nothing more is taken until
    /// `flush`.
    ///
    /// # Errors
    /// External where the file cannot be written.
    pub fn append(&mut self, text: &[u8]) -> Result<()> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.sure + self.since == 0 && self.buffer.is_empty() {
            self.buffer.extend_from_slice(self.opening.as_bytes());
        }
        self.buffer.extend_from_slice(text);
        if self.buffer.len() >= BUFFER {
            self.write()
        } else {
            Ok(())
        }
    }

    /// Ends the batch: it is in the file, or after an error it is not.
    ///
    /// # Errors
    /// External where the batch could not be written.
    pub fn flush(&mut self) -> Result<()> {
        if self.failed.is_none() {
            // Kept in `failed`, where it is taken from here.
            let _ = self.write();
        }
        match self.failed.take() {
            Some(error) => Err(error),
            None => {
                self.sure += std::mem::take(&mut self.since);
                Ok(())
            }
        }
    }

    /// Makes what was flushed durable.
    ///
    /// # Errors
    /// External where the disk fails.
    pub fn sync(&self) -> Result<()> {
        self.file
            .sync_all()
            .map_err(|error| unwritable(&self.path, error))
    }

    fn write(&mut self) -> Result<()> {
        let written = self.file.write_all(&self.buffer);
        self.since += self.buffer.len() as u64;
        self.buffer.clear();
        written.map_err(|error| {
            self.cut_back();
            let error = unwritable(&self.path, error);
            self.failed = Some(error.clone());
            error
        })
    }

    /// Takes the present batch out of the file, as far as it is there.
    fn cut_back(&mut self) {
        self.since = 0;
        if let Err(error) = self
            .file
            .set_len(self.sure)
            .and_then(|()| self.file.seek(SeekFrom::Start(self.sure)))
        {
            tracing::debug!(path = %self.path.display(), %error, "a batch that failed may stand \
                                                                  in the file in part");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_fails_leaves_no_trace() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a/x.jsonl");
        let mut file = TextFile::create(path.clone(), "HEAD\n").expect("it is writable");
        file.append(b"one\n").expect("it is taken");
        file.flush().expect("it is written");
        // From here on the disk is full: a handle that may only read fails as a full disk does,
        // after a part was written.
        let whole = std::mem::replace(&mut file.file, File::open(&path).expect("it is there"));
        file.append(b"two\n").expect("it waits in the buffer");
        assert!(
            file.flush()
                .expect_err("it cannot be written")
                .is_transient()
        );
        file.file = whole;
        file.append(b"two\n").expect("it is taken");
        file.flush().expect("it is written");
        assert_eq!(
            std::fs::read_to_string(&path).expect("it is text"),
            "HEAD\none\ntwo\n"
        );
    }

    #[test]
    fn a_batch_written_in_part_is_cut_back_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.jsonl");
        let mut file = TextFile::create(path.clone(), "").expect("it is writable");
        file.append(b"kept\n").expect("it is taken");
        file.flush().expect("it is written");
        file.append(&vec![b'x'; BUFFER])
            .expect("it is written at once");
        assert!(std::fs::metadata(&path).expect("it is there").len() > BUFFER as u64);
        file.cut_back();
        file.append(b"next\n").expect("it is taken");
        file.flush().expect("it is written");
        assert_eq!(
            std::fs::read_to_string(&path).expect("it is text"),
            "kept\nnext\n"
        );
    }

    #[test]
    fn a_file_without_text_has_no_opening_either() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("captions.vtt");
        let mut file = TextFile::create(path.clone(), "WEBVTT\n\n").expect("it is writable");
        file.flush().expect("there is nothing to write");
        assert_eq!(std::fs::read(&path).expect("it is there"), b"");
    }
}
