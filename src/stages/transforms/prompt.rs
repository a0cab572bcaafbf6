//! Prompt templates: text with names in braces that each packet fills in, for every stage that asks
//! a model in words.

use std::collections::BTreeMap;

use crate::{Error, Result};

/// A prompt template: text with `{name}` in it; `{{` and `}}` stand for braces.
#[derive(Debug)]
pub(super) struct Prompt(Vec<Part>);

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Name(String),
    /// Of a stream.
    Label(String),
}

impl Prompt {
    /// Reads a template that may ask for `names` and for `labels.NAME`.
    ///
    /// # Errors
    /// Config, where a brace stands alone or a name is unknown.
    pub fn parse(text: &str, names: &[&str]) -> Result<Self> {
        let broken = |what: &str| {
            Err(
                Error::config(format!("the prompt {text:?} {what}")).hint(format!(
                    "write one of {{{}}} or {{labels.NAME}}, and `{{{{` for a brace",
                    names.join("}, {")
                )),
            )
        };
        let (mut parts, mut plain, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let (brace, after) = rest[at..].split_at(1);
            if let Some(after) = after.strip_prefix(brace) {
                plain.push_str(brace);
                rest = after;
                continue;
            }
            let Some((name, after)) = (if brace == "{" {
                after.split_once('}')
            } else {
                None
            }) else {
                return broken("has a brace without its other half");
            };
            let asked = match name.strip_prefix("labels.") {
                Some(label) => Part::Label(label.to_owned()),
                None if names.contains(&name) => Part::Name(name.to_owned()),
                None => return broken(&format!("asks for `{name}`, which there is not")),
            };
            parts.push(Part::Text(std::mem::take(&mut plain)));
            parts.push(asked);
            rest = after;
        }
        plain.push_str(rest);
        parts.push(Part::Text(plain));
        Ok(Self(parts))
    }

    /// The text, with what `value` says for each name, and the `labels` of a stream; one that it
    /// does not have is empty.
    pub fn fill(
        &self,
        labels: &BTreeMap<String, String>,
        value: impl Fn(&str) -> String,
    ) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Name(name) => value(name),
            Part::Label(label) => labels.get(label).cloned().unwrap_or_default(),
        };
        self.0.iter().map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_filled_in_and_unknown_names_refused() {
        let prompt = Prompt::parse(
            "A {{shot}} of {tags}, on {labels.channel}{labels.none}.",
            &["tags"],
        )
        .expect("it parses");
        let labels = [("channel".to_owned(), "one".to_owned())].into();
        assert_eq!(
            prompt.fill(&labels, |name| name.to_uppercase()),
            "A {shot} of TAGS, on one."
        );
        for broken in ["{tgas}", "{tags", "tags}", "{}"] {
            assert_eq!(
                Prompt::parse(broken, &["tags"]).expect_err(broken).kind(),
                crate::error::Kind::Config
            );
        }
    }
}
