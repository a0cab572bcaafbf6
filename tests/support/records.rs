//! Records as the file sink's JSON lines have them, and the comparison with what foreign clients
//! read.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::json_lines;

/// Records by id, by plural kind.
pub type Records = BTreeMap<String, BTreeMap<String, Value>>;

/// Every JSON lines file of the one stream under `out`, with the stream's id. Every id is there
/// once.
pub fn of_files(out: &Path) -> (String, Records) {
    let mut folders: Vec<_> = std::fs::read_dir(out)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    folders.retain(|folder| !folder.ends_with("objects"));
    let folder = folders.pop().expect("a stream's folder");
    assert!(folders.is_empty(), "one stream: {folders:?}");
    let mut records = Records::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if let Some(kind) = name.strip_suffix(".jsonl") {
            let lines = json_lines(&std::fs::read_to_string(&path).unwrap());
            let kept = by_id(&lines);
            assert_eq!(kept.len(), lines.len(), "{name}: ids repeat");
            records.insert(kind.to_owned(), kept);
        }
    }
    (
        folder.file_name().unwrap().to_str().unwrap().to_owned(),
        records,
    )
}

/// Records by their ids.
pub fn by_id<'a>(records: impl IntoIterator<Item = &'a Value>) -> BTreeMap<String, Value> {
    records
        .into_iter()
        .map(|record| {
            (
                record["meta"]["id"].as_str().unwrap().to_owned(),
                canonical(record),
            )
        })
        .collect()
}

/// The same value with each fraction as the 32-bit number that every float of the schemas is: JSON
/// gives its shortest text, decoders widen it.
pub fn canonical(value: &Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => Value::from(number.as_f64().unwrap() as f32),
        Value::Array(items) => items.iter().map(canonical).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), canonical(value)))
            .collect::<Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

/// Fails at the first record that differs, with its kind and id.
#[track_caller]
pub fn same(read: &BTreeMap<String, Value>, written: &BTreeMap<String, Value>, kind: &str) {
    for (id, record) in written {
        assert_eq!(read.get(id), Some(record), "{kind} {id}");
    }
    assert_eq!(
        read.len(),
        written.len(),
        "{kind}: records that the files lack"
    );
}

/// Records without what differs from run to run: when it ran, under which session and
/// configuration.
pub fn timeless(records: &BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    let strip = |record: &Value| {
        let mut record = record.clone();
        let meta = record["meta"].as_object_mut().unwrap();
        [
            "session",
            "config_hash",
            "event_time",
            "ingest_time",
            "emit_time",
        ]
        .iter()
        .for_each(|field| drop(meta.remove(*field)));
        record
    };
    records
        .iter()
        .map(|(id, record)| (id.clone(), strip(record)))
        .collect()
}
