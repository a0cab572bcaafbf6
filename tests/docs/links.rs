//! Links lead to files and headings that there are.

use std::path::{Component, Path, PathBuf};

use super::pages::{Page, linked_pages};
use crate::support::root;

/// The targets of a page's links and pictures, each with its `PATH:LINE`.
fn targets(page: &Page) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (number, line) in page.prose.iter().enumerate() {
        for part in line.split("](").skip(1) {
            let target = part.split(')').next().unwrap_or_default();
            found.push((format!("{}:{}", page.path, number + 1), target.to_owned()));
        }
    }
    found
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(page: &Page) -> Vec<String> {
    let headings = page.prose.iter().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let letters = line.trim_start_matches('#').trim().to_lowercase();
            letters
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | ' '))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

/// `folder/../x` without its detours.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

#[test]
fn links_lead_somewhere() {
    let pages = linked_pages();
    let mut wrong = Vec::new();
    let mut count = 0;
    for page in &pages {
        for (place, target) in targets(page) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            count += 1;
            let (file, anchor) = target
                .split_once('#')
                .map_or((&*target, None), |(file, anchor)| (file, Some(anchor)));
            let folder = Path::new(&page.path).parent().unwrap();
            let path = if file.is_empty() {
                PathBuf::from(&page.path)
            } else {
                plain(&folder.join(file))
            };
            if !root().join(&path).exists() {
                wrong.push(format!("{place}: there is no {target}"));
                continue;
            }
            let linked = pages.iter().find(|other| Path::new(&other.path) == path);
            let Some(anchor) = anchor else { continue };
            if !linked.is_some_and(|page| anchors(page).iter().any(|known| known == anchor)) {
                wrong.push(format!("{place}: there is no heading {target}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 50, "{count} links");
}

#[test]
fn no_page_is_out_of_reach() {
    let pages = linked_pages();
    let reached: Vec<PathBuf> = pages
        .iter()
        .flat_map(|page| {
            let folder = Path::new(&page.path).parent().unwrap();
            let files = targets(page).into_iter();
            files.map(|(_, target)| {
                plain(&folder.join(target.split('#').next().unwrap_or_default()))
            })
        })
        .collect();
    for page in pages.iter().filter(|page| page.path.starts_with("docs/")) {
        assert!(
            reached.iter().any(|path| path == Path::new(&page.path)),
            "nothing links to {}",
            page.path
        );
    }
}
