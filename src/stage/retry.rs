//! The key `retry:` of a stage.

use std::time::Duration;

/// How often a packet is tried again after an error that may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Tries in all, at least 1.
    pub attempts: u32,
    /// The pause before the second try; it doubles with each further one.
    pub backoff: Duration,
}
