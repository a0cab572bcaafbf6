//! Shapes as JSON Schema (draft 2020-12), for editors. Wherever a value may stand, a text with a
//! `${VARIABLE}` may stand too.

use serde_json::{Map, Value as Json, json};

use super::node::{Node, NodeKind};
use super::read::SECRET;
use super::shape::{Default, Field, Type};

/// The schema of a mapping with these keys.
pub fn object(fields: &'static [Field]) -> Json {
    let properties: Map<String, Json> = fields
        .iter()
        .map(|field| (field.name.to_owned(), property(field)))
        .collect();
    let required: Vec<&str> = fields
        .iter()
        .filter(|field| matches!(field.default, Default::Required))
        .map(|field| field.name)
        .collect();
    let mut schema =
        json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// What `$defs` must hold for the schemas of this module.
pub fn definitions() -> Map<String, Json> {
    let variable = json!({ "type": "string", "pattern": r"\$\{", "description": "A text with a variable: ${VAR}, ${VAR:-default} or ${VAR:?message}." });
    let text = json!({ "type": ["string", "number", "boolean"] });
    [("variable".to_owned(), variable), ("text".to_owned(), text)]
        .into_iter()
        .collect()
}

fn property(field: &'static Field) -> Json {
    let mut schema = of(&field.ty);
    schema["description"] = json!(field.doc);
    if let Default::Is(text) = field.default {
        schema["default"] = default(text);
    }
    schema
}

/// The schema of a type.
pub fn of(ty: &'static Type) -> Json {
    match ty {
        Type::Bool => or_variable(json!({ "type": "boolean" })),
        Type::Int(low, high) => or_variable(integer(*low, *high)),
        Type::IntOrAuto(low, high) => {
            json!({ "anyOf": [integer(*low, *high), { "const": "auto" }, { "$ref": "#/$defs/variable" }] })
        }
        Type::Float(low, high) => {
            let mut schema = json!({ "type": "number" });
            if *low > f64::MIN {
                schema["minimum"] = json!(low);
            }
            if *high < f64::MAX {
                schema["maximum"] = json!(high);
            }
            or_variable(schema)
        }
        Type::Choice(words) => or_variable(json!({ "enum": words })),
        Type::Duration => pattern(r"^([0-9]+(\.[0-9]+)?(d|h|ms|m|s|us|ns))+$"),
        Type::Bytes => pattern(r"^[0-9]+(\.[0-9]+)? ?([KMGT]i?)?B$"),
        Type::Fps => json!({ "anyOf": [
            { "type": "number", "exclusiveMinimum": 0, "maximum": 1000 },
            { "type": "string", "pattern": r"^(native|[0-9]+(\.[0-9]+)?|[0-9]+/[0-9]+)$" },
            { "$ref": "#/$defs/variable" },
        ] }),
        Type::Size => pattern("^(native|[0-9]+x[0-9]+)$"),
        Type::Text | Type::Model(_) | Type::Stage => json!({ "$ref": "#/$defs/text" }),
        Type::Secret => json!({ "anyOf": [{ "$ref": "#/$defs/text" }, object(SECRET)] }),
        Type::List(inner) => {
            let one = of(inner);
            json!({ "anyOf": [{ "type": "array", "items": one.clone() }, one] })
        }
        Type::Map(inner) => json!({ "type": "object", "additionalProperties": of(inner) }),
        Type::Object(fields) => object(fields),
        Type::ModelSpecific(_, inner) => of(inner),
        Type::Unchecked => json!({}),
    }
}

fn integer(low: i64, high: i64) -> Json {
    let mut schema = json!({ "type": "integer", "minimum": low });
    if high < i64::MAX {
        schema["maximum"] = json!(high);
    }
    schema
}

fn pattern(pattern: &str) -> Json {
    or_variable(json!({ "type": "string", "pattern": pattern }))
}

fn or_variable(schema: Json) -> Json {
    json!({ "anyOf": [schema, { "$ref": "#/$defs/variable" }] })
}

fn default(text: &str) -> Json {
    let source = super::SourceText::new("default", text);
    super::parse(&mut super::Problems::new(&source), 0, 0).map_or(json!(text), |node| plain(&node))
}

fn plain(node: &Node) -> Json {
    match &node.kind {
        NodeKind::List(items) => items.iter().map(plain).collect(),
        NodeKind::Map(entries) => Json::Object(
            entries
                .iter()
                .map(|entry| (entry.key.clone(), plain(&entry.value)))
                .collect(),
        ),
        NodeKind::Scalar(scalar) if !scalar.quoted => {
            serde_json::from_str(&scalar.text).unwrap_or_else(|_| json!(scalar.text))
        }
        NodeKind::Scalar(scalar) => json!(scalar.text),
        NodeKind::Broken => Json::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: &[Field] = &[
        Field {
            name: "model",
            ty: Type::Model(&[]),
            default: Default::Required,
            doc: "The model.",
        },
        Field {
            name: "top",
            ty: Type::Int(1, 10),
            default: Default::Is("5"),
            doc: "How many.",
        },
        Field {
            name: "wait",
            ty: Type::Duration,
            default: Default::Is("3s"),
            doc: "How long.",
        },
        Field {
            name: "paths",
            ty: Type::List(&Type::Text),
            default: Default::Is("[]"),
            doc: "Files.",
        },
    ];

    #[test]
    fn a_shape_becomes_a_schema_with_docs_and_defaults() {
        let schema = object(FIELDS);
        assert_eq!(schema["required"], json!(["model"]));
        assert_eq!(schema["additionalProperties"], json!(false));
        assert_eq!(schema["properties"]["top"]["default"], json!(5));
        assert_eq!(
            schema["properties"]["top"]["anyOf"][0],
            json!({ "type": "integer", "minimum": 1, "maximum": 10 })
        );
        assert_eq!(schema["properties"]["wait"]["default"], json!("3s"));
        assert_eq!(
            schema["properties"]["wait"]["description"],
            json!("How long.")
        );
        assert_eq!(schema["properties"]["paths"]["default"], json!([]));
        assert!(definitions().contains_key("variable"));
    }
}
