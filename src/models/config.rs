//! A model's config.json, read field by field, so that a wrong field is named with the file it
//! stands in.

use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};

/// The content of a config.json (or another JSON object of a model folder) and where it lies.
#[derive(Debug, Clone)]
pub struct Config {
    place: String,
    value: Value,
}

impl Config {
    /// Reads the file.
    ///
    /// # Errors
    /// Config, where it cannot be read; model, where it is not a JSON object.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).map_err(|error| {
            Error::config(format!("cannot read {}", path.display())).because(error)
        })?;
        let value: Value = serde_json::from_slice(&text)
            .or_else(|error| serde_json::from_str(&without_infinities(&text).ok_or(error)?))
            .map_err(|error| {
                Error::model(format!("{} is not JSON", path.display())).because(error)
            })?;
        if !value.is_object() {
            return Err(Error::model(format!(
                "{} is not a JSON object",
                path.display()
            )));
        }
        Ok(Self {
            place: path.display().to_string(),
            value,
        })
    }

    /// An object that stands in no file, for tests and for networks built without a folder.
    pub fn of(value: Value) -> Self {
        Self {
            place: "config.json".to_owned(),
            value,
        }
    }

    /// The field as it stands; none where it is missing or null.
    pub fn field(&self, key: &str) -> Option<&Value> {
        self.value.get(key).filter(|value| !value.is_null())
    }

    /// Whether the field is there and null, where that is not the same as its absence.
    pub fn is_null(&self, key: &str) -> bool {
        self.value.get(key).is_some_and(Value::is_null)
    }

    /// Every field that is not null, by name.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Value)> {
        let fields = self.value.as_object().into_iter().flatten();
        fields
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.as_str(), value))
    }

    /// The object under `key`, to be read in the same way; an empty one where it is missing.
    ///
    /// # Errors
    /// Model, where the field is something else.
    pub fn section(&self, key: &str) -> Result<Self> {
        let value = self.optional(key, "an object", |value| value.is_object().then_some(value))?;
        let value = value
            .cloned()
            .unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        Ok(Self {
            place: format!("{}, {key}", self.place),
            value,
        })
    }

    /// An integer of 0 or more.
    ///
    /// # Errors
    /// Model, where the field is missing or something else. The same holds for the getters below.
    pub fn integer(&self, key: &str) -> Result<i64> {
        self.need(key, "an integer of 0 or more", natural)
    }

    /// As [`integer`](Self::integer), or `default` where the field is missing.
    pub fn integer_or(&self, key: &str, default: i64) -> Result<i64> {
        self.optional(key, "an integer of 0 or more", natural)
            .map(|value| value.unwrap_or(default))
    }

    /// A number, which may be infinite.
    pub fn number(&self, key: &str) -> Result<f64> {
        self.need(key, "a number", number)
    }

    /// As [`number`](Self::number), or `default` where the field is missing.
    pub fn number_or(&self, key: &str, default: f64) -> Result<f64> {
        self.optional(key, "a number", number)
            .map(|value| value.unwrap_or(default))
    }

    /// True or false, or `default` where the field is missing.
    pub fn boolean_or(&self, key: &str, default: bool) -> Result<bool> {
        self.optional(key, "true or false", Value::as_bool)
            .map(|value| value.unwrap_or(default))
    }

    /// A string.
    pub fn string(&self, key: &str) -> Result<&str> {
        self.need(key, "a string", Value::as_str)
    }

    /// As [`string`](Self::string), or `default` where the field is missing.
    pub fn string_or<'a>(&'a self, key: &str, default: &'a str) -> Result<&'a str> {
        self.optional(key, "a string", Value::as_str)
            .map(|value| value.unwrap_or(default))
    }

    /// A list of integers of 0 or more.
    pub fn integers(&self, key: &str) -> Result<Vec<i64>> {
        self.need(key, "a list of integers of 0 or more", |value| {
            value.as_array()?.iter().map(natural).collect()
        })
    }

    /// As [`integers`](Self::integers), or `default` where the field is missing.
    pub fn integers_or(&self, key: &str, default: &[i64]) -> Result<Vec<i64>> {
        if self.field(key).is_none() {
            Ok(default.to_vec())
        } else {
            self.integers(key)
        }
    }

    /// An error about one of its fields: `<path>: <message>`.
    pub fn error(&self, message: impl std::fmt::Display) -> Error {
        Error::model(format!("{}: {message}", self.place))
    }

    fn need<'a, T>(
        &'a self,
        key: &str,
        kind: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<T> {
        self.optional(key, kind, read)?
            .ok_or_else(|| self.error(format_args!("`{key}` is missing, it must be {kind}")))
    }

    fn optional<'a, T>(
        &'a self,
        key: &str,
        kind: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.field(key) else {
            return Ok(None);
        };
        read(value).map(Some).ok_or_else(|| {
            let mut found = value.to_string();
            if found.len() > 40 {
                found = found.chars().take(40).collect::<String>() + "...";
            }
            self.error(format_args!("`{key}` must be {kind}, it is {found}"))
        })
    }
}

/// What Python writes for infinite numbers is no JSON: it becomes a string that [`number`] knows.
/// None where the text is not UTF-8.
fn without_infinities(text: &[u8]) -> Option<String> {
    let mut rest = std::str::from_utf8(text).ok()?;
    let mut out = String::with_capacity(rest.len());
    let (mut quoted, mut escaped) = (false, false);
    while let Some(next) = rest.chars().next() {
        let infinity = [("-Infinity", "\"-inf\""), ("Infinity", "\"inf\"")]
            .into_iter()
            .find(|(word, _)| !quoted && rest.starts_with(word));
        if let Some((word, number)) = infinity {
            out += number;
            rest = &rest[word.len()..];
            continue;
        }
        quoted ^= next == '"' && !escaped;
        escaped = next == '\\' && !escaped;
        out.push(next);
        rest = &rest[next.len_utf8()..];
    }
    Some(out)
}

fn number(value: &Value) -> Option<f64> {
    match value.as_str() {
        Some("inf") => Some(f64::INFINITY),
        Some("-inf") => Some(f64::NEG_INFINITY),
        _ => value.as_f64(),
    }
}

fn natural(value: &Value) -> Option<i64> {
    value.as_i64().filter(|number| *number >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_come_typed() {
        let config =
            Config::of(json!({"a": 3, "b": 0.5, "c": "relu", "d": [1, 2], "e": true, "f": null}));
        assert_eq!(config.integer("a").unwrap(), 3);
        assert_eq!(config.number("a").unwrap(), 3.0);
        assert_eq!(config.number("b").unwrap(), 0.5);
        assert_eq!(config.string("c").unwrap(), "relu");
        assert_eq!(config.integers("d").unwrap(), [1, 2]);
        assert!(config.boolean_or("e", false).unwrap());
        assert_eq!(config.integer_or("f", 7).unwrap(), 7);
        assert_eq!(config.integers_or("missing", &[4]).unwrap(), [4]);
    }

    #[test]
    fn wrong_fields_are_named_with_what_they_must_be() {
        let config = Config::of(json!({"a": -3, "d": [1, "x"]}));
        assert_eq!(
            config.integer("a").unwrap_err().message(),
            "config.json: `a` must be an integer of 0 or more, it is -3"
        );
        assert_eq!(
            config.integer_or("a", 1).unwrap_err().kind(),
            crate::error::Kind::Model
        );
        assert_eq!(
            config.string("b").unwrap_err().message(),
            "config.json: `b` is missing, it must be a string"
        );
        assert!(config.integers("d").is_err());
    }

    #[test]
    fn pythons_infinities_are_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scheduler_config.json");
        std::fs::write(&path, r#"{"lambda_min_clipped": -Infinity, "max": Infinity, "name": "\"Infinity-Infinity", "half": 0.5}"#).unwrap();
        let config = Config::read(&path).unwrap();
        assert_eq!(
            config.number("lambda_min_clipped").unwrap(),
            f64::NEG_INFINITY
        );
        assert_eq!(
            (
                config.number("max").unwrap(),
                config.number_or("half", 1.).unwrap()
            ),
            (f64::INFINITY, 0.5)
        );
        assert_eq!(config.string("name").unwrap(), "\"Infinity-Infinity");
    }

    #[test]
    fn sections_are_read_as_the_whole_is() {
        let config = Config::of(json!({"text_config": {"a": -3, "b": 2}, "c": 4}));
        let section = config.section("text_config").unwrap();
        assert_eq!(section.integer("b").unwrap(), 2);
        assert_eq!(
            section.integer("a").unwrap_err().message(),
            "config.json, text_config: `a` must be an integer of 0 or more, it is -3"
        );
        assert_eq!(
            config
                .section("vision_config")
                .unwrap()
                .integer_or("b", 7)
                .unwrap(),
            7
        );
        assert!(config.section("c").is_err());
    }

    #[test]
    fn what_is_no_object_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        assert_eq!(
            Config::read(&path).unwrap_err().kind(),
            crate::error::Kind::Config
        );
        for text in ["[1]", "{\"a\": "] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(
                Config::read(&path).unwrap_err().kind(),
                crate::error::Kind::Model
            );
        }
    }
}
