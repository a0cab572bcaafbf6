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
mod ingest_state;
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

pub use digest::file_digest;
pub use doctor::required_elements;
pub use handle::{LossCounts, StreamEnd, StreamHandle};
pub use log::init;
pub use open::{OpenedStream, VideoInfo, open};
pub use options::{FrameRate, Options, SoundView, View};
pub use picture::{PictureEncoding, contact_sheet, decode_picture, encode_jpeg, encode_picture};
pub use playlist::{is_playlist, playlist_is_complete};
pub use sound::{CapturedAudio, SoundReader};
pub use uri::redact_uris;
pub use view::{CapturedFrame, ViewReader};
