//! A value of the configuration: a scalar, list or mapping, with its place and where it comes from.

use super::shape::Provenance;
use super::source_text::Place;

/// A value with its place.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it is.
    pub kind: NodeKind,
    /// Where it stands.
    pub place: Place,
    /// Where it comes from.
    pub provenance: Provenance,
}

/// What a node is.
#[derive(Debug, Clone)]
pub enum NodeKind {
    /// A word, number or text.
    Scalar(Scalar),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the file.
    Map(Vec<Entry>),
    /// Something about which a problem was said already.
    Broken,
}

/// A word, number or text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scalar {
    /// The text.
    pub text: String,
    /// Whether it stood in quotes or in a block.
    pub quoted: bool,
    /// Whether a variable was filled in: then it may be a number, quotes or not.
    pub expanded: bool,
}

/// One key of a mapping.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub at: Place,
    /// Its value.
    pub value: Node,
}

impl Node {
    /// A text from the command line.
    pub fn flag(text: impl Into<String>, quoted: bool, place: Place) -> Self {
        Self {
            kind: NodeKind::Scalar(Scalar {
                text: text.into(),
                quoted,
                expanded: false,
            }),
            place,
            provenance: Provenance::Flag,
        }
    }

    /// Whether it is empty, `~` or `null`.
    pub fn is_null(&self) -> bool {
        matches!(&self.kind, NodeKind::Scalar(scalar) if !scalar.quoted && matches!(scalar.text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The text, of a scalar that is not null.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            NodeKind::Scalar(scalar) if !self.is_null() => Some(&scalar.text),
            _ => None,
        }
    }

    /// The elements of a list.
    pub fn items(&self) -> &[Node] {
        if let NodeKind::List(items) = &self.kind {
            items
        } else {
            &[]
        }
    }

    /// The keys of a mapping.
    pub fn entries(&self) -> &[Entry] {
        if let NodeKind::Map(entries) = &self.kind {
            entries
        } else {
            &[]
        }
    }

    /// A key of a mapping, unless its value is null.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries()
            .iter()
            .find(|entry| entry.key == key && !entry.value.is_null())
    }

    /// Where it comes from, all things inside considered: a flag says more than a variable, a
    /// variable more than the file.
    pub fn origin(&self) -> Provenance {
        let rank = |provenance: &Provenance| match provenance {
            Provenance::Flag => 2,
            Provenance::Environment(..) => 1,
            _ => 0,
        };
        let inside: Vec<&Node> = match &self.kind {
            NodeKind::List(items) => items.iter().collect(),
            NodeKind::Map(entries) => entries.iter().map(|entry| &entry.value).collect(),
            _ => Vec::new(),
        };
        inside
            .into_iter()
            .map(Node::origin)
            .fold(self.provenance.clone(), |best, other| {
                if rank(&other) > rank(&best) {
                    other
                } else {
                    best
                }
            })
    }

    /// What it is, in messages.
    pub fn describe(&self) -> String {
        match &self.kind {
            NodeKind::Scalar(_) if self.is_null() => "nothing".to_owned(),
            NodeKind::Scalar(scalar) if scalar.text.chars().count() > 60 => {
                format!("`{}...`", scalar.text.chars().take(57).collect::<String>())
            }
            NodeKind::Scalar(scalar) => format!("`{}`", scalar.text),
            NodeKind::List(_) => "a list".to_owned(),
            NodeKind::Map(_) => "a mapping".to_owned(),
            NodeKind::Broken => "something broken".to_owned(),
        }
    }
}
