//! YAML 1.2 text to a tree with a place at every node. Anchors are followed within bounds; what a
//! pipeline never needs (tags, several documents, keys that are not text) is refused with a reason.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

use super::node::{Entry, Node, NodeKind, Scalar};
use super::problem::Problems;
use super::shape::Provenance;
use super::source_text::Place;

/// Aliases may repeat nodes, up to this many in all.
const MAX_NODES: usize = 50_000;
/// Mappings and lists inside one another.
const MAX_DEPTH: usize = 32;

/// Parses the text of `problems`' source `number` from byte `base` on. None after an error of
/// syntax, or when there is nothing.
pub fn parse(problems: &mut Problems, number: usize, base: usize) -> Option<Node> {
    let source = problems.sources()[number].clone();
    let text = &source.text()[base..];
    let lines = text.match_indices('\n').map(|(at, _)| at + 1).collect();
    let characters = (!text.is_ascii()).then(|| text.char_indices().map(|(at, _)| at).collect());
    let mut builder = Builder {
        problems,
        number,
        base,
        text,
        lines,
        characters,
        stack: Vec::new(),
        anchors: HashMap::new(),
        nodes: 0,
        root: None,
    };
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => {
                builder.syntax(*error.marker(), error.info());
                return None;
            }
        };
        let place = builder.place(span.start, span.end);
        builder.take(event, place)?;
    }
    builder.root
}

struct Builder<'a> {
    problems: &'a mut Problems,
    number: usize,
    base: usize,
    text: &'a str,
    /// Where each line after the first begins.
    lines: Vec<usize>,
    /// Where each character begins, unless each is one byte.
    characters: Option<Vec<usize>>,
    stack: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    root: Option<Node>,
}

struct Open {
    place: Place,
    anchor: usize,
    nodes: usize,
    inside: Inside,
}

enum Inside {
    List(Vec<Node>),
    Map(Vec<Entry>, Option<(String, Place)>),
}

impl Builder<'_> {
    fn offset(&self, marker: Marker) -> usize {
        let at = self
            .characters
            .as_ref()
            .map_or(Some(marker.index()), |starts| {
                starts.get(marker.index()).copied()
            });
        at.unwrap_or(self.text.len()).min(self.text.len())
    }

    fn place(&self, start: Marker, end: Marker) -> Place {
        let (start, end) = (self.offset(start), self.offset(end));
        let inside = self
            .text
            .get(start..end)
            .map_or(0, |text| text.trim_end().len());
        Place {
            source: self.number,
            start: self.base + start,
            end: self.base + start + inside,
        }
    }

    fn syntax(&mut self, marker: Marker, info: &str) {
        let at = self.offset(marker);
        let line_start = self.text[..at].rfind('\n').map_or(0, |at| at + 1);
        let line = self.text[line_start..].lines().next().unwrap_or_default();
        let end = at
            + self.text[at..]
                .chars()
                .next()
                .filter(|c| *c != '\n')
                .map_or(0, char::len_utf8);
        let help = if line.contains("${") && !line.contains("\"${") {
            Some("put a text with `${...}` into quotes")
        } else if info.contains("tab") || line.starts_with('\t') {
            Some("indent with spaces")
        } else if info.contains("mapping values are not allowed") {
            Some("put a text that contains `: ` into quotes")
        } else {
            None
        };
        let place = Place {
            source: self.number,
            start: self.base + at,
            end: self.base + end,
        };
        let problem = self
            .problems
            .add(place, format!("not YAML: {}", info.to_lowercase()));
        if let Some(help) = help {
            problem.help(help);
        }
    }

    /// None when there is no use in going on.
    fn take(&mut self, event: Event<'_>, place: Place) -> Option<()> {
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                self.problems
                    .add(place, "a second document begins here")
                    .help("a pipeline file holds one document");
                return None;
            }
            Event::Scalar(text, style, anchor, tag) => {
                if tag.is_some() {
                    self.problems
                        .add(place, "tags are not supported")
                        .help("put a text into quotes to keep it text");
                }
                let scalar = Scalar {
                    text: text.into_owned(),
                    quoted: style != ScalarStyle::Plain,
                    expanded: false,
                };
                self.nodes += 1;
                let node = self.node(NodeKind::Scalar(scalar), place);
                self.put(node, anchor, 1)?;
            }
            Event::SequenceStart(anchor, tag) => {
                self.open(place, anchor, tag.is_some(), Inside::List(Vec::new()))?
            }
            Event::MappingStart(anchor, tag) => {
                self.open(place, anchor, tag.is_some(), Inside::Map(Vec::new(), None))?
            }
            Event::SequenceEnd | Event::MappingEnd => self.close()?,
            Event::Alias(anchor) => {
                let Some((node, count)) = self.anchors.get(&anchor).cloned() else {
                    self.problems
                        .add(place, "an alias cannot stand inside what it repeats");
                    return None;
                };
                self.nodes += count;
                self.put(node, 0, count)?;
            }
            _ => {}
        }
        if self.nodes > MAX_NODES {
            self.problems.add(
                place,
                format!("more than {MAX_NODES} values, aliases written out"),
            );
            return None;
        }
        Some(())
    }

    fn node(&self, kind: NodeKind, place: Place) -> Node {
        let line = self
            .lines
            .partition_point(|start| self.base + start <= place.start)
            + 1;
        Node {
            kind,
            place,
            provenance: Provenance::File(line),
        }
    }

    fn open(&mut self, place: Place, anchor: usize, tagged: bool, inside: Inside) -> Option<()> {
        if tagged {
            self.problems.add(place, "tags are not supported");
        }
        if self.stack.len() == MAX_DEPTH {
            self.problems.add(
                place,
                format!("more than {MAX_DEPTH} mappings and lists inside one another"),
            );
            return None;
        }
        self.nodes += 1;
        self.stack.push(Open {
            place,
            anchor,
            nodes: self.nodes - 1,
            inside,
        });
        Some(())
    }

    fn close(&mut self) -> Option<()> {
        let open = self.stack.pop()?;
        let (first, kind) = match open.inside {
            Inside::List(items) => (items.first().map(|item| item.place), NodeKind::List(items)),
            Inside::Map(entries, _) => (
                entries.first().map(|entry| entry.at),
                NodeKind::Map(entries),
            ),
        };
        // What is written in a block has no bracket to point at: its first key or element stands
        // for it.
        let place = first
            .filter(|_| open.place.end == open.place.start)
            .unwrap_or(open.place);
        let node = self.node(kind, place);
        let count = self.nodes - open.nodes;
        self.put(node, open.anchor, count)
    }

    fn put(&mut self, node: Node, anchor: usize, count: usize) -> Option<()> {
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), count));
        }
        let Some(open) = self.stack.last_mut() else {
            self.root = Some(node);
            return Some(());
        };
        match &mut open.inside {
            Inside::List(items) => items.push(node),
            Inside::Map(entries, key) => match key.take() {
                Some((key, at)) => {
                    if let Some(first) = entries.iter().find(|entry| entry.key == key) {
                        let line = self.problems.line(first.at);
                        self.problems
                            .add(at, format!("`{key}` stands here a second time"))
                            .help(format!("the first is on line {line}"));
                    } else {
                        entries.push(Entry {
                            key,
                            at,
                            value: node,
                        });
                    }
                }
                None => match node.kind {
                    NodeKind::Scalar(scalar) => *key = Some((scalar.text, node.place)),
                    _ => {
                        self.problems.add(node.place, "a key must be text");
                        return None;
                    }
                },
            },
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::source_text::SourceText;

    fn tree(text: &str) -> (Option<Node>, Vec<String>) {
        let mut problems = Problems::new(&SourceText::new("x", text));
        let node = parse(&mut problems, 0, 0);
        (node, problems.lines())
    }

    fn complaint(text: &str) -> String {
        tree(text).1.join("\n")
    }

    #[test]
    fn every_node_has_its_place() {
        let text = "ä: 1\nlist:\n  - x\n  - { k: \"v w\" }\nlong: |\n  a\n  b\n";
        let (node, problems) = tree(text);
        let node = node.unwrap();
        assert!(problems.is_empty());
        let list = node.entry("list").unwrap();
        let slice = |place: Place| &text[place.start..place.end];
        assert_eq!(
            (slice(list.at), slice(list.value.items()[0].place)),
            ("list", "x")
        );
        let inner = list.value.items()[1].entry("k").unwrap();
        assert_eq!(
            (slice(inner.at), slice(inner.value.place)),
            ("k", "\"v w\"")
        );
        assert_eq!(inner.value.provenance, Provenance::File(4));
        assert_eq!(node.entry("long").unwrap().value.text(), Some("a\nb\n"));
        assert_eq!(slice(node.entry("ä").unwrap().value.place), "1");
    }

    #[test]
    fn what_is_not_supported_is_refused_at_its_place() {
        assert_eq!(
            complaint("a: 1\nb: 2\na: 3\n"),
            "x:3:1: `a` stands here a second time (the first is on line 1)"
        );
        assert_eq!(
            complaint("a: !!str 1\n"),
            "x:1:4: tags are not supported (put a text into quotes to keep it text)"
        );
        assert_eq!(complaint("? [1, 2]\n: 3\n"), "x:1:3: a key must be text");
        assert_eq!(
            complaint("a: 1\n---\nb: 2\n"),
            "x:2:1: a second document begins here (a pipeline file holds one document)"
        );
        assert!(
            complaint("a: b: c\n").ends_with("(put a text that contains `: ` into quotes)"),
            "{}",
            complaint("a: b: c\n")
        );
        assert!(
            complaint("a:\n\tb: 1\n").contains("(indent with spaces)"),
            "{}",
            complaint("a:\n\tb: 1\n")
        );
        assert!(
            complaint("a: { b: ${X} }\n").ends_with("(put a text with `${...}` into quotes)"),
            "{}",
            complaint("a: { b: ${X} }\n")
        );
        assert!(complaint("a: [1, 2\n").starts_with("x:"));
        assert!(tree("# nothing\n").0.is_none());
    }

    #[test]
    fn aliases_repeat_but_do_not_explode() {
        let (node, problems) = tree("a: &q { frames: 1 }\nb: *q\n");
        assert_eq!(
            node.unwrap()
                .entry("b")
                .unwrap()
                .value
                .entry("frames")
                .unwrap()
                .value
                .text(),
            Some("1")
        );
        assert!(problems.is_empty());
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let before = format!("*a{}", level - 1);
            bomb.push_str(&format!(
                "a{level}: &a{level} [{}]\n",
                vec![before; 10].join(", ")
            ));
        }
        assert!(complaint(&bomb).contains("more than 50000 values"));
        assert_eq!(
            complaint("a: &x [*x]\n"),
            "x:1:8: an alias cannot stand inside what it repeats"
        );
        assert!(
            complaint(&format!("{}{}", "[".repeat(40), "]".repeat(40))).contains("more than 32")
        );
        assert!(complaint(&"[".repeat(5000)).contains("not YAML"));
    }
}
