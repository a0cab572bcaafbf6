//! What a hub says of a file's content: the SHA-256 of large files, Git's SHA-1 of the others. It
//! is also the name of the blob in the cache.

use std::fmt::Write;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The hash of a file's content, in lowercase hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileHash {
    /// SHA-256 of the content: files in large file storage.
    Sha256(String),
    /// SHA-1 of `blob`, the length and the content, as Git names blobs.
    Git(String),
}

impl FileHash {
    /// Tells the two apart by their length; none for anything else, so that what passes can be a
    /// file's name.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        match text.len() {
            64 if digits => Some(Self::Sha256(text.to_owned())),
            40 if digits => Some(Self::Git(text.to_owned())),
            _ => None,
        }
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Sha256(digits) | Self::Git(digits) => digits,
        }
    }

    /// Begins to hash a content of `length` bytes in the same way.
    pub fn hashing(&self, length: u64) -> Hashing {
        match self {
            Self::Sha256(_) => Hashing::Sha256(Sha256::new()),
            Self::Git(_) => Hashing::Git(Sha1::new_with_prefix(format!("blob {length}\0"))),
        }
    }

    /// The hash, of the same kind, of what a file really holds.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn of_file(&self, path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut hashing = self.hashing(file.metadata()?.len());
        hashing.read(&mut file)?;
        Ok(hashing.finish())
    }
}

/// A hash in the making.
#[derive(Debug, Clone)]
pub enum Hashing {
    /// Of large files.
    Sha256(Sha256),
    /// Of the others.
    Git(Sha1),
}

impl Hashing {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Git(hasher) => hasher.update(bytes),
        }
    }

    /// Takes all that is left to read; gives how much that was.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn read(&mut self, from: &mut impl Read) -> io::Result<u64> {
        let mut buffer = vec![0; 1 << 20];
        let mut length = 0;
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return Ok(length),
                Ok(read) => {
                    self.update(&buffer[..read]);
                    length += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The hash of what was taken.
    pub fn finish(self) -> FileHash {
        match self {
            Self::Sha256(hasher) => FileHash::Sha256(hexadecimal(&hasher.finalize())),
            Self::Git(hasher) => FileHash::Git(hexadecimal(&hasher.finalize())),
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            // Writing into a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}
