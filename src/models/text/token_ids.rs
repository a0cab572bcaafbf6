//! The numbers of special tokens, as config files name them.

use serde_json::Value;

use crate::error::Result;
use crate::models::config::Config;

/// A field such as `eos_token_id`: a token's number or a list of them; none where it is missing.
///
/// # Errors
/// Model, where it is something else.
pub fn token_ids(config: &Config, field: &str) -> Result<Vec<u32>> {
    let Some(value) = config.field(field) else {
        return Ok(Vec::new());
    };
    let listed = value
        .as_array()
        .map_or(std::slice::from_ref(value), Vec::as_slice);
    let ends: Option<Vec<u32>> = listed
        .iter()
        .map(|id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok()))
        .collect();
    ends.ok_or_else(|| {
        config.error(format_args!(
            "`{field}` must be a token's number or a list of them, it is {value}"
        ))
    })
}
