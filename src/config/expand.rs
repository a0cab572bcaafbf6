//! Variables in scalars: `${VAR}`, `${VAR:-default}`, `${VAR:?message}`, and `$${` for a literal
//! `${`. The environment is passed in.

use std::collections::BTreeMap;

use super::problem::Problems;
use super::shape::Provenance;
use super::source_text::Place;
use super::tree::{Node, NodeKind};

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
        let inside = &rest[at + 2..];
        let failure = |length: usize, message: String, help: String| Failure {
            at: rest[at..at + length].to_owned(),
            message,
            help,
        };
        let Some(end) = inside.find('}') else {
            return Err(failure(
                2,
                "`${` is never closed".to_owned(),
                "write `${VAR}`, or `$${` for a literal `${`".to_owned(),
            ));
        };
        let name_end = inside
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(end);
        let (name, rule) = (&inside[..name_end], &inside[name_end..end]);
        if name.is_empty()
            || name.starts_with(|c: char| c.is_ascii_digit())
            || inside[..end].contains("${")
        {
            let help = "write `${VAR}`, `${VAR:-default}` or `${VAR:?message}`, or `$${` for a \
                        literal `${`";
            return Err(failure(
                end + 3,
                format!("`${{{}}}` is not a variable", &inside[..end]),
                help.to_owned(),
            ));
        }
        let set = environment.get(name);
        let value = match (rule, set.filter(|value| !value.is_empty())) {
            ("", _) => set
                .cloned()
                .ok_or_else(|| format!("set it, or give a default: `${{{name}:-...}}`")),
            (rule, value) if rule.starts_with(":-") => {
                Ok(value.map_or(&rule[2..], String::as_str).to_owned())
            }
            (rule, value) if rule.starts_with(":?") => {
                value.cloned().ok_or_else(|| match &rule[2..] {
                    "" => "set it in the environment".to_owned(),
                    message => message.to_owned(),
                })
            }
            _ => {
                let help = "write `${VAR}`, `${VAR:-default}` or `${VAR:?message}`".to_owned();
                return Err(failure(
                    end + 3,
                    format!("`{rule}` says nothing about the variable `{name}`"),
                    help,
                ));
            }
        };
        out.push_str(
            &value.map_err(|help| {
                failure(end + 3, format!("the variable `{name}` is not set"), help)
            })?,
        );
        used.get_or_insert_with(|| name.to_owned());
        rest = &inside[end + 1..];
    }
    out.push_str(rest);
    Ok((out, used))
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
