//! Reads `stages:` into drafts: each with its kind, keys, inputs and parameters.

use std::sync::Arc;

use super::draft::{InputDraft, StageDraft};
use crate::config::{Entry, Node, NodeKind, Params, Provenance, Reader, Type};
use crate::pipeline::grammar::{INPUT, STAGE};
use crate::stage::{Role, StageKind};

/// Reads all stages; those without an id cannot be checked further.
pub(super) fn read<'a>(
    root: &'a Node,
    kinds: &[&'static StageKind],
    reader: &mut Reader<'_>,
) -> Vec<StageDraft<'a>> {
    let Some(entry) = root.entry("stages") else {
        return Vec::new();
    };
    match &entry.value.kind {
        NodeKind::List(stages) if !stages.is_empty() => {
            let drafts: Vec<StageDraft<'a>> = stages
                .iter()
                .filter_map(|node| read_one(node, kinds, reader))
                .collect();
            for (at, draft) in drafts.iter().enumerate() {
                if drafts[..at].iter().any(|other| other.id == draft.id) {
                    reader.problems.add(
                        draft.at,
                        format!("a second stage has the id `{}`", draft.id),
                    );
                }
            }
            drafts
        }
        _ => {
            let found = if entry.value.items().is_empty() {
                entry.value.describe()
            } else {
                "an empty list".to_owned()
            };
            let found = if matches!(entry.value.kind, NodeKind::List(_)) {
                "an empty list".to_owned()
            } else {
                found
            };
            reader.problems.add(
                entry.value.place,
                format!("`stages` takes a list of stages, not {found}"),
            );
            Vec::new()
        }
    }
}

/// The kind called `word`. A source and a sink may share a name: what reads something is the sink.
fn named(word: &str, reads: bool, kinds: &[&'static StageKind]) -> Option<&'static StageKind> {
    let mut called = kinds.iter().filter(|kind| kind.name == word).copied();
    let first = called.next()?;
    Some(
        std::iter::once(first)
            .chain(called)
            .find(|kind| reads != (kind.role() == Role::Source))
            .unwrap_or(first),
    )
}

/// The kind of a stage, by its word.
fn read_kind(
    word: &str,
    node: &Node,
    kinds: &[&'static StageKind],
    reader: &mut Reader<'_>,
) -> Option<&'static StageKind> {
    let found = named(word, node.entry("inputs").is_some(), kinds);
    if found.is_none() {
        let place = node
            .entry("kind")
            .map_or(node.place, |entry| entry.value.place);
        reader
            .problems
            .add(place, format!("unknown kind `{word}`"))
            .suggest(word, kinds.iter().map(|kind| kind.name));
    }
    found
}

fn read_one<'a>(
    node: &'a Node,
    kinds: &[&'static StageKind],
    reader: &mut Reader<'_>,
) -> Option<StageDraft<'a>> {
    let mentioned = reader.stages.len();
    let keys = reader.object(node, node.place, STAGE);
    // What a join names is checked with its inputs.
    reader.stages.truncate(mentioned);
    let kind = keys
        .opt_text("kind")
        .and_then(|word| read_kind(word, node, kinds, reader));
    let id = Arc::clone(keys.opt_text("id")?);
    let at = node
        .entry("id")
        .map_or(node.place, |entry| entry.value.place);
    if !well_formed(&id) {
        let help = "letters, digits, `-` and `_`, a letter first, at most 64";
        reader
            .problems
            .add(at, format!("`{id}` is no id for a stage"))
            .help(help);
    } else if *id == *"none" {
        reader
            .problems
            .add(at, "no stage can be called `none`")
            .help("`dead_letter: none` means that there is none");
    }
    let before = reader.faults();
    let mut with = Params::default();
    if let Some(kind) = kind {
        let (place, parameters) = match node.entries().iter().find(|entry| entry.key == "with") {
            Some(entry) => (entry.at, entry.value.clone()),
            None => (
                at,
                Node {
                    kind: NodeKind::Map(Vec::new()),
                    place: at,
                    provenance: Provenance::Default,
                },
            ),
        };
        with = reader.object(&parameters, place, kind.params);
        sources_exist(kind, &parameters, &with, reader);
    }
    let sound = kind.is_some() && reader.faults() == before;
    let inputs = read_inputs(node, reader);
    Some(StageDraft {
        node,
        id,
        at,
        kind,
        keys,
        inputs,
        with,
        sound,
    })
}

/// Paths of films that are neither patterns nor URLs must be there.
fn sources_exist(
    kind: &'static StageKind,
    parameters: &Node,
    with: &Params,
    reader: &mut Reader<'_>,
) {
    let names_paths = kind
        .params
        .iter()
        .any(|field| field.name == "paths" && matches!(field.ty, Type::List(Type::Text)));
    if kind.role() != Role::Source || !names_paths || with.opt_list("paths").is_none() {
        return;
    }
    let Some(entry) = parameters.entry("paths") else {
        return;
    };
    let single = std::slice::from_ref(&entry.value);
    let items = if matches!(entry.value.kind, NodeKind::List(_)) {
        entry.value.items()
    } else {
        single
    };
    if items.is_empty() {
        reader
            .problems
            .add(entry.value.place, "`paths` names no film");
    }
    for item in items {
        let Some(path) = item.text() else { continue };
        if path.contains("://")
            || path.contains(['*', '?', '['])
            || std::path::Path::new(path).exists()
        {
            continue;
        }
        let help = if std::path::Path::new(path).is_absolute() {
            ""
        } else {
            "relative paths start at the current directory"
        };
        let problem = reader
            .problems
            .add(item.place, format!("there is no file `{path}`"));
        if !help.is_empty() {
            problem.help(help);
        }
    }
}

fn read_inputs(node: &Node, reader: &mut Reader<'_>) -> Vec<InputDraft> {
    let Some(entry) = node.entry("inputs") else {
        return Vec::new();
    };
    match &entry.value.kind {
        NodeKind::List(items) => items
            .iter()
            .filter_map(|item| read_input(item, reader))
            .collect(),
        _ => read_input(&entry.value, reader).into_iter().collect(),
    }
}

fn read_input(node: &Node, reader: &mut Reader<'_>) -> Option<InputDraft> {
    let before = reader.faults();
    let keys = match &node.kind {
        NodeKind::Scalar(_) if !node.is_null() => {
            let from = Entry {
                key: "from".to_owned(),
                at: node.place,
                value: node.clone(),
            };
            let provenance = node.provenance.clone();
            reader.object(
                &Node {
                    kind: NodeKind::Map(vec![from]),
                    place: node.place,
                    provenance,
                },
                node.place,
                INPUT,
            )
        }
        NodeKind::Map(_) => reader.object(node, node.place, INPUT),
        NodeKind::Broken => return None,
        _ => {
            reader.problems.add(
                node.place,
                format!(
                    "an input is `STAGE`, `SOURCE.VIEW` or a mapping, not {}",
                    node.describe()
                ),
            );
            return None;
        }
    };
    let text = keys.opt_text("from")?.to_string();
    let at = node
        .entry("from")
        .map_or(node.place, |entry| entry.value.place);
    let (from, view) = text
        .split_once('.')
        .map_or((text.as_str(), None), |(from, view)| {
            (from, Some(view.to_owned()))
        });
    Some(InputDraft {
        from: from.to_owned(),
        view,
        at,
        keys,
        sound: reader.faults() == before,
    })
}

/// Whether a text may be the id of a stage.
fn well_formed(id: &str) -> bool {
    id.len() <= 64
        && id.starts_with(|c: char| c.is_ascii_alphabetic())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}
