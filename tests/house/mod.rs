//! The house's laws over its own source: imports point down only, files stay small and say what
//! they are for.

use std::path::{Path, PathBuf};

/// Rooms by floor, as architecture.md draws them. A room may import what is listed; `stages` and
/// above also every floor below 4.
const ROOMS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("packet", &["error"]),
    ("config", &["error"]),
    ("telemetry", &["error"]),
    ("tensor", &["error", "packet"]),
    ("codec", &["error", "packet"]),
    ("media", &["error", "packet", "telemetry"]),
    ("broker", &["error", "telemetry", "codec"]),
    ("cache", &["error", "telemetry"]),
    ("models", &["error", "tensor"]),
    (
        "inference",
        &["models", "tensor", "telemetry", "error", "packet"],
    ),
    ("stage", LOW),
    ("stages", &["stage"]),
    ("pipeline", &["stages", "stage"]),
    ("tasks", &["pipeline", "stages", "stage"]),
    ("api", &["tasks", "pipeline", "stages", "stage"]),
    ("cli", &["api", "tasks", "pipeline", "stages", "stage"]),
];

/// Floors 0 to 3.
const LOW: &[&str] = &[
    "error",
    "packet",
    "config",
    "telemetry",
    "tensor",
    "codec",
    "media",
    "broker",
    "cache",
    "models",
    "inference",
];

/// Lines of a file without its tests, at most; a network may have as many as its paper's layers
/// need, and a file of tests as many as its cases.
const SHORT: usize = 660;
const NETWORK: usize = 600;
const TESTS: usize = 800;

fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut open = vec![root.clone()];
    let mut files = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).expect("src can be listed") {
            let path = entry.expect("src can be listed").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("source is text");
                files.push((
                    path.strip_prefix(&root).expect("it lies in src").to_owned(),
                    text,
                ));
            }
        }
    }
    files.sort();
    files
}

fn room(path: &Path) -> Option<String> {
    let first = path.components().next()?.as_os_str().to_str()?;
    let room = first.strip_suffix(".rs").unwrap_or(first);
    (!matches!(room, "lib" | "main")).then(|| room.to_owned())
}

/// The code without comments and string literals, so that neither is taken for an import.
fn bare(text: &str) -> String {
    let mut code = String::new();
    for line in text.lines() {
        let mut quoted = false;
        let mut previous = ' ';
        for (at, letter) in line.char_indices() {
            if !quoted && line[at..].starts_with("//") {
                break;
            }
            if letter == '"' && previous != '\\' && previous != '\'' {
                quoted = !quoted;
            } else if !quoted {
                code.push(letter);
            }
            previous = if previous == '\\' { ' ' } else { letter };
        }
        code.push('\n');
    }
    code
}

/// What follows each `prefix` in `code`: names up to the second level, with the braces of a `use`
/// opened.
fn paths(code: &str, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_' || letter == ':') {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        if let Some(list) = rest.strip_prefix('{') {
            found.extend(top_level(list));
        } else {
            found.push(
                rest.chars()
                    .take_while(|letter| letter.is_alphanumeric() || matches!(letter, '_' | ':'))
                    .collect(),
            );
        }
    }
    found
}

/// The entries of a brace list, nested lists left out.
fn top_level(list: &str) -> Vec<String> {
    let (mut depth, mut entry, mut entries) = (0, String::new(), Vec::new());
    for letter in list.chars() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => entries.push(std::mem::take(&mut entry)),
            _ if depth == 0 && !letter.is_whitespace() => entry.push(letter),
            _ => {}
        }
    }
    entries.push(entry);
    entries.retain(|entry| !entry.is_empty());
    entries
}

fn upward(path: &Path, text: &str) -> Vec<String> {
    let Some(room) = room(path) else {
        return Vec::new();
    };
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![format!(
            "{}: `{room}` is not a room of the house",
            path.display()
        )];
    };
    let low = matches!(&*room, "stages" | "pipeline" | "tasks" | "api" | "cli");
    let known = |name: &str| ROOMS.iter().any(|(room, _)| *room == name);
    let fine = |name: &str| {
        name == room || !known(name) || allowed.contains(&name) || (low && LOW.contains(&name))
    };
    let code = bare(text);
    let imports = ["crate::", "opusflow::"]
        .into_iter()
        .flat_map(|prefix| paths(&code, prefix));
    let named = imports.map(|import| import.split("::").next().unwrap_or_default().to_owned());
    named
        .filter(|name| !fine(name))
        .map(|name| format!("{}: `{room}` imports `{name}`", path.display()))
        .collect()
}

/// Sibling stages: a file of `stages/sources`, `stages/transforms` or `stages/sinks` may not name
/// another stage's module. Files that hold a `StageKind` are stages; what several stages share
/// holds none.
fn siblings(files: &[(PathBuf, String)]) -> Vec<String> {
    let is_stage = |text: &str| bare(text).contains("StageKind {");
    let stages: Vec<_> = files
        .iter()
        .filter(|(path, text)| path.starts_with("stages") && is_stage(text))
        .collect();
    let name = |path: &Path| {
        path.file_stem()
            .and_then(|stem| stem.to_str())
            .map(str::to_owned)
            .unwrap_or_default()
    };
    let mut wrong = Vec::new();
    for (path, text) in &stages {
        let code = bare(text);
        let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
        for (other, _) in stages.iter().filter(|(other, _)| other != path) {
            let (module, home) = (name(other), other.parent().map(name).unwrap_or_default());
            let roads = [format!("{home}::{module}"), format!("super::{module}")];
            let near = other.parent() == Some(&*folder);
            let named = |road: &String| {
                code.match_indices(road.as_str()).any(|(at, _)| {
                    !code[at + road.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_')
                })
            };
            if named(&roads[0]) || (near && named(&roads[1])) {
                wrong.push(format!(
                    "{}: a stage imports its sibling `{module}`",
                    path.display()
                ));
            }
        }
    }
    wrong
}

#[test]
fn imports_point_down_only() {
    let files = sources();
    let wrong: Vec<_> = files
        .iter()
        .flat_map(|(path, text)| upward(path, text))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn sibling_stages_do_not_know_each_other() {
    let wrong = siblings(&sources());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn upward_imports_are_found_however_they_are_written() {
    let wrong = |room: &str, text: &str| upward(Path::new(room), text).len();
    assert_eq!(wrong("packet/mod.rs", "use crate::stage::Sender;"), 1);
    assert_eq!(
        wrong(
            "packet/mod.rs",
            "fn f() { let x = crate::pipeline::run(); }"
        ),
        1
    );
    assert_eq!(
        wrong(
            "cache/mod.rs",
            "use crate::{\n    error::Error,\n    codec::{Record, stage},\n    Result,\n};"
        ),
        1
    );
    assert_eq!(
        wrong(
            "stage/queue.rs",
            "use crate::packet::Packet; // crate::pipeline is above"
        ),
        0
    );
    assert_eq!(
        wrong(
            "stages/sinks/kafka.rs",
            "use crate::broker::Producer; use crate::stage::Sink;"
        ),
        0
    );
    assert_eq!(
        wrong("stages/sinks/kafka.rs", "let text = \"crate::pipeline\";"),
        0
    );
    assert_eq!(wrong("attic.rs", ""), 1);
    let kind = |import: &str| format!("{import} pub static A: StageKind = StageKind {{ }};");
    let files = |import: &str| {
        vec![
            (PathBuf::from("stages/transforms/a.rs"), kind(import)),
            (PathBuf::from("stages/transforms/shots.rs"), kind("")),
        ]
    };
    assert_eq!(siblings(&files("use super::shots::Shots;")).len(), 1);
    assert_eq!(
        siblings(&files("use crate::stages::transforms::shots;")).len(),
        1
    );
    assert_eq!(siblings(&files("use super::shots_of_old::X;")).len(), 0);
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let code = text.split("\n#[cfg(test)]\nmod tests {").next();
        let lines = code.unwrap_or_default().lines().count();
        let room = path.components().next();
        let most = match room.and_then(|room| room.as_os_str().to_str()) {
            Some("main.rs") => 20,
            _ if path.ends_with("tests.rs") => TESTS,
            Some("models") => NETWORK,
            _ => SHORT,
        };
        if lines > most {
            wrong.push(format!("{}: {lines} lines, {most} at most", path.display()));
        }
        if !text.starts_with("//! ") {
            wrong.push(format!("{}: it does not open with `//!`", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
