//! GStreamer: a URI becomes views of frames and of sound; frames become pictures.
//!
//! One GStreamer pipeline a stream: `uridecodebin ! tee`, and a branch a view, `queue ! videoscale
//! ! videoconvert ! appsink`; beside it, where sound is wanted, `audioconvert ! audioresample !
//! tee`, and an appsink a view. Nothing is dropped for lack of time inside it: a view that nobody
//! reads blocks its branch, then the tee, the decoder and the source.
//!
//! `open` checks a source (`uri`), builds its `graph` and starts it (`handle`, `monitor`).
//! `stream_selection` chooses what is decoded, `element_settings` limits it, `packet_probes` counts
//! it; `retiming` puts it on the `timeline`; `view_reader` and `sound_reader` hand it out.

mod audio_branch;
mod contact_sheet;
mod decimator;
mod digest;
mod doctor;
mod download;
mod element_settings;
mod elements;
mod graph;
mod handle;
mod ingest_state;
mod jpeg_header;
mod log;
mod monitor;
mod mp4;
mod open;
mod options;
mod outcome;
mod packet_probes;
mod picture;
mod piece_cutter;
mod playlist;
mod retiming;
mod sample_reader;
mod sound_reader;
mod stream_selection;
mod test_source;
mod timeline;
mod uri;
mod uri_source;
mod view_branch;
mod view_reader;

#[cfg(test)]
mod tests;

pub(crate) use contact_sheet::contact_sheet;
pub(crate) use digest::file_digest;
pub(crate) use doctor::required_elements;
pub use handle::StreamHandle;
pub use log::init;
pub use open::{OpenedStream, VideoInfo, open};
pub use options::{Fit, FrameRate, Options, SoundView, View};
pub(crate) use outcome::StreamEnd;
pub(crate) use picture::{PictureEncoding, decode_picture, encode_jpeg, encode_picture};
pub(crate) use playlist::{is_playlist, playlist_is_complete};
pub use sound_reader::{CapturedAudio, SoundReader};
pub use view_reader::{CapturedFrame, ViewReader};
