//! The names of a classifier's classes, from config.json.

use std::sync::Arc;

use super::config::Config;
use crate::error::Result;

/// `num_labels`, or as many as `id2label` names, or `default`.
///
/// # Errors
/// Model, where `num_labels` is no number.
pub fn count(config: &Config, default: i64) -> Result<i64> {
    let named = config
        .field("id2label")
        .and_then(|labels| labels.as_object())
        .map(|labels| labels.len() as i64);
    config.integer_or("num_labels", named.unwrap_or(default))
}

/// `id2label`'s names up to the first comma (`tench, Tinca tinca` is `tench`), `class_N` where it
/// has none.
///
/// # Errors
/// Model, where it has not `count` of them.
pub fn names(config: &Config, count: i64) -> Result<Arc<[Arc<str>]>> {
    let Some(field) = config.field("id2label") else {
        return Ok(numbered(count));
    };
    let map = field
        .as_object()
        .ok_or_else(|| config.error("`id2label` must be an object of names by number"))?;
    if map.len() as i64 != count {
        return Err(config.error(format_args!(
            "`id2label` has {} names for {count} classes",
            map.len()
        )));
    }
    let name = |index: i64| -> Arc<str> {
        let name = map
            .get(&index.to_string())
            .and_then(|name| name.as_str())
            .and_then(|name| name.split(',').next());
        name.map(str::trim)
            .filter(|name| !name.is_empty())
            .map_or_else(|| format!("class_{index}").into(), Arc::from)
    };
    Ok((0..count).map(name).collect())
}

/// `class_0`, `class_1` and so on.
pub fn numbered(count: i64) -> Arc<[Arc<str>]> {
    (0..count)
        .map(|index| Arc::from(format!("class_{index}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn labels_are_first_lemmas() {
        let of = |config: serde_json::Value, count| -> Vec<String> {
            names(&Config::of(config), count)
                .unwrap()
                .iter()
                .map(ToString::to_string)
                .collect()
        };
        assert_eq!(
            of(
                json!({"id2label": {"0": "tench, Tinca tinca", "1": "cock", "2": ""}}),
                3
            ),
            ["tench", "cock", "class_2"]
        );
        assert_eq!(of(json!({}), 2), ["class_0", "class_1"]);
        assert!(names(&Config::of(json!({"id2label": {"0": "a"}})), 2).is_err());
        assert_eq!(
            count(&Config::of(json!({"id2label": {"0": "a"}})), 9).unwrap(),
            1
        );
        assert_eq!(count(&Config::of(json!({})), 9).unwrap(), 9);
    }
}
