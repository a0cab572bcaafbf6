//! What a reader takes from its appsink: samples, waited for without a thread.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use tokio::sync::watch;

use super::intake::{Intake, Tap};
use crate::error::Error;

/// The samples of one appsink. When it falls, the branch before it runs dry.
pub(super) struct Samples {
    pub intake: Arc<Intake>,
    pub sink: gst_app::AppSink,
    tap: Arc<Tap>,
    closed: watch::Receiver<bool>,
    finished: bool,
}

impl Samples {
    pub fn new(sink: gst_app::AppSink, intake: &Arc<Intake>, tap: &Arc<Tap>) -> Self {
        let (sample, eos) = (Arc::clone(tap), Arc::clone(tap));
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
            tap: Arc::clone(tap),
            closed: intake.closed.subscribe(),
            intake: Arc::clone(intake),
            finished: false,
        }
    }

    /// The next sample, `None` at the end. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<gst::Sample> {
        while !self.finished {
            if *self.closed.borrow_and_update() {
                break;
            }
            if let Some(sample) = self.sink.try_pull_sample(gst::ClockTime::ZERO) {
                self.tap.since.store(self.intake.now(), Ordering::Release);
                return Some(sample);
            }
            if self.sink.is_eos() {
                break;
            }
            let _waiting = Waiting::begin(&self.tap);
            tokio::select! {
                () = self.tap.arrived.notified() => {}
                _ = self.closed.changed() => {}
            }
        }
        self.finish();
        None
    }

    /// Ends the whole stream for what its samples are.
    pub fn fail(&mut self, error: Error) {
        self.intake.fail(error);
        self.finish();
    }

    /// Nothing more is read.
    pub fn finish(&mut self) {
        self.finished = true;
        self.tap.gone.store(true, Ordering::Release);
    }
}

impl Drop for Samples {
    fn drop(&mut self) {
        self.tap.gone.store(true, Ordering::Release);
        self.sink
            .set_callbacks(gst_app::AppSinkCallbacks::builder().build());
        self.sink.set_property("wait-on-eos", false);
        self.sink.set_drop(true);
        // Wakes the branch if it waits for room; from here on it drops.
        while self.sink.try_pull_sample(gst::ClockTime::ZERO).is_some() {}
    }
}

/// Marks a view as waited for, as long as it lives.
struct Waiting<'a>(&'a Tap);

impl<'a> Waiting<'a> {
    fn begin(tap: &'a Tap) -> Self {
        tap.waiting.store(true, Ordering::Release);
        Self(tap)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.store(false, Ordering::Release);
    }
}
