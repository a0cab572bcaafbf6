//! How a stream ended and what was lost on the way.

use crate::error::Error;

/// How a stream ended.
#[derive(Debug, Clone)]
pub(crate) enum StreamEnd {
    /// The file or the connection came to its end.
    EndOfStream,
    /// It broke off.
    Failed(Error),
    /// It was stopped from here.
    Stopped,
}

/// What was lost before it became a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LossCounts {
    /// Frames that came out but that the decoder marked as damaged, or whose pts or duration is.
    pub(crate) corrupt: u64,
    /// Packets, at least, that became no frame, known at the end; 0 for codecs with packets that
    /// show nothing (VP8, VP9, AV1).
    pub(crate) undecodable: u64,
    /// Places where the next frame came more than half a frame late: lost frames, or a rate that
    /// varies.
    pub(crate) holes: u64,
    /// Warnings of GStreamer's elements.
    pub(crate) warnings: u64,
}
