//! The house's laws over its own source, as docs/architecture.md says them: imports point down
//! only, no circles within a room, files stay small and say what they are for, one word a thing.

mod circles;
mod imports;
mod source;

use circles::circles;
use imports::names;
use source::{File, files, is_test};

/// Rooms, from the ground up, and what each may import. `stages` and above may also import every
/// room of `LOW`.
const ROOMS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("redact", &[]),
    ("packet", &["error"]),
    ("config", &["error"]),
    ("telemetry", &["error"]),
    ("tensor", &["error", "packet"]),
    ("codec", &["error", "redact", "packet"]),
    ("media", &["error", "redact", "packet", "telemetry"]),
    ("broker", &["error", "redact", "telemetry", "codec"]),
    ("cache", &["error", "redact", "telemetry"]),
    ("models", &["error", "tensor"]),
    (
        "inference",
        &["models", "tensor", "telemetry", "error", "packet"],
    ),
    ("stage", LOW),
    ("stages", &["stage"]),
    ("pipeline", &["stages", "stage"]),
    ("cli", &["pipeline", "stages", "stage"]),
];

/// Floors 0 to 3.
const LOW: &[&str] = &[
    "error",
    "redact",
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
const SHORT: usize = 420;
const NETWORK: usize = 600;
const TESTS: usize = 600;

/// Words that strangers stumbled over, where the field has one of its own: they stay away from the
/// names of types, functions, files and modules.
const UNWANTED: &[(&str, &str)] = &[
    ("anew", "again"),
    ("Asker", "Requester"),
    ("Burst", "OutputBuffer"),
    ("Fate", "DropPolicy"),
    ("GULP", "MAX_READ_BATCH"),
    ("Given", "InputData"),
    ("Helper", "what it does"),
    ("InHand", "InFlight"),
    ("Intake", "SourceSetup, IngestState"),
    ("Look", "ReportStyle"),
    ("Manager", "what it does"),
    ("Outlet", "Output"),
    ("Taken", "PendingInput"),
    ("Teller", "MetricsReporter"),
    ("Told", "Reported"),
    ("Utils", "what it does"),
    ("Way", "PumpContext"),
    ("bury", "send_dead_letter"),
    ("patiently", "retry_until_stopped"),
    ("put_down", "unload"),
    ("utils", "what it does"),
];

/// Fails with what is wrong, a line each.
fn check(wrong: &[String]) {
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn upward(file: &File) -> Vec<String> {
    let Some(room) = file.room() else {
        return Vec::new();
    };
    let path = file.path.display();
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![format!("{path}: `{room}` is not a room of the house")];
    };
    let low = matches!(&*room, "stages" | "pipeline" | "cli");
    let known = |name: &str| ROOMS.iter().any(|(room, _)| *room == name);
    let fine = |name: &str| {
        name == room || !known(name) || allowed.contains(&name) || (low && LOW.contains(&name))
    };
    let names = names(file);
    let imports = names.imports.iter().map(|import| &import.path);
    imports
        .chain(&names.inline)
        .filter_map(|path| path.first())
        .filter(|name| !fine(name))
        .map(|name| format!("{path}: `{room}` imports `{name}`"))
        .collect()
}

/// Sibling stages: a file of `stages/sources`, `stages/transforms` or `stages/sinks` may not name
/// another stage's module. Modules that hold a `StageKind` are stages; what several stages share
/// holds none.
fn siblings(files: &[File]) -> Vec<String> {
    let stages: Vec<_> = files
        .iter()
        .filter(|file| file.path.starts_with("stages") && file.code.contains("StageKind {"))
        .map(File::module)
        .collect();
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| file.path.starts_with("stages")) {
        let module = file.module();
        let Some(own) = stages.iter().find(|stage| module.starts_with(stage)) else {
            continue;
        };
        let names = names(file);
        let named = names.imports.iter().map(|import| &import.path);
        for path in named.chain(&names.inline) {
            let sibling = stages
                .iter()
                .find(|stage| *stage != own && path.starts_with(stage));
            if let Some(sibling) = sibling {
                let (path, sibling) = (file.path.display(), sibling.join("::"));
                wrong.push(format!("{path}: a stage imports its sibling `{sibling}`"));
            }
        }
    }
    wrong
}

#[test]
fn imports_point_down_only() {
    check(&files().iter().flat_map(upward).collect::<Vec<_>>());
}

#[test]
fn files_of_a_room_do_not_need_each_other_in_a_circle() {
    check(&circles(&files()));
}

#[test]
fn paths_begin_at_the_room_or_the_next_module() {
    let far = files().into_iter().filter(|file| {
        let code: String = file.code.split_whitespace().collect();
        code.contains("super::super")
    });
    let wrong: Vec<_> = far
        .map(|file| format!("{}: `super::super`", file.path.display()))
        .collect();
    check(&wrong);
}

#[test]
fn sibling_stages_do_not_know_each_other() {
    check(&siblings(&files()));
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    let files = files();
    let mut wrong = Vec::new();
    for file in &files {
        let path = file.path.display();
        let code = file.text.split("\n#[cfg(test)]\nmod tests {").next();
        let lines = code.unwrap_or_default().lines().count();
        let most = match file.module().first().map(String::as_str) {
            Some("main") => 20,
            _ if is_test(file, &files) => TESTS,
            Some("models") => NETWORK,
            _ => SHORT,
        };
        if lines > most {
            wrong.push(format!("{path}: {lines} lines, {most} at most"));
        }
        if !file.text.starts_with("//! ") {
            wrong.push(format!("{path}: it does not open with `//!`"));
        }
    }
    check(&wrong);
}

/// A module with others inside is a folder with a `mod.rs`; tests that do not fit into the file are
/// in a `tests.rs`, or a folder `tests`, within it.
#[test]
fn modules_lie_where_one_looks_for_them() {
    let files = files();
    let mut wrong = Vec::new();
    for file in &files {
        let path = &file.path;
        let folder = path.with_extension("");
        if files.iter().any(|other| other.path.starts_with(&folder)) {
            wrong.push(format!(
                "{}: it belongs into its folder, as mod.rs",
                path.display()
            ));
        }
        if path.to_string_lossy().ends_with("_tests.rs") {
            wrong.push(format!(
                "{}: it belongs into a folder, as tests.rs",
                path.display()
            ));
        }
        if !is_test(file, &files) && file.code.contains("#[path") {
            wrong.push(format!("{}: a module lies elsewhere", path.display()));
        }
    }
    check(&wrong);
}

#[test]
fn unwanted_words_do_not_come_back() {
    let mut wrong = Vec::new();
    for file in files() {
        let names = names(&file);
        let module = file.module();
        let words = names.items.iter().chain(&names.words).chain(&module);
        let words: std::collections::BTreeSet<_> = words.map(String::as_str).collect();
        for (word, better) in UNWANTED {
            if words.contains(word) {
                let path = file.path.display();
                wrong.push(format!("{path}: `{word}`, where we say {better}"));
            }
        }
    }
    check(&wrong);
}

#[test]
fn upward_imports_are_found_however_they_are_written() {
    let wrong = |path: &str, text: &str| upward(&File::new(path, text)).len();
    assert_eq!(wrong("packet/mod.rs", "use crate::stage::Sender;"), 1);
    assert_eq!(
        wrong(
            "packet/mod.rs",
            "fn f() { let x = crate::pipeline::run(); }"
        ),
        1
    );
    assert_eq!(
        wrong("packet/event.rs", "use super::super::stage::Sender;"),
        1
    );
    assert_eq!(
        wrong(
            "cache/mod.rs",
            "use crate::{\n    error::Error,\n    codec::{Record, stage},\n    Result,\n};"
        ),
        2
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
    assert_eq!(
        wrong(
            "packet/mod.rs",
            "let text = r#\"a \"crate::pipeline\" b\"#; let c = '\"'; let d = crate::stage::A;"
        ),
        1
    );
    assert_eq!(wrong("attic.rs", ""), 1);
}

#[test]
fn sibling_stages_are_found_however_they_are_written() {
    let kind = |import: &str| format!("{import} pub static A: StageKind = StageKind {{ }};");
    let wrong = |import: &str| {
        let files = [
            File::new("stages/transforms/a.rs", &kind(import)),
            File::new("stages/transforms/shots.rs", &kind("")),
        ];
        siblings(&files).len()
    };
    assert_eq!(wrong("use super::shots::Shots;"), 1);
    assert_eq!(wrong("use crate::stages::transforms::shots;"), 1);
    assert_eq!(wrong("use crate::stages::transforms::{encode, shots};"), 1);
    assert_eq!(wrong("fn f() { super::shots::f() }"), 1);
    assert_eq!(wrong("use super::shots_of_old::X;"), 0);
}

#[test]
fn circles_are_found_however_they_are_written() {
    let room = |files: &[(&str, &str)]| {
        let files: Vec<_> = files
            .iter()
            .map(|(path, text)| File::new(path, text))
            .collect();
        circles(&files)
    };
    let doorway = ("a/mod.rs", "mod b; mod c; pub use b::B; pub use c::C;");
    let (b, c) = ("pub struct B;", "pub struct C;");
    assert!(room(&[doorway, ("a/b.rs", b), ("a/c.rs", c)]).is_empty());
    let circle = vec!["a::b -> a::c -> a::b"];
    for (b, c) in [
        (
            "use super::c::C; pub struct B;",
            "use super::b::B; pub struct C;",
        ),
        ("use super::C; pub struct B;", "use super::B; pub struct C;"),
        (
            "use crate::a::{C}; pub struct B;",
            "use super::*; pub struct C(B);",
        ),
        ("pub struct B(super::C);", "pub struct C(crate::a::b::B);"),
        (
            "pub struct B; fn f() { use super::C; }",
            "pub struct C; type D = super::b::B;",
        ),
    ] {
        let found = room(&[doorway, ("a/b.rs", b), ("a/c.rs", c)]);
        // A glob takes what the doorway offers, one name at a time; the rest are seen as they are.
        if !c.contains('*') {
            assert_eq!(found, circle, "{b} {c}");
        }
    }
    let parent = ("a/mod.rs", "mod b; pub struct A(b::B);");
    assert_eq!(
        room(&[parent, ("a/b.rs", "use super::A; pub struct B;")]),
        ["a -> a::b -> a"]
    );
    let tests = "pub struct B; #[cfg(test)] mod tests { use super::super::c::C; }";
    assert!(
        room(&[
            doorway,
            ("a/b.rs", tests),
            ("a/c.rs", "use super::B; pub struct C;")
        ])
        .is_empty()
    );
}
