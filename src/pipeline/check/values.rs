//! Checked values in the forms that plans want.

use crate::config::{Params, Provenance, Value};

pub(super) fn to_usize(number: i64) -> usize {
    usize::try_from(number).unwrap_or_default()
}

/// A text of a mapping with free keys.
pub(super) fn text_of(value: &Value) -> &str {
    value.as_text().map_or("", |text| text)
}

/// Puts a value where none was given.
pub(super) fn default(params: &mut Params, key: &'static str, value: Value) {
    if params.setting(key).is_none() {
        params.insert(key, value, Provenance::Default);
    }
}
