//! Reads `stages:` into drafts: each with its kind, keys, inputs and parameters, and with the
//! defaults that depend on its neighbours.

use std::sync::Arc;
use std::time::Duration;

use super::EffectiveStage;
use super::links::Links;
use crate::config::{
    Entry, Node, NodeKind, Params, Place, Problems, Provenance, Reader, Type, Value,
};
use crate::pipeline::grammar::{INPUT, STAGE};
use crate::stage::{Role, StageKind};

/// A stage while it is checked.
pub(super) struct StageDraft<'a> {
    pub node: &'a Node,
    pub id: Arc<str>,
    /// Where its id stands.
    pub at: Place,
    /// None when its kind is unknown, which was said.
    pub kind: Option<&'static StageKind>,
    pub keys: Params,
    pub inputs: Vec<InputDraft>,
    pub with: Params,
    /// Whether `with` holds all that the kind's shape promises.
    pub sound: bool,
}

/// One of its inputs.
pub(super) struct InputDraft {
    pub from: String,
    pub view: Option<String>,
    pub at: Place,
    pub keys: Params,
    /// Whether its queue was read without a problem.
    pub sound: bool,
}

impl StageDraft<'_> {
    pub fn role(&self) -> Option<Role> {
        self.kind.map(StageKind::role)
    }

    pub fn written(self) -> Option<EffectiveStage> {
        let inputs = self.inputs.into_iter().map(|input| input.keys).collect();
        Some(EffectiveStage {
            kind: self.kind?,
            keys: self.keys,
            inputs,
            with: self.with,
        })
    }

    /// Where a key of the stage stands, or its id.
    pub fn place_of(&self, key: &str) -> Place {
        self.node.entry(key).map_or(self.at, |entry| entry.at)
    }
}

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

fn read_one<'a>(
    node: &'a Node,
    kinds: &[&'static StageKind],
    reader: &mut Reader<'_>,
) -> Option<StageDraft<'a>> {
    let mentioned = reader.stages.len();
    let keys = reader.object(node, node.place, STAGE);
    // What a join names is checked with its inputs.
    reader.stages.truncate(mentioned);
    let kind = keys.opt_text("kind").and_then(|word| {
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
    });
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
pub(super) fn well_formed(id: &str) -> bool {
    id.len() <= 64
        && id.starts_with(|c: char| c.is_ascii_alphabetic())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// Whether a key means anything for a role.
pub(crate) fn applies(key: &str, role: Role) -> bool {
    match key {
        "id" | "kind" | "with" => true,
        "inputs" | "timeout" | "retry" | "dead_letter" => role != Role::Source,
        "join" | "concurrency" => role == Role::Transform,
        _ => role == Role::Sink,
    }
}

/// Keys must fit the role.
pub(super) fn roles(drafts: &[StageDraft<'_>], problems: &mut Problems) {
    for draft in drafts {
        let (Some(role), Some(kind)) = (draft.role(), draft.kind) else {
            continue;
        };
        for entry in draft
            .node
            .entries()
            .iter()
            .filter(|entry| STAGE.iter().any(|field| field.name == entry.key))
        {
            if !applies(&entry.key, role) && !entry.value.is_null() {
                problems.add(
                    entry.at,
                    format!(
                        "`{}` is a {}, which takes no `{}`",
                        draft.id,
                        role.as_str(),
                        entry.key
                    ),
                );
            }
        }
        if role != Role::Source
            && draft.node.entry("inputs").is_none_or(
                |entry| matches!(&entry.value.kind, NodeKind::List(items) if items.is_empty()),
            )
        {
            problems
                .add(draft.at, format!("`{}` reads nothing", draft.id))
                .help("name a stage in `inputs`");
        }
        if kind.is_sequential()
            && draft
                .keys
                .opt_int("concurrency")
                .is_some_and(|packets| packets > 1)
        {
            let message = format!(
                "`{}` remembers packets, so it works on one at a time: `concurrency` must be 1",
                draft.id
            );
            problems.add(draft.place_of("concurrency"), message);
        }
    }
}

/// Fills in the defaults that depend on the kind and on what comes before.
pub(super) fn fill(drafts: &mut [StageDraft<'_>], links: &Links) {
    for (at, draft) in drafts.iter_mut().enumerate() {
        let Some(kind) = draft.kind else { continue };
        let concurrency = if kind.role() == Role::Transform && !kind.is_sequential() {
            8
        } else {
            1
        };
        default(&mut draft.keys, "concurrency", Value::Int(concurrency));
        default(
            &mut draft.keys,
            "required",
            Value::Bool(!matches!(kind.name, "redis" | "console")),
        );
        for (number, input) in draft.inputs.iter_mut().enumerate() {
            let Some(upstream) = links.upstream(at, number) else {
                continue;
            };
            let Some(setting) = input.keys.setting("queue") else {
                continue;
            };
            let (provenance, Some(mut queue)) = (
                setting.provenance.clone(),
                setting.value.as_object().cloned(),
            ) else {
                continue;
            };
            let live = links.live(upstream);
            default(
                &mut queue,
                "when_full",
                Value::Text(if live { "drop_oldest" } else { "block" }.into()),
            );
            if live && links.is_source(upstream) {
                default(
                    &mut queue,
                    "max_age",
                    Value::Duration(Duration::from_secs(5)),
                );
            }
            input.keys.insert("queue", Value::Object(queue), provenance);
        }
    }
}

/// Puts a value where none was given.
pub(super) fn default(params: &mut Params, key: &'static str, value: Value) {
    if params.setting(key).is_none() {
        params.insert(key, value, Provenance::Default);
    }
}
