//! Opening a stream.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use gstreamer as gst;
use gstreamer::prelude::*;

use super::graph::{self, Graph};
use super::handle::StreamHandle;
use super::ingest_state::{DecodedFormat, IngestState};
use super::log::init;
use super::mp4;
use super::options::{FrameRate, Options};
use super::outcome::StreamEnd;
use super::sound_reader::SoundReader;
use super::uri::MediaSource;
use super::view_reader::ViewReader;
use crate::error::{Error, Result};
use crate::packet::{Micros, Nanos};
use crate::redact::redact;

/// What a stream carries, as its first frame shows.
#[derive(Debug, Clone, PartialEq)]
pub struct VideoInfo {
    /// Pixels a row, upright.
    pub width: u32,
    /// Rows, upright.
    pub height: u32,
    /// Its rate; none where it varies or is unknown.
    pub fps: Option<FrameRate>,
    /// `h264`, `h265`, `vp9`, ...; `raw` for test pictures.
    pub codec: String,
    /// Its length, where it has one.
    pub duration: Option<Nanos>,
    /// The sender's wall clock at pts 0; none unless [`Options::sender_clock`].
    pub began: Option<Micros>,
    /// Whether it has sound, as far as it has said by then.
    pub has_audio: bool,
}

/// A stream whose first frame has been decoded.
#[derive(Debug)]
pub struct OpenedStream {
    /// A reader for each of the views asked for, in their order.
    pub views: Vec<ViewReader>,
    /// A reader for each of the views of sound asked for, in their order.
    pub sounds: Vec<SoundReader>,
    /// Its life.
    pub handle: StreamHandle,
    /// What it carries.
    pub info: VideoInfo,
}

/// Opens a path, a `file`, `http(s)`, `rtmp(s)`, `rtsp(s)`, `srt` or `test` URI, and waits for its
/// first frame. An HLS playlist is an http URI.
///
/// # Errors
/// `config` where the URI cannot be meant, `external` where the source does not answer within
/// `options.connect`, has no video, cannot be decoded, or has pictures above `options.max_pixels`.
/// No message holds the URI's credentials.
pub async fn open(uri: &str, options: &Options) -> Result<OpenedStream> {
    init()?;
    options.check()?;
    let text = uri.to_owned();
    let source = tokio::task::spawn_blocking(move || MediaSource::parse(&text))
        .await
        .map_err(|error| Error::bug("a URI").because(error))??;
    let path = whole(&source, uri).await?;
    let state = Arc::new(IngestState::new(redact(uri), options.clone()));
    let Graph {
        pipeline,
        views,
        sounds,
    } = graph::build(&source, &state)?;
    let (mut first, mut end) = (state.first.subscribe(), state.end.subscribe());
    let weak = pipeline.downgrade();
    let mut handle = StreamHandle::start(pipeline, Arc::clone(&state), path)?;
    let picture = tokio::select! {
        biased;
        picture = first.wait_for(Option::is_some) => picture.ok().and_then(|picture| *picture),
        _ = end.wait_for(Option::is_some) => None,
    };
    let Some(picture) = picture else {
        let end = handle.ended().await;
        handle.stop().await;
        return Err(match end {
            StreamEnd::Failed(error) => error,
            StreamEnd::EndOfStream | StreamEnd::Stopped => {
                Error::external(format!("{} ended without a frame", state.name))
            }
        });
    };
    let duration = match weak.upgrade() {
        Some(pipeline) if !options.live => pipeline
            .query_duration::<gst::ClockTime>()
            .map(gst::ClockTime::nseconds),
        _ => None,
    };
    Ok(OpenedStream {
        views,
        sounds,
        handle,
        info: describe(&state, picture, duration),
    })
}

/// The path of a file that has at least an index.
async fn whole(source: &MediaSource, uri: &str) -> Result<Option<PathBuf>> {
    let MediaSource::File(path, _) = source else {
        return Ok(None);
    };
    let known = path.clone();
    let boxes = tokio::task::spawn_blocking(move || mp4::scan(&known))
        .await
        .ok()
        .flatten();
    match boxes {
        Some(boxes) if !boxes.has_index => Err(Error::external(format!(
            "{} has no index (no moov box): it is cut off or was never finished",
            redact(uri)
        ))),
        _ => Ok(Some(path.clone())),
    }
}

fn describe(state: &IngestState, picture: DecodedFormat, duration: Option<Nanos>) -> VideoInfo {
    VideoInfo {
        width: picture.width,
        height: picture.height,
        fps: picture.fps,
        codec: state
            .codec
            .lock()
            .clone()
            .unwrap_or_else(|| "unknown".to_owned()),
        duration,
        began: *state.began.lock(),
        has_audio: state.has_audio.load(Ordering::Acquire),
    }
}
