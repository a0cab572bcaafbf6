//! Paths that the sink writes to: names that stay in its folder, and what to say when one cannot be
//! written.

use std::fs::File;
use std::path::Path;

use crate::{Error, Result};

/// A name that stays one component of a path.
pub(super) fn file_name(name: &str) -> String {
    let safe: String = name
        .chars()
        .map(|c| {
            if c.is_alphanumeric() || matches!(c, '-' | '_' | '.') {
                c
            } else {
                '-'
            }
        })
        .collect();
    if safe.trim_matches('.').is_empty() {
        format!("_{safe}")
    } else {
        safe
    }
}

/// Makes a file, empty, and its folder.
pub(super) fn create(path: &Path) -> Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| unwritable(folder, error))?;
    }
    File::create(path).map_err(|error| unwritable(path, error))
}

/// What to say of a path that the sink cannot write.
pub(super) fn unwritable(path: &Path, error: std::io::Error) -> Error {
    Error::unwritable(path, error, "the stage's `path`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_ids_cannot_leave_the_folder() {
        assert_eq!(file_name("../../etc/passwd"), "..-..-etc-passwd");
        assert_eq!(file_name(".."), "_..");
        assert_eq!(file_name("cam 1"), "cam-1");
    }
}
