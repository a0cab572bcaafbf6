//! `records.md`: the fields of every record, from its Avro schema.

use std::collections::BTreeMap;

use serde_json::Value;

use super::markdown::{code, heading, page, table};
use crate::codec::{full_name, schema_text};
use crate::error::{Error, Result};
use crate::packet::PayloadKind;

/// Records and enums that fields have as their type, by name.
type Types = BTreeMap<String, Value>;

pub(super) fn render() -> Result<String> {
    let mut page = page(
        "Records",
        "What `kafka` and `file` sinks write, by topic: `<namespace>.<record>.v1`. The schemas \
         themselves are in [`schemas/`](../../schemas); `opusflow schemas` lists, pushes and \
         checks them. A field with a default may be missing in records of older versions. Every \
         record opens with the same [`meta`](#meta).",
    );
    let mut types = Types::new();
    for kind in PayloadKind::ALL {
        let schema: Value = serde_json::from_str(schema_text(kind)).map_err(|error| {
            Error::bug(format!("schemas/{}.avsc is no JSON", kind.plural())).because(error)
        })?;
        heading(2, &code(kind.plural()), &mut page);
        page.push_str(&format!(
            "{} {}\n\n",
            word(&schema["doc"]),
            code(full_name(kind))
        ));
        fields(&schema, &mut types, &mut page);
    }
    heading(2, "Types", &mut page);
    page.push_str("Records and words inside the records above.\n");
    // A type may hold others, which are then found on the way.
    let mut written = Vec::new();
    while let Some((name, schema)) = next(&types, &written) {
        heading(3, &code(&name), &mut page);
        page.push_str(&format!("{}\n\n", word(&schema["doc"])));
        if schema["type"] == "enum" {
            page.push_str(&format!("One of {}.\n", symbols(&schema)));
        } else {
            fields(&schema, &mut types, &mut page);
        }
        written.push(name);
    }
    Ok(page)
}

/// The first type, by name, that is not written yet.
fn next(types: &Types, written: &[String]) -> Option<(String, Value)> {
    let mut left = types.iter().filter(|(name, _)| !written.contains(name));
    left.next()
        .map(|(name, schema)| (name.clone(), schema.clone()))
}

fn fields(record: &Value, types: &mut Types, page: &mut String) {
    let none = Vec::new();
    let rows: Vec<_> = record["fields"]
        .as_array()
        .unwrap_or(&none)
        .iter()
        .map(|field| {
            let default = field.get("default").map(Value::to_string);
            [
                code(word(&field["name"])),
                type_text(&field["type"], types),
                code(&default.unwrap_or_default()),
                word(&field["doc"]).to_owned(),
            ]
        })
        .collect();
    table(["field", "type", "default", "what it is"], &rows, page);
}

/// A type in words; what it names is kept in `types`.
fn type_text(schema: &Value, types: &mut Types) -> String {
    match schema {
        Value::String(name) if name.starts_with(char::is_uppercase) => link(name),
        Value::String(name) => code(name),
        Value::Array(choices) => {
            let some = choices.iter().filter(|choice| **choice != "null");
            let mut texts: Vec<_> = some.map(|choice| type_text(choice, types)).collect();
            if texts.len() < choices.len() {
                texts.push("`null`".to_owned());
            }
            texts.join(" or ")
        }
        _ => match word(&schema["type"]) {
            "array" => format!("array of {}", type_text(&schema["items"], types)),
            "map" => format!("map of {}", type_text(&schema["values"], types)),
            "record" | "enum" => {
                let name = word(&schema["name"]);
                types.insert(name.to_owned(), schema.clone());
                link(name)
            }
            plain => match schema["logicalType"].as_str() {
                Some(logical) => format!("{} ({logical})", code(plain)),
                None => code(plain),
            },
        },
    }
}

fn link(name: &str) -> String {
    format!("[`{name}`](#{})", name.to_lowercase())
}

fn symbols(schema: &Value) -> String {
    let none = Vec::new();
    let symbols = schema["symbols"].as_array().unwrap_or(&none);
    let symbols: Vec<_> = symbols.iter().map(|symbol| code(word(symbol))).collect();
    symbols.join(", ")
}

/// The text of a JSON string; empty for anything else.
fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
