//! Where things stand in the file, for the problems of its sections.

use crate::config::{Node, Place, Problems};

/// The file whose sections are checked, and where problems with them go.
pub(super) struct SectionReader<'a> {
    pub root: &'a Node,
    pub problems: &'a mut Problems,
}

impl SectionReader<'_> {
    /// Where the value at a path stands, or the nearest thing above it.
    pub fn at(&self, path: &[&str]) -> Place {
        let mut node = self.root;
        for key in path {
            match node.entry(key) {
                Some(entry) => node = &entry.value,
                None => return node.place,
            }
        }
        node.place
    }
}

/// Whether a text may be a name: letters, digits, `.`, `-` and `_`, at most 64.
pub(super) fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(allowed)
}
