//! GStreamer: a URI becomes views of frames; frames become pictures.
//!
//! One GStreamer pipeline a stream: `uridecodebin3 ! tee` (`uridecodebin` for HLS), and a branch a view, `queue ! videoscale !
//! videoconvert ! appsink`. Nothing is
//! dropped for lack of time inside it: a view that nobody reads blocks its branch, then the tee, the decoder and the source.

mod branch;
mod digest;
mod doctor;
mod graph;
mod handle;
mod intake;
mod iso;
mod jpeg;
mod log;
mod open;
mod options;
mod picture;
mod playlist;
mod uri;
mod view;

#[cfg(test)]
mod tests;

pub use digest::digest;
pub use doctor::doctor;
pub use handle::{End, Handle, Lost};
pub use log::init;
pub use open::{Opened, VideoInfo, open};
pub use options::{Fraction, Options, View};
pub use picture::{contact_sheet, jpeg};
pub use playlist::{is_complete, is_playlist};
pub use uri::redact;
pub use view::{Captured, ViewReader};
