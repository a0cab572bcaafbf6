//! A pipeline file with every default filled in and where each value came from. Without its
//! comments it is what `config_hash` digests, so a file and its effective form have the same hash.

use super::checked::{Checked, EffectiveStage};
use super::grammar::{INPUT, STAGE, TOP, applies};
use crate::config::{Field, Params, Provenance, Setting, Type, Value, units};
use crate::redact::redact;
use crate::stage::StageKind;

/// The file that says in full what `checked` says. Secrets, and passwords inside URLs, are left
/// out.
pub fn effective(checked: &Checked) -> String {
    let lines = Lines::of(checked).0;
    let width = lines
        .iter()
        .map(|line| line.text.chars().count())
        .filter(|width| *width <= 60)
        .max()
        .unwrap_or_default();
    let mut out = String::new();
    for Line { text, comment } in lines {
        match comment {
            Some(comment) => out.push_str(&format!("{text:width$}  # {comment}\n")),
            None => out.push_str(&format!("{text}\n")),
        }
    }
    out
}

/// BLAKE3 of everything that a checked file says, secrets left out, in 32 hexadecimal digits.
pub fn digest(checked: &Checked) -> String {
    let hash = hash(&Lines::of(checked)).to_hex();
    hash[..32].to_owned()
}

/// BLAKE3 of a stage's kind and parameters, secrets left out.
pub fn parameters(kind: &StageKind, with: &Params) -> [u8; 16] {
    let mut lines = Lines::default();
    lines.push(0, format!("kind: {}", kind.name), None);
    lines.params(0, with, kind.params);
    let mut digest = [0; 16];
    digest.copy_from_slice(&hash(&lines).as_bytes()[..16]);
    digest
}

fn hash(lines: &Lines) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for line in &lines.0 {
        hasher.update(line.text.as_bytes()).update(b"\n");
    }
    hasher.finalize()
}

struct Line {
    text: String,
    comment: Option<String>,
}

#[derive(Default)]
struct Lines(Vec<Line>);

impl Lines {
    fn of(checked: &Checked) -> Self {
        let mut lines = Self::default();
        lines.params(0, &checked.top, TOP);
        lines.push(0, "stages:".to_owned(), None);
        for stage in &checked.stages {
            lines.stage(stage);
        }
        lines
    }

    fn push(&mut self, indent: usize, text: String, provenance: Option<&Provenance>) {
        let comment = provenance.map(|provenance| match provenance {
            Provenance::Default => "default".to_owned(),
            Provenance::Profile(name) => format!("profile {name}"),
            Provenance::File(line) => format!("line {line}"),
            Provenance::Environment(name, _) => format!("${{{name}}}"),
            Provenance::Flag => "command line".to_owned(),
        });
        self.0.push(Line {
            text: format!("{:indent$}{text}", ""),
            comment,
        });
    }

    fn stage(&mut self, stage: &EffectiveStage) {
        let first = self.0.len();
        let role = stage.kind.role();
        for field in STAGE.iter().filter(|field| applies(field.name, role)) {
            match field.name {
                "inputs" => {
                    self.push(4, "inputs:".to_owned(), None);
                    stage
                        .inputs
                        .iter()
                        .for_each(|input| self.item(6, input, INPUT));
                }
                "with" if stage.with.iter().next().is_none() => {}
                "with" => {
                    self.push(4, "with:".to_owned(), None);
                    self.params(6, &stage.with, stage.kind.params);
                }
                _ => self.field(4, &stage.keys, field),
            }
        }
        self.dash(first, 2);
    }

    fn params(&mut self, indent: usize, params: &Params, fields: &[Field]) {
        fields
            .iter()
            .for_each(|field| self.field(indent, params, field));
    }

    fn field(&mut self, indent: usize, params: &Params, field: &Field) {
        if let Some(Setting { value, provenance }) = params.setting(field.name) {
            self.value(indent, field.name, value, &field.ty, provenance);
        }
    }

    fn value(
        &mut self,
        indent: usize,
        key: &str,
        value: &Value,
        ty: &Type,
        provenance: &Provenance,
    ) {
        match (value, ty) {
            (Value::Object(params), Type::Object(fields)) if params.iter().next().is_some() => {
                self.push(indent, format!("{key}:"), None);
                self.params(indent + 2, params, fields);
            }
            (Value::Map(entries), Type::Map(inner)) if !entries.is_empty() => {
                self.push(indent, format!("{key}:"), None);
                for (name, value) in entries {
                    self.value(indent + 2, &quoted(name), value, inner, provenance);
                }
            }
            (Value::List(items), Type::List(Type::Object(fields))) if !items.is_empty() => {
                self.push(indent, format!("{key}:"), None);
                items
                    .iter()
                    .filter_map(Value::as_object)
                    .for_each(|item| self.item(indent + 2, item, fields));
            }
            _ => self.push(
                indent,
                format!("{key}: {}", inline(value)),
                Some(provenance),
            ),
        }
    }

    fn item(&mut self, indent: usize, params: &Params, fields: &[Field]) {
        let first = self.0.len();
        self.params(indent + 2, params, fields);
        self.dash(first, indent);
    }

    /// Makes the lines from `first` on an element of a list.
    fn dash(&mut self, first: usize, indent: usize) {
        match self.0.get_mut(first) {
            Some(line) => line.text.replace_range(indent..=indent, "-"),
            None => self.push(indent, "- {}".to_owned(), None),
        }
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::Bool(value) => value.to_string(),
        Value::Int(value) | Value::IntOrAuto(Some(value)) => value.to_string(),
        Value::IntOrAuto(None) => "auto".to_owned(),
        Value::Float(value) => value.to_string(),
        Value::Text(text) => quoted(&redact(text)),
        Value::Duration(value) => units::write_duration(*value),
        Value::Bytes(value) => units::write_bytes(*value),
        Value::Fps(value) => units::write_fps(*value),
        Value::Size(value) => units::write_size(*value),
        Value::Secret(_) => "\"[redacted]\"".to_owned(),
        Value::List(items) => format!(
            "[{}]",
            items.iter().map(inline).collect::<Vec<_>>().join(", ")
        ),
        Value::Map(entries) => {
            let pairs: Vec<String> = entries
                .iter()
                .map(|(key, value)| format!("{}: {}", quoted(key), inline(value)))
                .collect();
            format!("{{{}}}", pairs.join(", "))
        }
        Value::Object(params) => {
            let pairs: Vec<String> = params
                .iter()
                .map(|(key, setting)| format!("{key}: {}", inline(&setting.value)))
                .collect();
            format!("{{{}}}", pairs.join(", "))
        }
    }
}

/// A text as YAML reads it back: in quotes unless it is plainly a word, with `${` escaped.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '+');
    let word = text
        .starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | '_'))
        && text.chars().all(plain);
    if word && !text.eq_ignore_ascii_case("null") {
        return text.to_owned();
    }
    serde_json::Value::from(text.replace("${", "$${")).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_back_as_they_were() {
        for text in [
            "a",
            "",
            "a: b",
            "null",
            "5",
            "say \"x\"\n",
            "${X}",
            "- a",
            "ü",
            "x #y",
            "[redacted]",
            "$${X}",
        ] {
            let source = crate::config::SourceText::new("x", &format!("a: {}", quoted(text)));
            let mut problems = crate::config::Problems::new(&source);
            let mut node = crate::config::parse(&mut problems, 0, 0).unwrap();
            crate::config::expand(&mut node, &Default::default(), &mut problems);
            assert_eq!(
                node.entry("a").unwrap().value.text(),
                Some(text),
                "{}",
                quoted(text)
            );
        }
    }
}
