//! The keys of a mapping as tables: one for the mapping, one more for each mapping inside it.

use super::markdown::{code, codes, heading, table};
use crate::config::shape::{Default, Field, Type};

/// Writes the table of `fields`, and below headings of `level` those of the mappings inside them,
/// each named by its path from `path` on.
pub(super) fn tables(path: &str, fields: &'static [Field], level: usize, page: &mut String) {
    let rows: Vec<_> = fields
        .iter()
        .map(|field| {
            [
                code(field.name),
                type_text(&field.ty),
                default_text(field.default),
                field.doc.to_owned(),
            ]
        })
        .collect();
    table(["key", "takes", "default", "what it does"], &rows, page);
    for field in fields {
        if let Some((below, inner)) = mapping_inside(&field.ty) {
            let dot = if path.is_empty() { "" } else { "." };
            let path = format!("{path}{dot}{}{below}", field.name);
            heading(level, &code(&path), page);
            tables(&path, inner, level, page);
        }
    }
}

/// The mapping that a type holds, and how its path goes on there.
fn mapping_inside(ty: &Type) -> Option<(String, &'static [Field])> {
    let below = |step: &str, ty: &Type| {
        let (rest, fields) = mapping_inside(ty)?;
        Some((format!("{step}{rest}"), fields))
    };
    match ty {
        Type::Object(fields) => Some((String::new(), fields)),
        Type::List(inner) => below("[]", inner),
        Type::Map(inner) => below(".NAME", inner),
        Type::ModelSpecific(_, inner) => below("", inner),
        _ => None,
    }
}

fn default_text(default: Default) -> String {
    match default {
        Default::Required => "**required**".to_owned(),
        Default::Absent => String::new(),
        Default::Is(value) => code(value),
    }
}

fn type_text(ty: &Type) -> String {
    match ty {
        Type::Bool => "`true` or `false`".to_owned(),
        Type::Int(low, high) => format!("whole number{}", int_bounds(*low, *high)),
        Type::IntOrAuto(low, high) => {
            format!("whole number{}, or `auto`", int_bounds(*low, *high))
        }
        Type::Float(low, high) => format!("number{}", float_bounds(*low, *high)),
        Type::Text => "text".to_owned(),
        Type::Choice(words) => codes(words),
        Type::Duration => "time".to_owned(),
        Type::Bytes => "size in bytes".to_owned(),
        Type::Fps => "frames a second, or `native`".to_owned(),
        Type::Size => "`WIDTHxHEIGHT`, or `native`".to_owned(),
        Type::Model(networks) => format!("model: {}", codes(networks)),
        Type::ModelSpecific(networks, inner) => {
            format!("{}; only with {}", type_text(inner), codes(networks))
        }
        Type::Stage => "`id` of a stage".to_owned(),
        Type::Secret => "secret: text, or `{ file: PATH }`".to_owned(),
        Type::List(inner) => format!("list: {}", type_text(inner)),
        Type::Map(inner) => format!("names with: {}", type_text(inner)),
        Type::Object(_) => "mapping".to_owned(),
        Type::Unchecked => "see below".to_owned(),
    }
}

fn int_bounds(low: i64, high: i64) -> String {
    match (low, high) {
        (i64::MIN, i64::MAX) => String::new(),
        (low, i64::MAX) => format!(" from {low}"),
        (i64::MIN, high) => format!(" up to {high}"),
        (low, high) => format!(", {low} to {high}"),
    }
}

fn float_bounds(low: f64, high: f64) -> String {
    match (low <= f64::MIN, high >= f64::MAX) {
        (true, true) => String::new(),
        (false, true) => format!(" from {low}"),
        (true, false) => format!(" up to {high}"),
        (false, false) => format!(", {low} to {high}"),
    }
}
