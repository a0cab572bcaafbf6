//! A running stream in a caller's hands: starting it, waiting for its end, stopping it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use tokio::task::JoinHandle;

use super::ingest_state::IngestState;
use super::monitor::watch;
use super::outcome::{LossCounts, StreamEnd};
use crate::error::{Error, Result};

/// How long GStreamer may take to let go.
const STOP: Duration = Duration::from_secs(10);

/// A running stream. Dropping it stops the stream.
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
        // On a thread of its own, because some sources connect while they change state.
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
    pub(crate) async fn ended(&mut self) -> StreamEnd {
        let mut end = self.state.end.subscribe();
        match end.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or(StreamEnd::Stopped),
            Err(_) => StreamEnd::Stopped,
        }
    }

    /// What was lost so far.
    pub(crate) fn lost(&self) -> LossCounts {
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
