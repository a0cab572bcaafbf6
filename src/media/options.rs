//! What a caller asks of a stream: its views and its limits.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};

/// How long pieces of sound may be.
const PIECES: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(60);

/// A rate in frames per second, as a fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FrameRate {
    /// Frames.
    pub num: u32,
    /// In as many seconds.
    pub den: u32,
}

impl FrameRate {
    /// `num / den` frames a second.
    pub const fn new(num: u32, den: u32) -> Self {
        Self { num, den }
    }

    /// Nanoseconds from one frame to the next; none where the rate is 0 or not a number.
    pub(crate) fn period(self) -> Option<u64> {
        (self.num > 0)
            .then(|| u64::from(self.den) * 1_000_000_000 / u64::from(self.num))
            .filter(|period| *period > 0)
    }
}

/// How a picture becomes one of another shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// All of it, its shape given up.
    Stretch,
    /// All of it in its shape, with black bars.
    Contain,
    /// The middle of it in its shape, what stands over cut off.
    Cover,
}

/// One way of seeing a stream. All views of a stream share one decoder and one timeline.
#[derive(Debug, Clone)]
pub struct View {
    /// Its name, unique in the stream.
    pub(crate) name: Arc<str>,
    /// At most so many frames a second, the nearest ones of those decoded, none made up; `None`
    /// gives every frame.
    pub(crate) fps: Option<FrameRate>,
    /// Width and height in pixels; `None` as decoded.
    pub(crate) size: Option<(u32, u32)>,
    /// How a picture of another shape becomes one of `size`.
    pub(crate) fit: Fit,
    /// Frames that may wait for the reader; as many and two more may be in the branch before it.
    pub(crate) queue: u32,
}

impl View {
    /// Every frame as decoded.
    pub fn native(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            fps: None,
            size: None,
            fit: Fit::Stretch,
            queue: 4,
        }
    }

    /// The same, scaled.
    #[must_use]
    pub fn sized(mut self, width: u32, height: u32) -> Self {
        self.size = Some((width, height));
        self
    }
}

/// A stream's sound as a view: one channel of 16,000 samples a second, on the timeline of the
/// pictures.
#[derive(Debug, Clone)]
pub struct SoundView {
    /// Its name, unique in the stream.
    pub name: Arc<str>,
    /// How long its pieces are.
    pub piece: Duration,
}

/// How a stream is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// The views, at least one.
    pub views: Vec<View>,
    /// The views of its sound.
    pub sounds: Vec<SoundView>,
    /// Whether it comes at its own pace. The pts of a live stream begin at 0 with its first decoded
    /// frame.
    pub live: bool,
    /// The stream fails when every reader has waited this long and no frame was decoded meanwhile.
    pub stall: Duration,
    /// Opening fails when no frame was decoded after this time.
    pub connect: Duration,
    /// Pictures with more pixels are refused before they are decoded.
    pub max_pixels: u64,
    /// How long network sources (RTSP, SRT) may hold packets back to put them in order; `None`
    /// leaves it to the source.
    pub latency: Option<Duration>,
    /// RTSP: whether the stream begins with the first frame whose sender has said by a report
    /// (RTCP) when it was taken.
    pub sender_clock: bool,
    /// Whether interlaced pictures are deinterlaced, one frame for two fields.
    pub deinterlace: bool,
    /// Threads of the decoder; 0 lets it choose.
    pub decode_threads: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            views: vec![View::native("frames")],
            sounds: Vec::new(),
            live: false,
            stall: Duration::from_secs(10),
            connect: Duration::from_secs(10),
            max_pixels: 8192 * 8192,
            latency: None,
            sender_clock: false,
            deinterlace: true,
            decode_threads: 1,
        }
    }
}

impl Options {
    pub(super) fn check(&self) -> Result<()> {
        if self.views.is_empty() && self.sounds.is_empty() {
            return Err(Error::config("a stream needs at least one view"));
        }
        if let Some(sound) = self
            .sounds
            .iter()
            .find(|sound| !PIECES.contains(&sound.piece))
        {
            return Err(Error::config(format!(
                "view `{}`: pieces of sound are {PIECES:?} long",
                sound.name
            )));
        }
        for view in &self.views {
            let name = &view.name;
            if view
                .fps
                .is_some_and(|fps| fps.den == 0 || fps.period().is_none())
            {
                return Err(Error::config(format!("view `{name}`: fps must be above 0")));
            }
            if view.queue == 0 {
                return Err(Error::config(format!(
                    "view `{name}`: queue must be at least 1"
                )));
            }
            if let Some((width, height)) = view.size
                && (width == 0
                    || height == 0
                    || width > 32_768
                    || height > 32_768
                    || u64::from(width) * u64::from(height) > self.max_pixels)
            {
                return Err(Error::config(format!(
                    "view `{name}`: size {width}x{height} is not between 1x1 and {} pixels",
                    self.max_pixels
                )));
            }
        }
        Ok(())
    }
}
