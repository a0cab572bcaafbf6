//! How patient a pull is with its hub.

use std::time::Duration;

/// How long a hub may be silent, and how often it is asked again.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    /// Silence after which a connection counts as broken.
    pub read_timeout: Duration,
    /// Tries in a row that bring nothing until it is given up.
    pub tries: u32,
    /// The pause before the second try; it doubles with each further one.
    pub first_pause: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            read_timeout: Duration::from_secs(30),
            tries: 6,
            first_pause: Duration::from_secs(1),
        }
    }
}
