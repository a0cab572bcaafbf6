//! Flags that change the tree: `--set stages.captions.with.prompt=...`. Elements of lists are named
//! by their `id` or their number from 0.

use super::node::{Entry, Node, NodeKind};
use super::problem::Problems;
use super::source_text::{Place, SourceText};
use super::tree::parse;

/// Applies one `PATH=VALUE`. A value that begins with a bracket, brace or quote is read as YAML,
/// any other is taken as it stands. What the path names may be missing (the shapes say later
/// whether it may be there), but the elements of lists must exist.
pub fn set(root: &mut Node, assignment: &str, problems: &mut Problems) {
    let number = problems.add_source(SourceText::new("--set", assignment));
    let whole = Place {
        source: number,
        start: 0,
        end: assignment.len(),
    };
    let Some((path, value)) = split(assignment) else {
        problems
            .add(whole, "`--set` takes PATH=VALUE")
            .help("for example `--set stages.captions.with.prompt=...`");
        return;
    };
    let parts: Vec<(String, Place)> = path
        .into_iter()
        .map(|(part, start, end)| {
            (
                part,
                Place {
                    source: number,
                    start,
                    end,
                },
            )
        })
        .collect();
    if parts.iter().any(|(part, _)| part.is_empty()) {
        problems.add(whole, "a part of the path is empty");
        return;
    }
    let node = flag_value(assignment, value, number, problems);
    put(root, &parts, node, problems);
}

/// The path's parts with their places, and where the value begins.
#[allow(clippy::type_complexity)]
fn split(assignment: &str) -> Option<(Vec<(String, usize, usize)>, usize)> {
    let (mut parts, mut part, mut start, mut quoted) = (Vec::new(), String::new(), 0, false);
    for (at, c) in assignment.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '.' | '=' if !quoted => {
                parts.push((std::mem::take(&mut part), start, at));
                start = at + 1;
                if c == '=' {
                    return Some((parts, start));
                }
            }
            _ => part.push(c),
        }
    }
    None
}

fn flag_value(assignment: &str, start: usize, number: usize, problems: &mut Problems) -> Node {
    let text = &assignment[start..];
    let place = Place {
        source: number,
        start,
        end: assignment.len(),
    };
    if text.starts_with(['[', '{', '"', '\'']) {
        let mut trial = problems.clone();
        let before = trial.len();
        if let Some(mut node) = parse(&mut trial, number, start)
            && trial.len() == before
        {
            mark(&mut node);
            return node;
        }
    }
    Node::flag(text, false, place)
}

fn mark(node: &mut Node) {
    node.provenance = super::shape::Provenance::Flag;
    match &mut node.kind {
        NodeKind::List(items) => items.iter_mut().for_each(mark),
        NodeKind::Map(entries) => entries.iter_mut().for_each(|entry| mark(&mut entry.value)),
        _ => {}
    }
}

/// Puts `value` under `path`, making mappings on the way.
pub fn put(node: &mut Node, path: &[(String, Place)], value: Node, problems: &mut Problems) {
    let Some(((part, at), rest)) = path.split_first() else {
        *node = value;
        return;
    };
    if node.is_null() {
        *node = Node {
            kind: NodeKind::Map(Vec::new()),
            place: *at,
            provenance: value.provenance.clone(),
        };
    }
    match &mut node.kind {
        NodeKind::Map(entries) => {
            let found = match entries.iter().position(|entry| entry.key == *part) {
                Some(found) => found,
                None => {
                    let empty = Node::flag("", false, *at);
                    entries.push(Entry {
                        key: part.clone(),
                        at: *at,
                        value: empty,
                    });
                    entries.len() - 1
                }
            };
            put(&mut entries[found].value, rest, value, problems);
        }
        NodeKind::List(items) => {
            let id = |item: &Node| {
                item.entry("id")
                    .and_then(|entry| entry.value.text().map(str::to_owned))
            };
            let ids: Vec<Option<String>> = items.iter().map(id).collect();
            let named = ids
                .iter()
                .position(|id| id.as_ref() == Some(part))
                .or_else(|| part.parse().ok().filter(|at| *at < items.len()));
            match named {
                Some(found) => put(&mut items[found], rest, value, problems),
                None => {
                    problems
                        .add(*at, format!("nothing here has the id `{part}`"))
                        .suggest(part, ids.iter().flatten().map(String::as_str));
                }
            }
        }
        NodeKind::Scalar(_) => {
            problems.add(
                *at,
                format!("`{part}` cannot be set inside {}", node.describe()),
            );
        }
        NodeKind::Broken => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::shape::Provenance;

    const FILE: &str = "name: x\nstages:\n  - id: captions\n    with: { prompt: a }\n  - id: \
                        shots\n    kind: shots\n";

    fn after(assignment: &str) -> (Node, Vec<String>) {
        let mut problems = Problems::new(&SourceText::new("x", FILE));
        let mut node = parse(&mut problems, 0, 0).unwrap();
        set(&mut node, assignment, &mut problems);
        (node, problems.lines())
    }

    fn stage(node: &Node, index: usize) -> &Node {
        &node.entry("stages").unwrap().value.items()[index]
    }

    #[test]
    fn values_are_set_by_the_ids_of_list_elements() {
        let (node, problems) = after("stages.captions.with.prompt=Write: {tags} #1");
        assert!(problems.is_empty());
        let prompt = &stage(&node, 0)
            .entry("with")
            .unwrap()
            .value
            .entry("prompt")
            .unwrap()
            .value;
        assert_eq!(
            (prompt.text(), &prompt.provenance),
            (Some("Write: {tags} #1"), &Provenance::Flag)
        );
        let (node, _) = after("stages.1.with.max_length=3s");
        assert_eq!(
            stage(&node, 1)
                .entry("with")
                .unwrap()
                .value
                .entry("max_length")
                .unwrap()
                .value
                .text(),
            Some("3s")
        );
        let (node, _) = after("kafka.properties.\"security.protocol\"=SSL");
        let properties = &node
            .entry("kafka")
            .unwrap()
            .value
            .entry("properties")
            .unwrap()
            .value;
        assert_eq!(
            properties.entry("security.protocol").unwrap().value.text(),
            Some("SSL")
        );
    }

    #[test]
    fn lists_and_mappings_are_read_as_yaml_where_they_are() {
        let (node, _) = after("stages.shots.inputs=[a, {from: b}]");
        let inputs = &stage(&node, 1).entry("inputs").unwrap().value;
        assert_eq!(
            inputs.items()[1].entry("from").unwrap().value.text(),
            Some("b")
        );
        assert_eq!(inputs.origin(), Provenance::Flag);
        let (node, problems) = after("name={tags} first");
        assert_eq!(
            (node.entry("name").unwrap().value.text(), problems.len()),
            (Some("{tags} first"), 0)
        );
    }

    #[test]
    fn paths_that_lead_nowhere_are_named() {
        let complaint = |assignment: &str| after(assignment).1.join("\n");
        assert_eq!(
            complaint("stages.captoins.with.prompt=x"),
            "--set:1:8: nothing here has the id `captoins` (did you mean `captions`?)"
        );
        assert_eq!(
            complaint("name.first=x"),
            "--set:1:6: `first` cannot be set inside `x`"
        );
        assert!(complaint("name").starts_with("--set:1:1: `--set` takes PATH=VALUE"));
        assert_eq!(
            complaint("a..b=1"),
            "--set:1:1: a part of the path is empty"
        );
    }
}
