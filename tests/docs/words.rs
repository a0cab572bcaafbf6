//! What stands in `backticks` exists: keys of pipelines, kinds, fields of records, metrics, options,
//! variables and files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::commands::{HELP, Help, exists, is_path};
use super::pages::{Page, pages};
use super::shell;
use super::site::Site;
use crate::support::root;

/// Words of others: of Kafka and its clients, of Python and of Diffusers' folders.
const FOREIGN: [&str; 13] = [
    "architectures",
    "confluent_kafka",
    "diffusers",
    "generate",
    "huggingface_hub",
    "KafkaAvroDeserializer",
    "numpy.frombuffer",
    "text_encoder",
    "torch.jit.save",
    "torch.jit.script",
    "torch.jit.trace",
    "transformers",
    "unet",
];

/// What the names of files end in.
const FILES: [&str; 12] = [
    ".avro",
    ".jpg",
    ".json",
    ".jsonl",
    ".md",
    ".pt",
    ".py",
    ".rs",
    ".safetensors",
    ".so",
    ".vtt",
    ".yaml",
];

/// What the program knows.
struct Vocabulary {
    /// Keys of pipelines and fields of records.
    keys: BTreeSet<String>,
    /// What they may be, and kinds of records.
    values: BTreeSet<String>,
    metrics: BTreeSet<String>,
    help: &'static Help,
    /// Every source file.
    sources: Vec<PathBuf>,
    /// All source, scripts, schemas and manifests.
    code: String,
}

impl Vocabulary {
    fn new() -> Self {
        let site = Site::new();
        let (mut keys, mut values) = (BTreeSet::new(), BTreeSet::new());
        let schema: Value = serde_json::from_str(&site.said(&["config", "schema"])).unwrap();
        pipeline_words(&schema, &mut keys, &mut values);
        for entry in fs::read_dir(root().join("schemas")).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let schema = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
                record_words(&schema, &mut keys, &mut values);
            }
        }
        let list = site.said(&["schemas", "list"]);
        values.extend(
            list.lines()
                .filter_map(|line| line.split_whitespace().next())
                .map(str::to_owned),
        );
        let mut code = String::new();
        for folder in ["src", "ops", "tests", "schemas", "pipelines", "benches"] {
            read_all(&root().join(folder), &mut code);
        }
        for file in ["Cargo.toml", "build.rs", "docker-compose.yml", "deny.toml"] {
            code.push_str(&fs::read_to_string(root().join(file)).unwrap());
        }
        let mut telemetry = String::new();
        read_all(&root().join("src/telemetry"), &mut telemetry);
        let strings = telemetry.split('"');
        let is_name = |text: &&str| {
            (text.starts_with("opusflow_") || text.starts_with("process_"))
                && text
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        };
        let metrics: BTreeSet<_> = strings.filter(is_name).map(str::to_owned).collect();
        assert!(metrics.len() > 50, "{metrics:?}");
        Self {
            keys,
            values,
            metrics,
            help: &HELP,
            sources: files(&root().join("src")),
            code,
        }
    }

    /// Whether the code has this word.
    fn in_code(&self, word: &str) -> bool {
        let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        self.code.match_indices(word).any(|(at, _)| {
            !is_part(self.code[..at].chars().next_back())
                && !is_part(self.code[at + word.len()..].chars().next())
        })
    }

    /// Whether a metric has this name, or where it ends in `*` one begins with it.
    fn is_metric(&self, name: &str) -> bool {
        let known = |metric: &String| {
            name.strip_suffix('*')
                .map_or(metric == name, |prefix| metric.starts_with(prefix))
        };
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end));
        self.metrics.iter().any(known) || base.is_some_and(|base| self.metrics.contains(base))
    }

    /// Whether the code has this as a text of its own: a value, a label, a header, a reason.
    fn is_text(&self, word: &str) -> bool {
        self.code.contains(&format!("\"{word}\""))
    }

    /// What is wrong with a span of a page.
    fn fault(&self, page: &Page, span: &str) -> Option<String> {
        if FOREIGN.contains(&span) {
            return None;
        }
        if let Some(rest) = span.strip_prefix("opusflow ") {
            return self.help.fault(&shell::split(rest));
        }
        let is_metric = |word: &&str| {
            ["opusflow_", "process_"]
                .iter()
                .any(|prefix| word.starts_with(prefix))
        };
        let mut names = span
            .split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '*')))
            .filter(is_metric)
            .peekable();
        if names.peek().is_some() {
            let unknown = names.find(|name| !self.is_metric(name) && !self.is_text(name));
            return unknown.map(|name| format!("there is no metric `{name}`"));
        }
        if span.starts_with("--") {
            let option = span.split([' ', '=']).next().unwrap_or(span);
            return (!self.help.has(option)).then(|| format!("there is no option `{option}`"));
        }
        if is_path(span) {
            let path = span.split_whitespace().next().unwrap_or(span);
            return (!exists(path)).then(|| format!("there is no file `{path}`"));
        }
        if span.ends_with(".rs") && !span.contains(' ') {
            let there = self.sources.iter().any(|path| path.ends_with(span));
            return (!there).then(|| format!("no source file is called `{span}`"));
        }
        if FILES.iter().any(|ending| span.ends_with(ending)) {
            return None;
        }
        if page.path == "CONTRIBUTING.md" {
            let is_name = span.chars().all(|c| c.is_alphanumeric() || c == '_');
            return (is_name && !self.in_code(span)).then(|| format!("the code has no `{span}`"));
        }
        let is_variable = span.len() > 3
            && span.contains('_')
            && span.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        if is_variable || is_class(span) {
            return (!self.in_code(span)).then(|| format!("the code has no `{span}`"));
        }
        self.unknown_key(span)
    }

    /// The first key, kind, field or value in a span that nobody knows.
    fn unknown_key(&self, span: &str) -> Option<String> {
        let is_known = |word: &&str| {
            self.keys.contains(*word)
                || FOREIGN.contains(word)
                || !word.contains(|c: char| c.is_ascii_lowercase())
        };
        let is_value = |word: &&str| {
            is_known(word)
                || self.values.contains(*word)
                || self.is_text(word)
                || self.help.is_command(word)
        };
        // `key`, `a.b`, `inputs[].queue`, and `key: value`.
        let (path, value) = span
            .split_once(": ")
            .map_or((span, None), |(path, value)| (path, Some(value)));
        let mut keys: Vec<&str> = Vec::new();
        let mut values: Vec<&str> = value.into_iter().filter(|value| is_word(value)).collect();
        if is_word(span) {
            values.push(span);
        } else if is_key_path(path) {
            keys.extend(path.split('.').map(|part| part.trim_end_matches("[]")));
        }
        // `{ key: value, ... }`
        for part in span.split(['{', ',']).skip(1) {
            let key = part.split_once(':').map(|(key, _)| key.trim());
            keys.extend(key.filter(|key| is_word(key)));
        }
        let unknown = keys.into_iter().find(|key| !is_known(key));
        unknown
            .or_else(|| values.into_iter().find(|value| !is_value(value)))
            .map(|word| format!("nobody knows `{word}`"))
    }
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Names of keys, with dots between; a part in capitals stands for any name.
fn is_key_path(text: &str) -> bool {
    !text.is_empty()
        && text.split('.').all(|part| {
            let part = part.trim_end_matches("[]");
            is_word(part) || (!part.is_empty() && part.chars().all(|c| c.is_ascii_uppercase()))
        })
}

/// `TransNetV2`, `LlamaForCausalLM`: capitals inside a word.
fn is_class(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.chars().all(|c| c.is_ascii_alphanumeric())
        && text.chars().filter(char::is_ascii_lowercase).count() > 2
        && text.chars().skip(1).any(|c| c.is_ascii_uppercase())
}

/// Names of properties and what they may be, anywhere in the JSON Schema.
fn pipeline_words(schema: &Value, keys: &mut BTreeSet<String>, values: &mut BTreeSet<String>) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map {
                match (key.as_str(), value) {
                    ("properties", Value::Object(properties)) => {
                        keys.extend(properties.keys().cloned());
                    }
                    ("enum", Value::Array(choices)) => {
                        values.extend(choices.iter().filter_map(Value::as_str).map(str::to_owned));
                    }
                    ("const" | "default", Value::String(value)) => {
                        values.insert(value.clone());
                    }
                    _ => {}
                }
                pipeline_words(value, keys, values);
            }
        }
        Value::Array(items) => items
            .iter()
            .for_each(|item| pipeline_words(item, keys, values)),
        _ => {}
    }
}

/// Names of fields and symbols, anywhere in a record's schema.
fn record_words(schema: &Value, keys: &mut BTreeSet<String>, values: &mut BTreeSet<String>) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::Array(symbols)) = map.get("symbols") {
                values.extend(symbols.iter().filter_map(Value::as_str).map(str::to_owned));
            }
            if let Some(Value::Array(fields)) = map.get("fields") {
                let names = fields.iter().filter_map(|field| field["name"].as_str());
                keys.extend(names.map(str::to_owned));
            }
            map.values()
                .for_each(|value| record_words(value, keys, values));
        }
        Value::Array(items) => items
            .iter()
            .for_each(|item| record_words(item, keys, values)),
        _ => {}
    }
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// The texts of all files below a folder.
fn read_all(folder: &Path, out: &mut String) {
    // What these tests themselves say proves nothing.
    let own = root().join("tests/docs");
    for path in files(folder).iter().filter(|path| !path.starts_with(&own)) {
        out.push_str(&fs::read_to_string(path).unwrap_or_default());
    }
}

#[test]
fn names_in_backticks_exist() {
    let vocabulary = Vocabulary::new();
    let mut wrong = Vec::new();
    let mut count = 0;
    for page in pages() {
        for (place, span) in page.spans() {
            count += 1;
            wrong.extend(
                vocabulary
                    .fault(&page, &span)
                    .map(|fault| format!("{place}: {fault}")),
            );
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 400, "{count} spans");
}

#[test]
fn names_that_nothing_has_are_found() {
    let vocabulary = Vocabulary::new();
    let page = Page {
        path: "docs/x.md".into(),
        blocks: Vec::new(),
        prose: Vec::new(),
    };
    for good in [
        "queue.frames",
        "when_full: drop_oldest",
        "{ path: owner/name, pull: missing }",
        "opusflow_stage_retries_total",
        "opusflow_stage_*",
        "--linger",
        "opusflow models list --json",
        "models.NAME",
        "LlamaForCausalLM",
        "HF_HOME",
        "ops/setup models",
        "codec/record.rs",
    ] {
        assert_eq!(vocabulary.fault(&page, good), None, "{good}");
    }
    for bad in [
        "queue.frame",
        "when_full: drop_old",
        "{ path: owner/name, pulls: missing }",
        "opusflow_stage_retry_total",
        "opusflow_stoge_*",
        "--lingers",
        "opusflow models list --yaml",
        "LamaForCausalLM",
        "OPUSFLOW_MODEL",
        "ops/set-up models",
        "codec/recrod.rs",
    ] {
        assert!(vocabulary.fault(&page, bad).is_some(), "{bad}");
    }
}
