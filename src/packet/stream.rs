//! What a packet belongs to: its stream, the epoch within it, and the times of both clocks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds since 1970-01-01 UTC.
pub type Micros = i64;

/// Nanoseconds of running time since the stream's epoch began.
pub type Nanos = u64;

/// The wall clock, in microseconds since 1970.
pub fn now_micros() -> Micros {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| {
            elapsed.as_secs() as Micros * 1_000_000 + Micros::from(elapsed.subsec_micros())
        })
}

/// Where a stream's event times come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimeSource {
    /// The sender's clock, by NTP or RTCP.
    Ntp,
    /// Our clock at the moment of connection.
    Ingest,
    /// A file has no clock: our clock when it was opened, plus pts.
    File,
}

impl TimeSource {
    /// The symbol in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            TimeSource::Ntp => "ntp",
            TimeSource::Ingest => "ingest",
            TimeSource::File => "file",
        }
    }
}

/// One video source in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// As given, or derived from the source's id and the canonical URI.
    pub id: Arc<str>,
    /// As given in the YAML.
    pub labels: BTreeMap<String, String>,
    /// The id of this run of the pipeline over the stream.
    pub session: Arc<str>,
    /// Whether it comes at its own pace and cannot be read again.
    pub live: bool,
    /// Where event times come from.
    pub time_source: TimeSource,
}

/// A stretch of a stream: `start <= pts < end`, in nanoseconds. A point in time has `end == start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Span {
    /// First instant inside.
    pub start: Nanos,
    /// First instant outside.
    pub end: Nanos,
}

impl Span {
    /// From `start` up to `end`.
    pub const fn new(start: Nanos, end: Nanos) -> Self {
        Self { start, end }
    }

    /// Length in nanoseconds.
    pub const fn len(self) -> Nanos {
        self.end.saturating_sub(self.start)
    }

    /// Whether it has no length.
    pub const fn is_empty(self) -> bool {
        self.end <= self.start
    }

    /// Whether `pts` lies inside.
    pub const fn contains(self, pts: Nanos) -> bool {
        self.start <= pts && pts < self.end
    }
}
