//! Watching a stream and ending it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use gstreamer as gst;
use gstreamer::prelude::*;
use tokio::task::JoinHandle;

use super::ingest_state::IngestState;
use super::iso;
use super::uri::redact_uris;
use crate::error::{Error, Result};

const TICK: Duration = Duration::from_millis(100);
/// How long after an error the frames before it may take to come out.
const DRAIN: Duration = Duration::from_millis(500);
/// How long a video stream may take to appear after an audio stream, and the other way round.
pub(super) const SECOND_STREAM: Duration = Duration::from_secs(2);
/// How long GStreamer may take to let go.
const STOP: Duration = Duration::from_secs(10);

/// How a stream ended.
#[derive(Debug, Clone)]
pub enum StreamEnd {
    /// The file or the connection came to its end.
    EndOfStream,
    /// It broke off.
    Failed(Error),
    /// It was stopped from here.
    Stopped,
}

/// What was lost before it became a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LossCounts {
    /// Frames that came out but that the decoder marked as damaged.
    pub corrupt: u64,
    /// Packets, at least, that became no frame, known at the end; 0 for codecs with packets that
    /// show nothing (VP8, VP9, AV1).
    pub undecodable: u64,
    /// Places where the next frame came more than half a frame late: lost frames, or a rate that
    /// varies.
    pub holes: u64,
    /// Warnings of GStreamer's elements.
    pub warnings: u64,
}

/// A running stream. Stops it when it falls.
pub struct StreamHandle {
    pipeline: Option<gst::Pipeline>,
    state: Arc<IngestState>,
    monitor: JoinHandle<()>,
}

impl StreamHandle {
    /// Starts `pipeline` and its watch; must be called within tokio.
    pub(super) fn start(
        pipeline: gst::Pipeline,
        state: Arc<IngestState>,
        path: Option<PathBuf>,
    ) -> Result<Self> {
        let bus = pipeline
            .bus()
            .ok_or_else(|| Error::bug("a pipeline without bus"))?;
        // Listens before anything can speak: a message that is posted while the stream of messages
        // is being made can be lost.
        let monitor = tokio::spawn(watch(bus.stream(), Arc::clone(&state), path));
        let handle = Self {
            pipeline: Some(pipeline.clone()),
            state,
            monitor,
        };
        // Some sources connect while they change state.
        spawn_thread("media-start", move || {
            if pipeline.set_state(gst::State::Playing).is_err() {
                gst::element_error!(
                    pipeline,
                    gst::CoreError::StateChange,
                    ["it cannot be started"]
                );
            }
        })?;
        Ok(handle)
    }

    /// Waits for the end. Frames that were decoded before it come out first, for readers that read.
    pub async fn ended(&mut self) -> StreamEnd {
        let mut end = self.state.end.subscribe();
        match end.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or(StreamEnd::Stopped),
            Err(_) => StreamEnd::Stopped,
        }
    }

    /// What was lost so far.
    pub fn lost(&self) -> LossCounts {
        self.state.lost()
    }

    /// Stops the stream: readers end at once, GStreamer lets go of the source. Does nothing the
    /// second time.
    pub async fn stop(&mut self) {
        let Some(stopped) = self.release() else {
            return;
        };
        if tokio::time::timeout(STOP, stopped).await.is_err() {
            tracing::warn!(source = %self.state.name, "GStreamer has not let go of a source \
                                                        within {STOP:?}");
        }
    }

    /// Gives the pipeline to a thread that shuts it down, for that may block.
    fn release(&mut self) -> Option<tokio::sync::oneshot::Receiver<()>> {
        self.state.settle(StreamEnd::Stopped);
        self.monitor.abort();
        let pipeline = self.pipeline.take()?;
        let (done, stopped) = tokio::sync::oneshot::channel();
        let shut = spawn_thread("media-stop", move || {
            if pipeline.set_state(gst::State::Null).is_err() {
                tracing::warn!("a GStreamer pipeline does not stop");
            }
            drop(pipeline);
            done.send(()).ok();
        });
        if let Err(error) = shut {
            tracing::error!(%error, "a GStreamer pipeline is left running");
        }
        Some(stopped)
    }
}

impl Drop for StreamHandle {
    fn drop(&mut self) {
        self.release();
    }
}

impl fmt::Debug for StreamHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamHandle({})", self.state.name)
    }
}

/// Runs what may block on a thread of its own: neither tokio's workers nor its blocking threads,
/// which the shutdown of a runtime waits for.
fn spawn_thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let spawned = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work);
    spawned
        .map(drop)
        .map_err(|error| Error::overload("no thread can be started").because(error))
}

/// Follows the bus until the stream has ended.
async fn watch(mut messages: gst::bus::BusStream, state: Arc<IngestState>, path: Option<PathBuf>) {
    let mut failure = state.failure.subscribe();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut pending: Option<Error> = None;
    loop {
        tokio::select! {
            message = messages.next() => {
                let Some(message) = message else { return };
                match message.view() {
                    gst::MessageView::Eos(_) => return state.settle(at_end(&state, pending, path).await),
                    gst::MessageView::Error(error) => {
                        let error = explain(&state, error);
                        pending.get_or_insert(error);
                    }
                    gst::MessageView::Warning(warning) => {
                        state.warnings.fetch_add(1, Ordering::AcqRel);
                        let detail = warning.debug().map(|text| redact_uris(&text));
                        tracing::debug!(source = %state.name, detail, "{}", redact_uris(warning.error().message()));
                    }
                    _ => {}
                }
            }
            _ = failure.changed() => {}
            _ = tick.tick() => {}
        }
        if let Some(error) = failure.borrow_and_update().clone() {
            return state.settle(StreamEnd::Failed(error));
        }
        if let Some(error) = overdue(&state, &mut pending) {
            return state.settle(StreamEnd::Failed(error));
        }
    }
}

/// What ends a stream without a word from GStreamer: it never began, it has no video, it stands
/// still.
fn overdue(state: &IngestState, pending: &mut Option<Error>) -> Option<Error> {
    let name = &state.name;
    if state.first.borrow().is_none() {
        let since = Duration::from_millis(state.now());
        let audio_only =
            state.has_audio.load(Ordering::Acquire) && !state.has_video.load(Ordering::Acquire);
        if audio_only && (since > SECOND_STREAM.min(state.options.connect) || pending.is_some()) {
            return Some(no_video(state));
        }
        if pending.is_some() {
            return pending.take();
        }
        let late = since > state.options.connect;
        return late.then(|| late_frame(state));
    }
    let idle = state.idle()?;
    if pending.is_some() {
        return if idle > DRAIN { pending.take() } else { None };
    }
    (idle > state.options.stall)
        .then(|| Error::external(format!("{name}: no frame for {:?}", state.options.stall)))
}

fn late_frame(state: &IngestState) -> Error {
    let (name, connect) = (&state.name, state.options.connect);
    match state.untimed.load(Ordering::Acquire) {
        0 => Error::external(format!("{name}: no frame within {connect:?} of connecting")),
        _ => Error::external(format!(
            "{name}: no report of its sender's clock within {connect:?} of connecting"
        ))
        .hint("raise `connect`, or take the time of arrival: `clock: ingest`"),
    }
}

fn no_video(state: &IngestState) -> Error {
    Error::external(format!("{} has no video stream (audio only)", state.name))
}

async fn at_end(state: &IngestState, pending: Option<Error>, path: Option<PathBuf>) -> StreamEnd {
    let name = &state.name;
    if state.decoded.load(Ordering::Acquire) == 0
        && state.has_audio.load(Ordering::Acquire)
        && !state.has_video.load(Ordering::Acquire)
    {
        return StreamEnd::Failed(no_video(state));
    }
    if let Some(error) = pending {
        return StreamEnd::Failed(error);
    }
    let cut_off = match path {
        Some(path) => tokio::task::spawn_blocking(move || iso::survey(&path)?.cut_off)
            .await
            .ok()
            .flatten(),
        None => state.download.lock().cut_off(),
    };
    if let Some((have, need)) = cut_off {
        return StreamEnd::Failed(Error::external(format!(
            "{name} is cut off: it has {have} of at least {need} bytes"
        )));
    }
    if state.decoded.load(Ordering::Acquire) == 0 {
        return StreamEnd::Failed(Error::external(format!("{name} ended without a frame")));
    }
    StreamEnd::EndOfStream
}

fn is_source(object: &gst::Object) -> bool {
    object
        .downcast_ref::<gst::Element>()
        .is_some_and(|element| element.element_flags().contains(gst::ElementFlags::SOURCE))
}

/// GStreamer's error in words, with what to do where that is known.
fn explain(state: &IngestState, message: &gst::message::Error) -> Error {
    let name = &state.name;
    let error = message.error();
    let element = message
        .src()
        .map(|source| source.name().to_string())
        .unwrap_or_default();
    tracing::debug!(source = %name, element, detail = message.debug().map(|text| redact_uris(&text)), "{}", redact_uris(error.message()));
    let text = redact_uris(error.message().trim_end_matches('.'));
    match error.kind::<gst::StreamError>() {
        Some(gst::StreamError::TypeNotFound | gst::StreamError::WrongType) => {
            Error::external(format!("{name} is no video that GStreamer knows: {text}"))
        }
        Some(gst::StreamError::CodecNotFound) => Error::external(format!("{name}: {text}"))
            .hint("a decoder is missing; `opusflow doctor` lists what is installed"),
        // A source's last word where it has none of its own, a refused connection among them.
        Some(gst::StreamError::Failed) if message.src().is_some_and(is_source) => {
            Error::external(format!("{name} cannot be read: {text}"))
                .hint("see that it is there and answers")
        }
        _ => Error::external(format!("{name}: {text}")),
    }
}
