//! `opusflow stages`: every stage kind with its parameters.

use std::fmt::Write;

use crate::config::shape::{Default, Field, Type};
use crate::error::{Error, Result};
use crate::packet::PayloadKind;
use crate::stage::{Joins, StageKind};
use crate::stages::KINDS;

pub(super) fn list(only: Option<&str>) -> Result<String> {
    let chosen: Vec<&StageKind> = KINDS
        .iter()
        .copied()
        .filter(|kind| only.is_none_or(|only| kind.name == only))
        .collect();
    if chosen.is_empty() {
        let names: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
        return Err(Error::config(format!(
            "there is no stage kind `{}`",
            only.unwrap_or_default()
        ))
        .hint(format!("one of {}", names.join(", "))));
    }
    let mut text = String::new();
    for kind in chosen {
        describe(kind, &mut text);
    }
    Ok(text)
}

/// The kinds that a network of this class can be the model of.
pub(super) fn kinds_taking(architecture: &str) -> Vec<&'static str> {
    let mut names: Vec<_> = KINDS
        .iter()
        .filter(|kind| takes(kind.params, architecture))
        .map(|kind| kind.name)
        .collect();
    names.dedup();
    names
}

fn takes(fields: &[Field], architecture: &str) -> bool {
    let named = |ty: &Type| matches!(ty, Type::Model(architectures) if architectures.contains(&architecture));
    fields.iter().any(|field| {
        named(&field.ty) || inner(&field.ty).is_some_and(|inner| takes(inner, architecture))
    })
}

fn describe(kind: &StageKind, text: &mut String) {
    // Writing into a String cannot fail.
    let _ = writeln!(text, "{}  ({})", kind.name, kind.role().as_str());
    let _ = writeln!(text, "    {}", kind.doc);
    if !kind.accepts.is_empty() {
        let _ = writeln!(text, "    takes {}", payloads(kind.accepts));
    }
    if !kind.emits.is_empty() {
        let _ = writeln!(text, "    gives {}", payloads(kind.emits));
    }
    for line in joins(kind) {
        let _ = writeln!(text, "    {line}");
    }
    fields(kind.params, 4, text);
    text.push('\n');
}

/// Payloads by their names, with commas between.
pub(super) fn payloads(kinds: &[PayloadKind]) -> String {
    let names: Vec<_> = kinds.iter().map(|kind| kind.plural()).collect();
    names.join(", ")
}

/// What the inputs of a kind are joined per, in words; one line for each network where it is the
/// network's affair.
pub(super) fn joins(kind: &StageKind) -> Vec<String> {
    match kind.joins {
        Joins::ByModel(networks) => {
            let mut lines = Vec::new();
            for (classes, joins) in networks {
                if let Some(works) = works_on(kind, *joins) {
                    lines.extend(
                        classes
                            .iter()
                            .map(|class| format!("with a {class} {works}")),
                    );
                }
            }
            lines
        }
        joins => works_on(kind, joins).into_iter().collect(),
    }
}

fn works_on(kind: &StageKind, joins: Joins) -> Option<String> {
    let per = joins.per()?;
    if let Joins::Either { alone, .. } = joins {
        let (alone, per) = (alone.plural(), per.plural());
        return Some(format!(
            "works on {alone} alone, or on {per}; a `join` collects {alone} for them"
        ));
    }
    let mut collected = kind.accepts.to_vec();
    collected.retain(|other| *other != per);
    Some(format!(
        "works on {}; a `join` collects {} for them",
        per.plural(),
        payloads(&collected)
    ))
}

fn fields(fields: &[Field], indent: usize, text: &mut String) {
    for field in fields {
        let default = match field.default {
            Default::Required => "required".to_owned(),
            Default::Absent => "optional".to_owned(),
            Default::Is(value) => format!("default {value}"),
        };
        let _ = writeln!(
            text,
            "{:indent$}{}: {}, {default}",
            "",
            field.name,
            field.ty.describe()
        );
        let _ = writeln!(text, "{:indent$}    {}", "", field.doc);
        if let Some(inner) = inner(&field.ty) {
            self::fields(inner, indent + 4, text);
        }
    }
}

/// The keys inside a type.
fn inner(ty: &Type) -> Option<&'static [Field]> {
    match ty {
        Type::Object(fields) => Some(fields),
        Type::List(ty) | Type::Map(ty) | Type::ModelSpecific(_, ty) => inner(ty),
        _ => None,
    }
}

/// Every class of network that a stage takes as its model.
#[cfg(test)]
pub(super) fn architectures() -> std::collections::BTreeSet<&'static str> {
    fn gather(fields: &[Field], found: &mut std::collections::BTreeSet<&'static str>) {
        for field in fields {
            if let Type::Model(architectures) = field.ty {
                found.extend(architectures);
            }
            if let Some(inner) = inner(&field.ty) {
                gather(inner, found);
            }
        }
    }
    let mut found = std::collections::BTreeSet::new();
    KINDS
        .iter()
        .for_each(|kind| gather(kind.params, &mut found));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_is_listed() {
        let text = list(None).expect("there are kinds");
        for kind in KINDS {
            assert!(text.contains(&format!("{}  (", kind.name)));
            for field in kind.params {
                assert!(
                    text.contains(&format!("{}: ", field.name)),
                    "{}.{}",
                    kind.name,
                    field.name
                );
            }
        }
        assert!(list(Some("nothing")).is_err());
    }
}
