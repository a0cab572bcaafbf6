//! How much a queue may hold, what it does when it is full, and what it has seen.

use std::time::Duration;

/// What a full queue does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// The sender waits: nothing is lost.
    Block,
    /// The oldest packet makes room.
    DropOldest,
    /// The packet that comes is dropped.
    DropNewest,
}

/// The key `queue:` of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueSettings {
    /// Most packets inside.
    pub frames: usize,
    /// Most bytes inside; a single packet above it passes alone.
    pub bytes: usize,
    /// What happens when a packet does not fit.
    pub when_full: WhenFull,
    /// A packet that arrived longer ago is dropped when it is read.
    pub max_age: Option<Duration>,
}

/// What a queue has seen, for status and metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// Packets inside now.
    pub frames: usize,
    /// Bytes inside now.
    pub bytes: usize,
    /// Most bytes ever inside.
    pub peak_bytes: usize,
    /// Packets accepted.
    pub accepted: u64,
    /// Packets dropped because it was full.
    pub dropped_full: u64,
    /// Packets dropped because they had waited too long.
    pub dropped_stale: u64,
    /// Time senders spent waiting for room.
    pub blocked: Duration,
    /// How long the last packet that was timed lay inside; one is timed at a time.
    pub wait: Duration,
    /// Packets timed.
    pub timed: u64,
}
