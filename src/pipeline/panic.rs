//! A caught panic as an error.

use std::any::Any;

use crate::error::Error;

/// What a panic said, as an error.
pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    Error::bug(format!(
        "panicked: {}",
        text.unwrap_or_else(|| "no message".to_owned())
    ))
}
