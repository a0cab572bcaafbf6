//! What a reader takes from its appsink: samples, waited for without a thread.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use tokio::sync::watch;

use super::ingest_state::{IngestState, ReaderState};
use crate::error::Error;

/// The samples of one appsink. When it is dropped, the branch before it drops what comes, and the
/// other branches go on.
pub(super) struct SampleReader {
    pub state: Arc<IngestState>,
    pub sink: gst_app::AppSink,
    reader: Arc<ReaderState>,
    closed: watch::Receiver<bool>,
    finished: bool,
}

impl SampleReader {
    pub fn new(
        sink: gst_app::AppSink,
        state: &Arc<IngestState>,
        reader: &Arc<ReaderState>,
    ) -> Self {
        // Called by the branch's streaming thread. `notify_one` keeps one permit, so a sample that
        // arrives between `try_pull_sample` and `notified` still wakes the reader.
        let (sample, eos) = (Arc::clone(reader), Arc::clone(reader));
        sink.set_callbacks(
            gst_app::AppSinkCallbacks::builder()
                .new_sample(move |_| {
                    sample.arrived.notify_one();
                    Ok(gst::FlowSuccess::Ok)
                })
                .eos(move |_| eos.arrived.notify_one())
                .build(),
        );
        Self {
            sink,
            reader: Arc::clone(reader),
            closed: state.closed.subscribe(),
            state: Arc::clone(state),
            finished: false,
        }
    }

    /// The next sample, `None` at the end. Nothing is lost when the future is dropped: a sample is
    /// pulled and returned without an await between.
    pub async fn next(&mut self) -> Option<gst::Sample> {
        while !self.finished {
            if *self.closed.borrow_and_update() {
                break;
            }
            if let Some(sample) = self.sink.try_pull_sample(gst::ClockTime::ZERO) {
                self.reader.since.store(self.state.now(), Ordering::Release);
                return Some(sample);
            }
            if self.sink.is_eos() {
                break;
            }
            let _waiting = Waiting::begin(&self.reader);
            tokio::select! {
                () = self.reader.arrived.notified() => {}
                _ = self.closed.changed() => {}
            }
        }
        self.finish();
        None
    }

    /// Fails the whole stream because a sample is not what it must be.
    pub fn fail(&mut self, error: Error) {
        self.state.fail(error);
        self.finish();
    }

    /// Nothing more is read.
    pub fn finish(&mut self) {
        self.finished = true;
        self.reader.gone.store(true, Ordering::Release);
    }
}

impl Drop for SampleReader {
    fn drop(&mut self) {
        self.reader.gone.store(true, Ordering::Release);
        self.sink
            .set_callbacks(gst_app::AppSinkCallbacks::builder().build());
        self.sink.set_property("wait-on-eos", false);
        self.sink.set_drop(true);
        // Wakes the branch if it waits for room; from here on it drops.
        while self.sink.try_pull_sample(gst::ClockTime::ZERO).is_some() {}
    }
}

/// Marks a view as waited for, as long as it lives.
struct Waiting<'a>(&'a ReaderState);

impl<'a> Waiting<'a> {
    fn begin(reader: &'a ReaderState) -> Self {
        reader.waiting.store(true, Ordering::Release);
        Self(reader)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.store(false, Ordering::Release);
    }
}
