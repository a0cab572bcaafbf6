//! Variables in scalars: `${VAR}`, `${VAR:-default}`, `${VAR:?message}`, and `$${` for a literal
//! `${`. The environment is passed in.

use std::collections::BTreeMap;

use super::node::{Node, NodeKind};
use super::problem::Problems;
use super::shape::Provenance;
use super::source_text::Place;

/// Environment variables by name.
pub type Environment = BTreeMap<String, String>;

/// Fills in the variables of every scalar below `node`. What cannot be filled in is broken, with a
/// problem said.
pub fn expand(node: &mut Node, environment: &Environment, problems: &mut Problems) {
    let scalar = match &mut node.kind {
        NodeKind::List(items) => {
            return items
                .iter_mut()
                .for_each(|item| expand(item, environment, problems));
        }
        NodeKind::Map(entries) => {
            return entries
                .iter_mut()
                .for_each(|entry| expand(&mut entry.value, environment, problems));
        }
        NodeKind::Broken => return,
        NodeKind::Scalar(scalar) => scalar,
    };
    if node.provenance == Provenance::Flag || !scalar.text.contains("${") {
        return;
    }
    match fill(&scalar.text, environment) {
        Ok((text, used)) => {
            scalar.text = text;
            if let (Some(name), Provenance::File(line)) = (used, &node.provenance) {
                scalar.expanded = true;
                node.provenance = Provenance::Environment(name, *line);
            }
        }
        Err(failure) => {
            let place = narrow(node.place, &failure.at, problems);
            problems.add(place, failure.message).help(failure.help);
            node.kind = NodeKind::Broken;
        }
    }
}

struct Failure {
    at: String,
    message: String,
    help: String,
}

/// The text with its variables filled in, and the first variable used.
fn fill(text: &str, environment: &Environment) -> Result<(String, Option<String>), Failure> {
    let (mut out, mut used, mut rest) = (String::new(), None, text);
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at - 1]);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let variable = Variable::at_start_of(&rest[at..])?;
        out.push_str(&variable.value(environment)?);
        used.get_or_insert_with(|| variable.name.to_owned());
        rest = &rest[at + variable.whole.len()..];
    }
    out.push_str(rest);
    Ok((out, used))
}

/// One `${NAME}`, or `${NAME` and a rule and `}`.
struct Variable<'a> {
    whole: &'a str,
    name: &'a str,
    /// What stands behind the name: `:-default`.
    rule: &'a str,
}

impl<'a> Variable<'a> {
    /// Reads the variable that `text` begins with.
    fn at_start_of(text: &'a str) -> Result<Self, Failure> {
        let inside = &text[2..];
        let Some(end) = inside.find('}') else {
            return Err(Failure {
                at: text[..2].to_owned(),
                message: "`${` is never closed".to_owned(),
                help: "write `${VAR}`, or `$${` for a literal `${`".to_owned(),
            });
        };
        let inside = &inside[..end];
        let name_end = inside
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(end);
        let (name, rule) = inside.split_at(name_end);
        let variable = Self {
            whole: &text[..end + 3],
            name,
            rule,
        };
        let is_name = !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit());
        if is_name && !inside.contains("${") {
            return Ok(variable);
        }
        let help = "write `${VAR}`, `${VAR:-default}` or `${VAR:?message}`, or `$${` for a literal \
                    `${`";
        Err(variable.failure(format!("`${{{inside}}}` is not a variable"), help))
    }

    /// Its value. An empty one counts as none where there is a rule for that.
    fn value(&self, environment: &Environment) -> Result<String, Failure> {
        let set = environment.get(self.name);
        let filled = set.filter(|value| !value.is_empty()).cloned();
        if self.rule.is_empty() {
            let help = || format!("set it, or give a default: `${{{}:-...}}`", self.name);
            return set.cloned().ok_or_else(|| self.is_not_set(&help()));
        }
        if let Some(default) = self.rule.strip_prefix(":-") {
            return Ok(filled.unwrap_or_else(|| default.to_owned()));
        }
        if let Some(message) = self.rule.strip_prefix(":?") {
            let help = match message {
                "" => "set it in the environment",
                message => message,
            };
            return filled.ok_or_else(|| self.is_not_set(help));
        }
        let message = format!(
            "`{}` says nothing about the variable `{}`",
            self.rule, self.name
        );
        let help = "write `${VAR}`, `${VAR:-default}` or `${VAR:?message}`";
        Err(self.failure(message, help))
    }

    fn is_not_set(&self, help: &str) -> Failure {
        self.failure(format!("the variable `{}` is not set", self.name), help)
    }

    fn failure(&self, message: String, help: &str) -> Failure {
        Failure {
            at: self.whole.to_owned(),
            message,
            help: help.to_owned(),
        }
    }
}

/// The variable's own place inside its scalar, where the text stands there as it was read.
fn narrow(place: Place, variable: &str, problems: &Problems) -> Place {
    let text = &problems.sources()[place.source].text()[place.start..place.end];
    text.find(variable).map_or(place, |at| Place {
        start: place.start + at,
        end: place.start + at + variable.len(),
        ..place
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::source_text::SourceText;
    use crate::config::tree::parse;

    fn expanded(text: &str) -> Result<Node, String> {
        let mut problems = Problems::new(&SourceText::new("x", text));
        let mut node = parse(&mut problems, 0, 0).unwrap();
        let environment = [("PORT", "9092"), ("HOST", "broker"), ("EMPTY", "")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into();
        expand(&mut node, &environment, &mut problems);
        if problems.is_empty() {
            Ok(node)
        } else {
            Err(problems.to_string())
        }
    }

    fn value(text: &str) -> String {
        expanded(&format!("a: {text}"))
            .unwrap()
            .entry("a")
            .and_then(|entry| entry.value.text())
            .unwrap_or("null")
            .to_owned()
    }

    #[test]
    fn variables_are_filled_in_quoted_and_plain() {
        assert_eq!(value("${HOST}:${PORT}"), "broker:9092");
        assert_eq!(value("\"${HOST}\""), "broker");
        assert_eq!(value("${NONE:-embedded}"), "embedded");
        assert_eq!(value("${EMPTY:-embedded}"), "embedded");
        assert_eq!(value("\"${NONE:-}\""), "");
        assert_eq!(value("${EMPTY}"), "null");
        assert_eq!(value("a $ b $${HOST} ${PORT:?}"), "a $ b ${HOST} 9092");
        let node = expanded("b: 1\na: \"${PORT}\"").unwrap();
        assert_eq!(
            node.entries()[1].value.provenance,
            Provenance::Environment("PORT".into(), 2)
        );
        assert_eq!(node.origin(), Provenance::Environment("PORT".into(), 2));
    }

    #[test]
    fn what_cannot_be_filled_in_is_said_at_the_variable() {
        let complaint = |text: &str| expanded(text).unwrap_err();
        assert_eq!(
            complaint("a: x ${NONE} y"),
            "x:1:6: the variable `NONE` is not set (set it, or give a default: `${NONE:-...}`)"
        );
        assert_eq!(
            complaint("a: \"${NONE:?set it to your brokers}\""),
            "x:1:5: the variable `NONE` is not set (set it to your brokers)"
        );
        assert_eq!(
            complaint("a: ${EMPTY:?}"),
            "x:1:4: the variable `EMPTY` is not set (set it in the environment)"
        );
        assert!(complaint("a: ${HOST").starts_with("x:1:4: `${` is never closed"));
        assert!(
            complaint("a: ${HOST+x}")
                .starts_with("x:1:4: `+x` says nothing about the variable `HOST`")
        );
        assert!(complaint("a: ${}").starts_with("x:1:4: `${}` is not a variable"));
        assert!(complaint("a: ${A:-${B}}").starts_with("x:1:4: `${A:-${B}` is not a variable"));
    }
}
