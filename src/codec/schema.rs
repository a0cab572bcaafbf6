//! The schemas of the records, as `schemas/` holds them. Tests hold their fingerprints, that `meta`
//! is the same everywhere, and that every version ever published can be read by the present one.

use apache_avro::Schema;

use crate::error::{Error, Result};
use crate::packet::PayloadKind;

/// How subjects of a registry may evolve: a reader with the newest schema reads every record ever
/// written.
pub const COMPATIBILITY: &str = "BACKWARD_TRANSITIVE";

/// The schema of the records of `kind`, as JSON text.
pub const fn schema_text(kind: PayloadKind) -> &'static str {
    match kind {
        PayloadKind::Frame => include_str!("../../schemas/frames.avsc"),
        PayloadKind::Audio => include_str!("../../schemas/audio.avsc"),
        PayloadKind::Segment => include_str!("../../schemas/segments.avsc"),
        PayloadKind::Embedding => include_str!("../../schemas/embeddings.avsc"),
        PayloadKind::Caption => include_str!("../../schemas/captions.avsc"),
        PayloadKind::Transcript => include_str!("../../schemas/transcripts.avsc"),
        PayloadKind::Picture => include_str!("../../schemas/pictures.avsc"),
        PayloadKind::Event => include_str!("../../schemas/events.avsc"),
        PayloadKind::DeadLetter => include_str!("../../schemas/dead_letters.avsc"),
    }
}

/// The full name of the records of `kind`, which is also their CloudEvents type.
pub const fn full_name(kind: PayloadKind) -> &'static str {
    match kind {
        PayloadKind::Frame => "dev.opusflow.v1.Frame",
        PayloadKind::Audio => "dev.opusflow.v1.Audio",
        PayloadKind::Segment => "dev.opusflow.v1.Segment",
        PayloadKind::Embedding => "dev.opusflow.v1.Embedding",
        PayloadKind::Caption => "dev.opusflow.v1.Caption",
        PayloadKind::Transcript => "dev.opusflow.v1.Transcript",
        PayloadKind::Picture => "dev.opusflow.v1.Picture",
        PayloadKind::Event => "dev.opusflow.v1.Event",
        PayloadKind::DeadLetter => "dev.opusflow.v1.DeadLetter",
    }
}

/// CRC-64-AVRO of the schema's parsing canonical form. Written down, so that writing a record needs
/// no parsed schema.
pub const fn fingerprint(kind: PayloadKind) -> u64 {
    match kind {
        PayloadKind::Frame => 0xde24_7887_b6bc_b60f,
        PayloadKind::Audio => 0x5f20_cfe3_68fe_dd29,
        PayloadKind::Segment => 0x816c_acbb_dd9d_d965,
        PayloadKind::Embedding => 0x4f0e_f59b_a321_9c17,
        PayloadKind::Caption => 0x2806_39c5_1136_badd,
        PayloadKind::Transcript => 0x8e75_61be_5b81_6f2f,
        PayloadKind::Picture => 0xce07_fe62_8d67_dd39,
        PayloadKind::Event => 0xa6a6_55f2_a068_ab89,
        PayloadKind::DeadLetter => 0x2df7_01bf_d93b_6738,
    }
}

/// The schema of the records of `kind`.
pub(super) fn parse(kind: PayloadKind) -> Result<Schema> {
    Schema::parse_str(schema_text(kind)).map_err(|error| {
        Error::bug(format!("schemas/{}.avsc is no schema", kind.plural())).because(error)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use apache_avro::schema_compatibility::SchemaCompatibility;
    use serde_json::Value;

    use super::*;
    use crate::packet::{Cut, Finish, TimeSource, VectorType};

    fn text(kind: PayloadKind) -> Value {
        serde_json::from_str(schema_text(kind)).unwrap()
    }

    /// The parsing canonical form (Avro 1.12 specification), as far as our schemas go. Not
    /// apache-avro's: its 0.22 keeps the object around a type whose logical type it strips, and
    /// leaves nested names without the namespace around them.
    fn canonical(schema: &Value, namespace: &str) -> String {
        const PRIMITIVES: [&str; 8] = [
            "null", "boolean", "int", "long", "float", "double", "bytes", "string",
        ];
        let inner = |schema: &Value| canonical(schema, namespace);
        let list = |items: &Value| {
            items
                .as_array()
                .unwrap()
                .iter()
                .map(inner)
                .collect::<Vec<_>>()
                .join(",")
        };
        let name = || format!(r#""{namespace}.{}""#, schema["name"].as_str().unwrap());
        match schema {
            Value::String(word) if PRIMITIVES.contains(&word.as_str()) => schema.to_string(),
            Value::String(word) => format!(r#""{namespace}.{word}""#),
            Value::Array(_) => format!("[{}]", list(schema)),
            _ => match schema["type"].as_str() {
                Some("record") => {
                    let field = |field: &Value| {
                        format!(
                            r#"{{"name":{},"type":{}}}"#,
                            field["name"],
                            inner(&field["type"])
                        )
                    };
                    let fields = schema["fields"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(field)
                        .collect::<Vec<_>>()
                        .join(",");
                    format!(
                        r#"{{"name":{},"type":"record","fields":[{fields}]}}"#,
                        name()
                    )
                }
                Some("enum") => format!(
                    r#"{{"name":{},"type":"enum","symbols":{}}}"#,
                    name(),
                    schema["symbols"]
                ),
                Some("array") => {
                    format!(r#"{{"type":"array","items":{}}}"#, inner(&schema["items"]))
                }
                Some("map") => format!(r#"{{"type":"map","values":{}}}"#, inner(&schema["values"])),
                _ => inner(&schema["type"]),
            },
        }
    }

    /// CRC-64-AVRO, bit by bit.
    fn crc(bytes: &[u8]) -> u64 {
        const EMPTY: u64 = 0xc15d_213a_a4d7_a795;
        bytes.iter().fold(EMPTY, |crc, byte| {
            let low = (0..8).fold((crc ^ u64::from(*byte)) & 0xff, |crc, _| {
                (crc >> 1) ^ if crc & 1 == 1 { EMPTY } else { 0 }
            });
            (crc >> 8) ^ low
        })
    }

    #[test]
    fn fingerprints_are_those_of_the_schemas() {
        // The specification's own: the fingerprint of "int".
        assert_eq!(crc(br#""int""#), 0x7275_d51a_3f39_5c8f);
        // The constants were computed by Java's SchemaNormalization.parsingFingerprint64 (Avro
        // 1.12.0); fastavro agrees.
        for kind in PayloadKind::ALL {
            let computed = crc(canonical(&text(kind), "dev.opusflow.v1").as_bytes());
            assert_eq!(
                computed,
                fingerprint(kind),
                "{}: the schema changed: its fingerprint is {computed:#018x}",
                kind.plural()
            );
        }
    }

    #[test]
    fn names_are_those_of_the_schemas() {
        for kind in PayloadKind::ALL {
            assert_eq!(
                parse(kind).unwrap().name().unwrap().to_string(),
                full_name(kind)
            );
        }
    }

    #[test]
    fn meta_is_the_same_in_every_schema() {
        let first = |kind| {
            let field = text(kind)["fields"][0].clone();
            assert_eq!(field["name"], "meta", "{kind:?}");
            field
        };
        for kind in PayloadKind::ALL {
            assert_eq!(first(kind), first(PayloadKind::Frame), "{kind:?}");
        }
    }

    #[test]
    fn every_record_and_field_is_documented() {
        fn walk(schema: &Value, path: &str) {
            match schema {
                Value::Array(items) => items.iter().for_each(|item| walk(item, path)),
                Value::Object(object) => {
                    if matches!(schema["type"].as_str(), Some("record" | "enum")) {
                        assert!(
                            schema["doc"].as_str().is_some_and(|doc| doc.len() > 10),
                            "{path}/{}",
                            schema["name"]
                        );
                    }
                    for field in schema["fields"].as_array().into_iter().flatten() {
                        let path = format!("{path}/{}", field["name"]);
                        assert!(
                            field["doc"].as_str().is_some_and(|doc| doc.ends_with('.')),
                            "{path}"
                        );
                        walk(&field["type"], &path);
                    }
                    for inner in ["items", "values"] {
                        object
                            .get(inner)
                            .into_iter()
                            .for_each(|schema| walk(schema, path));
                    }
                }
                _ => {}
            }
        }
        PayloadKind::ALL
            .into_iter()
            .for_each(|kind| walk(&text(kind), kind.plural()));
    }

    #[test]
    fn symbols_stand_where_the_code_puts_them() {
        fn symbols(kind: PayloadKind, name: &str) -> Vec<String> {
            fn find<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
                match schema {
                    Value::Array(items) => items.iter().find_map(|item| find(item, name)),
                    Value::Object(object)
                        if object.get("name").is_some_and(|own| own == name)
                            && object.contains_key("symbols") =>
                    {
                        Some(schema)
                    }
                    Value::Object(object) => object.values().find_map(|value| find(value, name)),
                    _ => None,
                }
            }
            let schema = text(kind);
            let found = find(&schema, name).unwrap();
            assert_eq!(
                found["default"], "unknown",
                "a reader of an older version needs a default for symbols that it does not know"
            );
            found["symbols"]
                .as_array()
                .unwrap()
                .iter()
                .map(|symbol| symbol.as_str().unwrap().to_owned())
                .collect()
        }
        let cuts = [Cut::Hard, Cut::Gradual, Cut::MaxLength, Cut::Gap, Cut::End];
        let sources = [TimeSource::Ntp, TimeSource::Ingest, TimeSource::File];
        cuts.into_iter().for_each(|cut| {
            assert_eq!(
                symbols(PayloadKind::Segment, "Cut")[cut as usize + 1],
                cut.as_str()
            )
        });
        sources.into_iter().for_each(|source| {
            assert_eq!(
                symbols(PayloadKind::Frame, "TimeSource")[source as usize + 1],
                source.as_str()
            )
        });
        for finish in [Finish::Stop, Finish::Length] {
            assert_eq!(
                symbols(PayloadKind::Caption, "Finish")[finish as usize + 1],
                finish.as_str()
            );
        }
        for dtype in [VectorType::F32, VectorType::F16] {
            assert_eq!(
                symbols(PayloadKind::Embedding, "VectorType")[dtype as usize + 1],
                dtype.as_str()
            );
        }
    }

    /// The published versions of a schema, by number.
    fn history(kind: PayloadKind) -> BTreeMap<u32, String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/history");
        let mut versions = BTreeMap::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if let Some(number) = name
                .strip_prefix(kind.plural())
                .and_then(|rest| rest.strip_prefix('.')?.strip_suffix(".avsc"))
            {
                versions.insert(
                    number.parse().unwrap(),
                    std::fs::read_to_string(&path).unwrap(),
                );
            }
        }
        versions
    }

    fn reads(reader: &str, writer: &str) -> bool {
        let [reader, writer] = [reader, writer].map(|text| Schema::parse_str(text).unwrap());
        SchemaCompatibility::can_read(&writer, &reader).is_ok()
    }

    #[test]
    fn every_published_version_can_be_read() {
        for kind in PayloadKind::ALL {
            let versions = history(kind);
            for (number, text) in &versions {
                assert!(
                    reads(schema_text(kind), text),
                    "{} cannot read its version {number}",
                    kind.plural()
                );
            }
            let newest = versions.into_iter().next_back().map(|(_, text)| text);
            let hint = "a change to a schema is published by a copy under the next number in \
                        schemas/history/";
            assert_eq!(
                newest.as_deref(),
                Some(schema_text(kind)),
                "{}: {hint}",
                kind.plural()
            );
        }
    }

    #[test]
    fn changes_that_strand_old_records_are_seen() {
        let now = schema_text(PayloadKind::Caption);
        let change = |from: &str, to: &str| {
            assert!(now.contains(from), "{from}");
            now.replacen(from, to, 1)
        };
        let added = |default: &str| {
            change(
                r#"{ "name": "text","#,
                &format!(r#"{{ "name": "mood", "type": "string"{default} }}, {{ "name": "text","#),
            )
        };
        assert!(!reads(&added(""), now), "a new field without a default");
        assert!(
            reads(&added(r#", "default": """#), now),
            "a new field with a default"
        );
        assert!(
            !reads(
                &change(
                    r#""name": "text", "type": "string""#,
                    r#""name": "text", "type": "long""#
                ),
                now
            ),
            "a changed type"
        );
        assert!(
            reads(
                &change(
                    r#"["unknown", "stop", "length"]"#,
                    r#"["unknown", "stop", "length", "filtered"]"#
                ),
                now
            ),
            "a new symbol"
        );
    }
}
