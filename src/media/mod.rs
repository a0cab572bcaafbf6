//! GStreamer: a URI becomes views of frames and of sound; frames become pictures.
//!
//! One GStreamer pipeline a stream: `uridecodebin ! tee`, and a branch a view, `queue ! videoscale
//! ! videoconvert ! appsink`; beside it, where sound is wanted, `audioconvert ! audioresample !
//! tee`, and an appsink a view. Nothing is dropped for lack of time inside it: a view that nobody
//! reads blocks its branch, then the tee, the decoder and the source.

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
mod samples;
mod sound;
mod timeline;
mod uri;
mod view;

#[cfg(test)]
mod tests;

pub use digest::digest;
pub use doctor::doctor;
pub use handle::{End, Handle, Lost};
pub use log::init;
pub use open::{Opened, VideoInfo, open};
pub use options::{Fraction, Options, Sound, View};
pub use picture::{Encoding, contact_sheet, decode, encode, jpeg};
pub use playlist::{is_complete, is_playlist};
pub use sound::{Heard, SoundReader};
pub use uri::redact;
pub use view::{Captured, ViewReader};
