//! `docs/reference/` says what the tables in the code say.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use opusflow::cli::reference::{ReferenceFile, files};

const HOW: &str = "`UPDATE_EXPECT=1 cargo test --test main docs` writes them";

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/reference")
}

/// The names of the files that are there.
fn there() -> BTreeSet<String> {
    let entries = fs::read_dir(folder()).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn the_reference_says_what_the_code_says() {
    let rendered = files().expect("the tables render");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::create_dir_all(folder()).expect("the folder can be made");
        for ReferenceFile { name, text } in &rendered {
            fs::write(folder().join(name), text).expect("the folder can be written to");
        }
    }
    let mut stale = Vec::new();
    for ReferenceFile { name, text } in &rendered {
        let there = fs::read_to_string(folder().join(name)).unwrap_or_default();
        let first = there.lines().zip(text.lines()).position(|(a, b)| a != b);
        if there != *text {
            let line = first.map_or(there.lines().count().min(text.lines().count()), |at| at) + 1;
            stale.push(format!("docs/reference/{name} from line {line}"));
        }
    }
    let known: BTreeSet<_> = rendered.iter().map(|file| file.name.to_owned()).collect();
    let unknown = there().difference(&known).cloned().collect::<Vec<_>>();
    assert!(stale.is_empty(), "stale: {}; {HOW}", stale.join(", "));
    assert!(
        unknown.is_empty(),
        "nothing writes docs/reference/{unknown:?}"
    );
}

/// A cell with a line break or a bare `|` would break its table.
#[test]
fn tables_are_whole() {
    for ReferenceFile { name, text } in files().expect("the tables render") {
        let mut columns = None;
        let mut tables = 0;
        for line in text.lines().filter(|_| name.ends_with(".md")) {
            if !line.starts_with('|') {
                columns = None;
                continue;
            }
            let cells = line.replace("\\|", "").matches('|').count();
            tables += usize::from(columns.is_none());
            assert_eq!(*columns.get_or_insert(cells), cells, "{name}: {line}");
        }
        assert!(tables > 0 || name.ends_with(".json"), "{name} has no table");
    }
}

#[test]
fn links_to_headings_lead_somewhere() {
    let rendered = files().expect("the tables render");
    for ReferenceFile { name, text } in &rendered {
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let file = if file.is_empty() { *name } else { file };
            let Some(page) = rendered.iter().find(|page| page.name == file) else {
                assert!(folder().join(file).exists(), "{name}: {link}");
                continue;
            };
            assert!(
                anchor.is_empty() || anchors(&page.text).contains(anchor),
                "{name}: {link}"
            );
        }
    }
}

/// What links call the headings of a page: letters and digits in lower case, `-` for spaces.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.collect::<String>().replace(' ', "-")
        })
        .collect()
}

#[test]
fn hidden_commands_stay_hidden() {
    let rendered = files().expect("the tables render");
    let page = rendered.iter().find(|file| file.name == "cli.md");
    let text = &page.expect("there is a page of commands").text;
    assert!(
        text.contains("## `opusflow run`") && text.contains("--source <URL>"),
        "{text}"
    );
    assert!(!text.contains("## `opusflow reference`"), "{text}");
}
