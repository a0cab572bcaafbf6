//! The texts that a configuration comes from: the file, and each flag that overrides it. Every node
//! and problem points into one of them.

use std::path::Path;
use std::sync::Arc;

use crate::{Error, Result};

/// A file above this many bytes is not a pipeline.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A named text: a file, or a flag of the command line.
#[derive(Debug, Clone)]
pub struct SourceText {
    name: Arc<str>,
    text: Arc<str>,
}

/// A stretch of a source, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Place {
    /// Which source: 0 is the file, flags follow.
    pub source: usize,
    /// First byte inside.
    pub start: usize,
    /// First byte outside.
    pub end: usize,
}

impl SourceText {
    /// A text under a name. A byte order mark is taken off and Windows line ends become plain ones.
    pub fn new(name: impl Into<Arc<str>>, text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self {
            name: name.into(),
            text: text.replace("\r\n", "\n").into(),
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, is larger than 1 MiB or is not UTF-8.
    pub fn load(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let failed =
            |error: std::io::Error| Error::config(format!("cannot read {name}")).because(error);
        let size = std::fs::metadata(path).map_err(failed)?.len();
        if size > MAX_FILE_BYTES {
            return Err(Error::config(format!(
                "{name} has {size} bytes, a pipeline file may have {MAX_FILE_BYTES}"
            )));
        }
        let bytes = std::fs::read(path).map_err(failed)?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            Error::config(format!(
                "{name} is not UTF-8: byte {at} is part of no character"
            ))
            .hint("save the file as UTF-8")
        })?;
        Ok(Self::new(name, &text))
    }

    /// Its name: the file's path, or the flag's word.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Line and column of a byte, both from 1, the column in characters.
    pub fn position(&self, byte: usize) -> (usize, usize) {
        let before = &self.text[..self.text.floor_char_boundary(byte)];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (
            before.matches('\n').count() + 1,
            before[line_start..].chars().count() + 1,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_from_one() {
        let source = SourceText::new("x", "\u{feff}a: ü\r\nbé: c");
        assert_eq!(source.text(), "a: ü\nbé: c");
        let at = source.text().find(": c").unwrap();
        assert_eq!(source.position(at), (2, 3));
        assert_eq!(source.position(source.text().len()), (2, 6));
    }

    #[test]
    fn files_that_are_not_text_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.yaml");
        std::fs::write(&path, b"a: \xff").unwrap();
        let message = SourceText::load(&path).unwrap_err().to_string();
        assert!(message.contains("is not UTF-8: byte 3"), "{message}");
        std::fs::write(&path, vec![b' '; 2 << 20]).unwrap();
        assert!(
            SourceText::load(&path)
                .unwrap_err()
                .to_string()
                .contains("may have 1048576")
        );
    }
}
