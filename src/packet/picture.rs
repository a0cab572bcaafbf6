//! Pictures: decoded frames, and encoded pictures in the object store.

use std::sync::Arc;

use bytes::Bytes;

use super::stream::Micros;

/// How pixels lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PixelFormat {
    /// Three bytes a pixel: red, green, blue.
    Rgb8,
}

impl PixelFormat {
    /// GStreamer's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            PixelFormat::Rgb8 => "RGB",
        }
    }

    /// Bytes of one pixel.
    pub(crate) const fn bytes_per_pixel(self) -> usize {
        match self {
            PixelFormat::Rgb8 => 3,
        }
    }
}

/// One decoded picture of a view. Its pts is the packet's `span.start`.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The view it belongs to.
    pub view: Arc<str>,
    /// Number within (stream, view, epoch), from 0.
    pub index: u64,
    /// Pixels a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Bytes from one row to the next, at least `width * format.bytes_per_pixel()`.
    pub stride: u32,
    /// How pixels lie in memory.
    pub format: PixelFormat,
    /// `height` rows of `stride` bytes (the last may end with its pixels), over the decoder's own
    /// memory where it is mapped.
    pub pixels: Bytes,
}

/// An encoded picture, held by the object store.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// What it is for: `keyframe`, `thumbnail`.
    pub role: String,
    /// Where it lies.
    pub uri: String,
    /// SHA-256 of `data`, hexadecimal.
    pub sha256: String,
    /// IANA media type.
    pub media_type: String,
    /// Pixels a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// When the store may delete it; none for never.
    pub expires_at: Option<Micros>,
    /// The encoded bytes.
    pub data: Bytes,
    /// Whether `data` travels in the record.
    pub inline: bool,
    /// How much painted frames flicker beyond their sources: luma levels, 0 to 255, over the
    /// segment or since the picture before.
    pub flicker: Option<f32>,
}
