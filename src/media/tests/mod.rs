//! Streams from end to end on small films made here; this file makes and plays them.

mod damage;
mod flow;
mod frames;
mod pictures;
mod refusal;
mod sound;

use std::path::PathBuf;
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use tempfile::TempDir;

use super::outcome::LossCounts;
use super::*;

const FRAMES: usize = 90;
const VIDEO: &str = "videotestsrc num-buffers=90 pattern=ball ! \
                                video/x-raw,format=I420,width=160,height=120,framerate=30/1 ! \
                                x264enc bframes=0 key-int-max=10 speed-preset=ultrafast ! \
                                h264parse";
const AUDIO: &str = "audiotestsrc num-buffers=130 ! audioconvert ! avenc_aac";

struct Film {
    path: PathBuf,
    _dir: TempDir,
}

impl Film {
    /// Runs a pipeline text that ends in a muxer named `m`.
    pub fn make(name: &str, text: &str) -> Self {
        init().expect("GStreamer");
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(name);
        let text = format!("{text} m. ! filesink location={}", path.display());
        let pipeline = gst::parse::launch(&text).expect("a pipeline");
        pipeline.set_state(gst::State::Playing).expect("starts");
        let bus = pipeline.bus().expect("a bus");
        let end = bus
            .timed_pop_filtered(
                gst::ClockTime::from_seconds(30),
                &[gst::MessageType::Eos, gst::MessageType::Error],
            )
            .expect("an end");
        assert!(matches!(end.view(), gst::MessageView::Eos(_)), "{end:?}");
        pipeline.set_state(gst::State::Null).expect("stops");
        Self { path, _dir: dir }
    }

    pub fn video() -> Self {
        Self::make("film.mp4", &format!("mp4mux name=m {VIDEO} ! m."))
    }

    pub fn uri(&self) -> String {
        self.path.display().to_string()
    }

    fn change(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut data = std::fs::read(&self.path).expect("read");
        change(&mut data);
        std::fs::write(&self.path, data).expect("written");
    }
}

fn options(views: Vec<View>) -> Options {
    Options {
        views,
        connect: Duration::from_secs(20),
        stall: Duration::from_secs(20),
        ..Options::default()
    }
}

async fn drain(mut view: ViewReader) -> Vec<CapturedFrame> {
    let mut frames = Vec::new();
    while let Some(captured) = view.next().await {
        frames.push(captured);
    }
    frames
}

async fn refused(uri: &str, options: &Options) -> crate::Error {
    tokio::time::timeout(Duration::from_secs(15), open(uri, options))
        .await
        .expect("an answer in time")
        .expect_err("refused")
}

/// Opens, reads the only view to its end, and returns how it ended.
async fn play(uri: &str) -> (Vec<CapturedFrame>, StreamEnd, LossCounts) {
    let OpenedStream {
        mut views,
        mut handle,
        ..
    } = open(uri, &options(vec![View::native("all").sized(32, 24)]))
        .await
        .expect("opens");
    let frames = tokio::time::timeout(Duration::from_secs(30), drain(views.remove(0)))
        .await
        .expect("no hang");
    let end = handle.ended().await;
    let lost = handle.lost();
    handle.stop().await;
    (frames, end, lost)
}
