//! The content digest of a file.

use std::path::Path;

use crate::error::{Error, Result};

/// BLAKE3 of a file's content, hexadecimal. Reads on tokio's blocking threads.
pub(crate) async fn file_digest(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref().to_owned();
    let shown = path.display().to_string();
    let hash = tokio::task::spawn_blocking(move || -> std::io::Result<blake3::Hash> {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(std::fs::File::open(path)?)?;
        Ok(hasher.finalize())
    })
    .await
    .map_err(|error| Error::bug(format!("digest of {shown}")).because(error))?
    .map_err(|error| Error::external(format!("cannot read {shown}")).because(error))?;
    Ok(hash.to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn digest_is_blake3_of_the_content() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x");
        let data: Vec<u8> = (0..300_000u32).map(|i| i as u8).collect();
        std::fs::write(&path, &data).expect("written");
        assert_eq!(
            file_digest(&path).await.expect("a digest"),
            blake3::hash(&data).to_hex().to_string()
        );
        assert!(file_digest(dir.path().join("y")).await.is_err());
    }
}
