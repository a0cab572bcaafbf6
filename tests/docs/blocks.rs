//! Every block is of a language that some test looks at, and those that repeat a file repeat it.

use std::fs;

use super::pages::{Block, page, pages};
use crate::support::root;

/// What is tested, and by whom.
const LANGUAGES: [&str; 7] = ["yaml", "sh", "python", "json", "rust", "text", "mermaid"];

/// Blocks that can be neither run nor checked, each with its reason: so many.
const UNCHECKED: usize = 0;

#[test]
fn every_block_is_looked_at_or_says_why_not() {
    let mut unchecked = Vec::new();
    for block in pages().into_iter().flat_map(|page| page.blocks) {
        assert!(
            LANGUAGES.contains(&block.language.as_str()),
            "{}: no test knows the language `{}`",
            block.place,
            block.language
        );
        let known = ["fragment", "file", "part", "unchecked"];
        if let Some(name) = block
            .attributes
            .keys()
            .find(|name| !known.contains(&name.as_str()))
        {
            panic!("{}: no test knows `{name}=`", block.place);
        }
        if let Some(reason) = block.attribute("unchecked") {
            assert!(reason.len() > 10, "{}: say why", block.place);
            unchecked.push(block.place.clone());
        }
        if block.language == "rust" {
            let held = block
                .attribute("file")
                .or(block.attribute("part"))
                .is_some();
            assert!(
                held || block.is_unchecked(),
                "{}: name its `file=`, or with `part=` the file that it is a part of",
                block.place
            );
        }
        if block.language == "json" {
            json(&block);
        }
    }
    assert_eq!(unchecked.len(), UNCHECKED, "unchecked: {unchecked:?}");
}

/// One value, or one a line.
fn json(block: &Block) {
    let whole = serde_json::from_str::<serde_json::Value>(&block.text);
    let by_line = || {
        block
            .text
            .lines()
            .try_for_each(|line| serde_json::from_str::<serde_json::Value>(line).map(drop))
    };
    if let Err(error) = whole.map(drop).or_else(|_| by_line()) {
        panic!("{}: {error}", block.place);
    }
}

/// What a page shows of a file: all but what it opens with and its tests.
fn shown(file: &str) -> String {
    let text =
        fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let opening = |line: &&str| line.starts_with("//!") || line.starts_with('#') || line.is_empty();
    let lines: Vec<&str> = code.lines().skip_while(opening).collect();
    lines.join("\n").trim_end().to_owned() + "\n"
}

#[test]
fn blocks_that_show_a_file_are_that_file() {
    let mut count = 0;
    for path in pages().into_iter().map(|page| page.path) {
        for block in page(&path).blocks {
            let Some(file) = block.attribute("file") else {
                continue;
            };
            count += 1;
            let wanted = shown(file);
            if block.text == wanted {
                continue;
            }
            if std::env::var_os("UPDATE_EXPECT").is_some() {
                let text = fs::read_to_string(root().join(&path)).unwrap();
                fs::write(root().join(&path), text.replacen(&block.text, &wanted, 1)).unwrap();
                continue;
            }
            panic!(
                "{}: it is not {file} any more; UPDATE_EXPECT=1 writes it again",
                block.place
            );
        }
    }
    assert!(
        count >= 2,
        "a pipeline in README.md and a stage in CONTRIBUTING.md are shown"
    );
}

#[test]
fn blocks_that_show_a_part_of_a_file_are_in_it() {
    for path in pages().into_iter().map(|page| page.path) {
        for block in page(&path).blocks {
            let Some(file) = block.attribute("part") else {
                continue;
            };
            let text = fs::read_to_string(root().join(file)).unwrap();
            assert!(
                text.contains(&block.text),
                "{}: {file} has other words",
                block.place
            );
        }
    }
}

#[test]
fn readme_is_short_and_its_picture_small() {
    let size = |file: &str| fs::metadata(root().join(file)).unwrap().len();
    assert!(size("README.md") <= 12 << 10, "{} bytes", size("README.md"));
    assert!(size("docs/images/contact-sheet.jpg") < 120_000);
}

#[test]
fn versions_that_pages_name_are_those_of_the_build() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let rust = manifest
        .lines()
        .find_map(|line| line.strip_prefix("rust-version = \""))
        .unwrap()
        .trim_end_matches('"');
    for file in ["README.md", "CONTRIBUTING.md"] {
        let text = fs::read_to_string(root().join(file)).unwrap();
        assert!(
            text.contains(&format!("Rust {rust} or newer")),
            "{file}: Rust {rust}"
        );
    }
}
