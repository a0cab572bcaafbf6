//! On whose behalf a worker is asked: it decides an item's turn.

use std::sync::Arc;
use std::time::Instant;

/// On whose behalf an item is asked.
#[derive(Debug, Clone)]
pub struct Requester {
    /// Streams take turns.
    pub stream: Arc<str>,
    /// Live streams go before files.
    pub live: bool,
    /// When the answer is of no use any more.
    pub deadline: Option<Instant>,
}

impl Requester {
    /// For a stream, without a deadline.
    pub fn new(stream: impl Into<Arc<str>>, live: bool) -> Self {
        Self {
            stream: stream.into(),
            live,
            deadline: None,
        }
    }
}
