//! The JSON Schema of pipeline files, from the same tables as the check.

use serde_json::{Value as Json, json};

use super::stages::{INPUT, STAGE};
use super::top::TOP;
use crate::config::schema;
use crate::config::shape::{Default, Field};
use crate::stage::{Role, StageKind};

/// The JSON Schema (draft 2020-12) of pipeline files with these stage kinds.
pub fn json_schema(kinds: &[&'static StageKind]) -> Json {
    let mut top = schema::object(TOP);
    let mut definitions = schema::definitions();
    definitions.insert(
        "input".to_owned(),
        json!({ "anyOf": [{ "$ref": "#/$defs/text" }, schema::object(INPUT)] }),
    );
    definitions.insert("stage".to_owned(), stage_schema(kinds));
    for kind in kinds {
        definitions.insert(definition(kind), schema::object(kind.params));
    }
    top["properties"]["stages"] = json!({ "type": "array", "minItems": 1, "items": { "$ref": "#/$defs/stage" }, "description": doc(TOP, "stages") });
    let mut whole = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "opusflow pipeline",
    });
    if let (Json::Object(whole), Json::Object(top)) = (&mut whole, top) {
        whole.extend(top);
        whole.insert("$defs".to_owned(), Json::Object(definitions));
    }
    whole
}

fn stage_schema(kinds: &[&'static StageKind]) -> Json {
    let mut stage = schema::object(STAGE);
    let shares_its_name =
        |kind: &StageKind| kinds.iter().filter(|other| other.name == kind.name).count() > 1;
    let first = |at: &usize| {
        !kinds[..*at]
            .iter()
            .any(|other| other.name == kinds[*at].name)
    };
    let words: Vec<Json> = (0..kinds.len())
        .filter(first)
        .map(|at| json!({ "const": kinds[at].name, "description": kinds[at].doc }))
        .collect();
    stage["properties"]["kind"] = json!({ "oneOf": words, "description": doc(STAGE, "kind") });
    let inputs = json!({ "$ref": "#/$defs/input" });
    stage["properties"]["inputs"] = json!({ "anyOf": [{ "type": "array", "items": inputs }, inputs], "description": doc(STAGE, "inputs") });
    stage["allOf"] = kinds
        .iter()
        .map(|kind| {
            let needs_with = kind.params.iter().any(|field| matches!(field.default, Default::Required));
            let mut required = Vec::from_iter(needs_with.then_some("with"));
            let mut then =
                json!({ "properties": { "with": { "$ref": format!("#/$defs/{}", definition(kind)), "description": kind.doc } } });
            if kind.role() == Role::Source {
                then["properties"]["inputs"] = json!(false);
            } else {
                required.push("inputs");
            }
            then["required"] = json!(required);
            let mut when = json!({ "properties": { "kind": { "const": kind.name } }, "required": ["kind"] });
            if shares_its_name(kind) {
                // A source and a sink share the name: what reads something is the sink.
                let reads = json!({ "required": ["inputs"] });
                if kind.role() == Role::Source { when["not"] = reads } else { when["required"] = json!(["kind", "inputs"]) }
            }
            json!({ "if": when, "then": then })
        })
        .collect();
    stage
}

fn definition(kind: &StageKind) -> String {
    format!("{}_{}", kind.role().as_str(), kind.name)
}

fn doc(fields: &'static [Field], name: &str) -> &'static str {
    fields
        .iter()
        .find(|field| field.name == name)
        .map_or("", |field| field.doc)
}
