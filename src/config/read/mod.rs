//! Checks a node against a shape: every problem is said, defaults are filled in by the same code,
//! and what was read carries its origin.

mod scalar;

use std::sync::Arc;

use self::scalar::{Refusal, help, scalar_value};
use super::node::{Node, NodeKind, Scalar};
use super::problem::Problems;
use super::shape::{Default, Field, Params, Provenance, Secret, Type, Value};
use super::source_text::{Place, SourceText};
use super::tree::parse;

/// A name that a value must resolve to something.
#[derive(Debug, Clone, PartialEq)]
pub struct NameRef {
    /// The name.
    pub name: Arc<str>,
    /// For models: the architectures that fit; empty for any.
    pub architectures: &'static [&'static str],
    /// For models: the key that only these architectures know, where it is not the model's own.
    pub key: Option<&'static str>,
    /// Where it stands.
    pub place: Place,
}

/// Reads nodes by their shapes.
#[derive(Debug)]
pub struct Reader<'a> {
    /// Where problems go.
    pub problems: &'a mut Problems,
    /// Every value of [`Type::Model`] that was read.
    pub models: Vec<NameRef>,
    /// Every value of [`Type::Stage`] that was read.
    pub stages: Vec<NameRef>,
    lost: usize,
}

impl<'a> Reader<'a> {
    /// A reader that says its problems to `problems`.
    pub fn new(problems: &'a mut Problems) -> Self {
        Self {
            problems,
            models: Vec::new(),
            stages: Vec::new(),
            lost: 0,
        }
    }

    /// Grows with every problem said and every value left out: what was read between two equal
    /// counts holds all that its shape promises.
    pub fn faults(&self) -> usize {
        self.problems.len() + self.lost
    }

    /// Reads a mapping. Keys with problems are left out of what is returned; `at` is where missing
    /// keys are said.
    pub fn object(&mut self, node: &Node, at: Place, fields: &'static [Field]) -> Params {
        let mut params = Params::default();
        if matches!(node.kind, NodeKind::Broken) {
            self.lost += 1;
            return params;
        }
        if !matches!(node.kind, NodeKind::Map(_)) && !node.is_null() {
            let keys = names(fields).collect::<Vec<_>>().join(", ");
            self.problems.add(
                node.place,
                format!(
                    "a mapping with the keys {keys} stands here, not {}",
                    node.describe()
                ),
            );
            return params;
        }
        self.unknown_keys(node, fields);
        for field in fields {
            match (node.entry(field.name), &field.default) {
                (Some(entry), _) => {
                    if let Some(value) = self.value(&entry.value, &field.ty, field.name) {
                        params.insert(field.name, value, entry.value.origin());
                    } else if !matches!(field.ty, Type::Unchecked) {
                        self.lost += 1;
                    }
                }
                (None, Default::Required) => self.missing(node, at, field),
                (None, Default::Absent) => {}
                (None, Default::Is(text)) => {
                    params.insert(field.name, default(field, text), Provenance::Default);
                }
            }
        }
        self.fitting(node, fields, &params);
        params
    }

    fn unknown_keys(&mut self, node: &Node, fields: &'static [Field]) {
        for entry in node.entries() {
            if fields.iter().any(|field| field.name == entry.key) {
                continue;
            }
            let problem = self
                .problems
                .add(entry.at, format!("unknown key `{}`", entry.key));
            if entry.key == "<<" {
                problem
                    .help("merge keys are not part of YAML 1.2: repeat a whole value with `*name`");
            } else {
                problem.suggest(&entry.key, names(fields));
            }
        }
    }

    /// A required key is not there, or its value is null, at whose place it is then said.
    fn missing(&mut self, node: &Node, at: Place, field: &Field) {
        let entries = node.entries();
        let empty = entries.iter().find(|entry| entry.key == field.name);
        self.problems
            .add(
                empty.map_or(at, |entry| entry.at),
                format!("`{}` is missing", field.name),
            )
            .label(field.doc);
    }

    /// Keys that not every model knows mention the model beside them.
    fn fitting(&mut self, node: &Node, fields: &'static [Field], params: &Params) {
        for field in fields {
            let (Type::ModelSpecific(architectures, _), Some(entry)) =
                (&field.ty, node.entry(field.name))
            else {
                continue;
            };
            if params.setting(field.name).is_some()
                && let Some(Value::Text(name)) =
                    params.setting("model").map(|setting| &setting.value)
            {
                self.models.push(NameRef {
                    name: Arc::clone(name),
                    architectures,
                    key: Some(field.name),
                    place: entry.at,
                });
            }
        }
    }

    /// Reads one value; `name` is its key, for messages. None when it has a problem, or is no value
    /// of its own.
    pub fn value(&mut self, node: &Node, ty: &'static Type, name: &str) -> Option<Value> {
        match (ty, &node.kind) {
            (Type::Unchecked, _) | (_, NodeKind::Broken) => None,
            (Type::ModelSpecific(_, inner), _) => self.value(node, inner, name),
            (Type::Object(fields), _) => {
                let before = self.faults();
                let params = self.object(node, node.place, fields);
                (self.faults() == before).then_some(Value::Object(params))
            }
            (Type::Map(inner), NodeKind::Map(entries)) => {
                let read = entries.iter().map(|entry| {
                    Some((
                        entry.key.clone(),
                        self.value(&entry.value, inner, &entry.key)?,
                    ))
                });
                read.collect::<Vec<_>>()
                    .into_iter()
                    .collect::<Option<_>>()
                    .map(Value::Map)
            }
            (Type::List(inner), NodeKind::List(items)) => {
                let read: Vec<_> = items
                    .iter()
                    .map(|item| self.value(item, inner, name))
                    .collect();
                read.into_iter().collect::<Option<_>>().map(Value::List)
            }
            (Type::List(inner), _) => Some(Value::List(vec![self.value(node, inner, name)?])),
            (Type::Secret, _) => self.secret(node, name),
            (_, NodeKind::Scalar(scalar)) if !node.is_null() => self.scalar(node, scalar, ty, name),
            _ => {
                self.problems.add(
                    node.place,
                    format!("`{name}` takes {}, not {}", ty.describe(), node.describe()),
                );
                None
            }
        }
    }

    fn scalar(
        &mut self,
        node: &Node,
        scalar: &Scalar,
        ty: &'static Type,
        name: &str,
    ) -> Option<Value> {
        match scalar_value(scalar, ty) {
            Ok(value) => {
                if let Value::Text(text) = &value {
                    let mention = |architectures| NameRef {
                        name: Arc::clone(text),
                        architectures,
                        key: None,
                        place: node.place,
                    };
                    match ty {
                        Type::Model(architectures) => self.models.push(mention(architectures)),
                        Type::Stage => self.stages.push(mention(&[])),
                        _ => {}
                    }
                }
                Some(value)
            }
            Err(refusal) => {
                let found = node.describe();
                let problem = match &refusal {
                    Refusal::Type => self.problems.add(
                        node.place,
                        format!("`{name}` takes {}, not {found}", ty.describe()),
                    ),
                    Refusal::Quotes => {
                        let message =
                            format!("`{name}` takes {}, not the text {found}", ty.describe());
                        self.problems
                            .add(node.place, message)
                            .help("take the quotes away")
                    }
                    Refusal::Bounds(bounds) => self.problems.add(
                        node.place,
                        format!("`{name}` must be {bounds}, not {found}"),
                    ),
                    Refusal::Unit => self.problems.add(
                        node.place,
                        format!("`{name}` needs a unit, not {found} alone"),
                    ),
                };
                help(problem, &refusal, scalar, ty);
                None
            }
        }
    }

    fn secret(&mut self, node: &Node, name: &str) -> Option<Value> {
        if node.entries().is_empty() {
            let Some(text) = node.text() else {
                self.problems.add(
                    node.place,
                    format!(
                        "`{name}` takes {}, not {}",
                        Type::Secret.describe(),
                        node.describe()
                    ),
                );
                return None;
            };
            self.problems.hide(node.place);
            return Some(Value::Secret(Secret::new(text)));
        }
        let params = self.object(node, node.place, SECRET);
        let path = params.opt_text("file")?;
        match std::fs::read_to_string(&**path) {
            Ok(text) => Some(Value::Secret(Secret::new(
                text.strip_suffix('\n')
                    .map_or(&*text, |text| text.strip_suffix('\r').unwrap_or(text)),
            ))),
            Err(error) => {
                let place = node
                    .entry("file")
                    .map_or(node.place, |entry| entry.value.place);
                self.problems
                    .add(
                        place,
                        format!("cannot read the file of the secret `{name}`"),
                    )
                    .help(error.to_string().to_lowercase());
                None
            }
        }
    }
}

pub(super) const SECRET: &[Field] = &[Field {
    name: "file",
    ty: Type::Text,
    default: Default::Required,
    doc: "A file that holds the secret; one newline at its end is not part of it.",
}];

fn names(fields: &'static [Field]) -> impl Iterator<Item = &'static str> {
    fields.iter().map(|field| field.name)
}

fn default(field: &'static Field, text: &'static str) -> Value {
    let mut problems = Problems::new(&SourceText::new(
        field.name,
        if text.is_empty() { "\"\"" } else { text },
    ));
    let node = parse(&mut problems, 0, 0);
    let value =
        node.and_then(|node| Reader::new(&mut problems).value(&node, &field.ty, field.name));
    value.unwrap_or_else(|| panic!("the default of a field does not fit its own shape: {problems}"))
}

#[cfg(test)]
mod tests;
