//! The pages, cut into what is fenced and what is prose.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::support::root;

/// One Markdown file.
pub(super) struct Page {
    /// Its path from the root of the repository.
    pub path: String,
    pub blocks: Vec<Block>,
    /// Everything outside of blocks; lines of blocks are empty, so that numbers stay.
    pub prose: Vec<String>,
}

/// A fenced block.
pub(super) struct Block {
    /// `PATH:LINE` of its first line.
    pub place: String,
    pub language: String,
    /// What follows the language: `fragment=stages`, `unchecked="why"`.
    pub attributes: BTreeMap<String, String>,
    pub text: String,
}

/// Pages whose every word is held: those for people who use the program, and CONTRIBUTING.md.
/// `docs/reference/` is written by the program itself, and `docs/architecture.md` is about code.
pub(super) fn pages() -> Vec<Page> {
    let mut paths = vec!["README.md".to_owned(), "CONTRIBUTING.md".to_owned()];
    paths.push("ops/models/starter-diffusion/README.md".to_owned());
    paths.extend(
        markdown("docs")
            .into_iter()
            .filter(|path| path != "docs/architecture.md" && !path.starts_with("docs/reference/")),
    );
    assert!(paths.len() >= 11, "pages are missing: {paths:?}");
    paths.into_iter().map(|path| page(&path)).collect()
}

/// Every page that has links.
pub(super) fn linked_pages() -> Vec<Page> {
    let mut paths = markdown("docs");
    paths.extend(
        [
            "README.md",
            "CONTRIBUTING.md",
            "CHANGELOG.md",
            "ops/models/starter-diffusion/README.md",
        ]
        .map(str::to_owned),
    );
    paths.iter().map(|path| page(path)).collect()
}

/// The Markdown files below a folder of the repository.
fn markdown(folder: &str) -> Vec<String> {
    let mut open = vec![PathBuf::from(folder)];
    let mut found = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            if entry.path().is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path.display().to_string());
            }
        }
    }
    found.sort();
    found
}

/// Reads a page.
pub(super) fn page(path: &str) -> Page {
    let text =
        fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let (mut blocks, mut prose) = (Vec::new(), Vec::new());
    let mut open: Option<Block> = None;
    for (number, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(info), None) => open = Some(Block::opened(path, number + 2, info)),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => block.text.push_str(&format!("{line}\n")),
            (None, None) => {
                prose.push(line.to_owned());
                continue;
            }
        }
        prose.push(String::new());
    }
    assert!(open.is_none(), "{path}: a block is never closed");
    Page {
        path: path.to_owned(),
        blocks,
        prose,
    }
}

impl Block {
    fn opened(path: &str, line: usize, info: &str) -> Self {
        let mut words = super::shell::split(info).into_iter();
        let language = words.next().unwrap_or_default();
        let attributes = words.map(|word| {
            let (name, value) = word
                .split_once('=')
                .unwrap_or_else(|| panic!("{path}:{line}: `{word}` is no NAME=VALUE"));
            (name.to_owned(), value.to_owned())
        });
        Self {
            place: format!("{path}:{line}"),
            attributes: attributes.collect(),
            language,
            text: String::new(),
        }
    }

    /// An attribute's value.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str)
    }

    /// Whether the page says that it can be neither run nor checked.
    pub fn is_unchecked(&self) -> bool {
        self.attribute("unchecked").is_some()
    }
}

impl Page {
    /// The spans in backticks, each with its `PATH:LINE`.
    pub fn spans(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for (number, line) in self.prose.iter().enumerate() {
            let place = format!("{}:{}", self.path, number + 1);
            for span in line.split('`').skip(1).step_by(2) {
                found.push((place.clone(), span.to_owned()));
            }
        }
        found
    }
}
