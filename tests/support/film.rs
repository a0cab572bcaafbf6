//! Films made for the tests: a stretch of the sample film with two cuts, and generated ones.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;
use tempfile::TempDir;

use super::env;

struct Films {
    _folder: TempDir,
    short: PathBuf,
    tests: PathBuf,
}

static FILMS: LazyLock<Films> = LazyLock::new(|| {
    gst::init().unwrap();
    let folder = TempDir::new().unwrap();
    let (short, tests) = (folder.path().join("short.mp4"), folder.path().join("patterns.mp4"));
    cut(Path::new(&env("OPUSFLOW_TEST_FILM")), &short, 80, 92);
    patterns(&tests);
    Films { _folder: folder, short, tests }
});

/// Twelve seconds of the sample film, with cuts after 3.4 s and 10.9 s.
pub fn short() -> &'static Path {
    &FILMS.short
}

/// Six seconds, two each: colour bars, snow (whose pictures are large), a ball.
pub fn patterns_film() -> &'static Path {
    &FILMS.tests
}

const ENCODE: &str = "videoconvert ! video/x-raw,format=I420 ! x264enc speed-preset=veryfast bitrate=1500 threads=1 ! mp4mux ! filesink";

/// Decoded from one place to another, and encoded again by a second pipeline: encoders and muxers do not survive a seek.
fn cut(film: &Path, to: &Path, from_s: u64, to_s: u64) {
    let decode = gst::parse::launch(&format!(
        "filesrc location={} ! qtdemux ! h264parse ! avdec_h264 max-threads=1 ! videoscale ! video/x-raw,width=480,height=270 !
         appsink name=out sync=false max-buffers=8",
        film.display()
    ));
    let decode = decode.unwrap().downcast::<gst::Pipeline>().unwrap();
    let out = decode.by_name("out").unwrap().downcast::<gst_app::AppSink>().unwrap();
    decode.set_state(gst::State::Paused).unwrap();
    decode.state(gst::ClockTime::from_seconds(30)).0.unwrap();
    let (start, stop) = (gst::ClockTime::from_seconds(from_s), gst::ClockTime::from_seconds(to_s));
    let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE;
    decode.seek(1.0, flags, gst::SeekType::Set, start, gst::SeekType::Set, stop).unwrap();
    decode.set_state(gst::State::Playing).unwrap();

    let encode = gst::parse::launch(&format!("appsrc name=in format=time block=true ! {ENCODE} location={}", to.display()));
    let encode = encode.unwrap().downcast::<gst::Pipeline>().unwrap();
    let into = encode.by_name("in").unwrap().downcast::<gst_app::AppSrc>().unwrap();
    encode.set_state(gst::State::Playing).unwrap();
    while let Ok(sample) = out.pull_sample() {
        let mut buffer = sample.buffer_owned().unwrap();
        let pts = buffer.pts().unwrap().saturating_sub(start);
        buffer.make_mut().set_pts(pts);
        into.push_sample(&gst::Sample::builder().caps(&sample.caps_owned().unwrap()).buffer(&buffer).build()).unwrap();
    }
    into.end_of_stream().unwrap();
    play(encode.upcast_ref());
    decode.set_state(gst::State::Null).unwrap();
}

fn patterns(to: &Path) {
    let source = |pattern: &str| {
        format!("videotestsrc pattern={pattern} num-buffers=50 ! video/x-raw,format=I420,width=480,height=270,framerate=25/1 ! c. ")
    };
    let sources: String = ["smpte", "snow", "ball"].map(source).concat();
    play(&gst::parse::launch(&format!("concat name=c ! {ENCODE} location={} {sources}", to.display())).unwrap());
}

fn play(pipeline: &gst::Element) {
    pipeline.set_state(gst::State::Playing).unwrap();
    let bus = pipeline.bus().unwrap();
    let wanted = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = bus.timed_pop_filtered(gst::ClockTime::from_seconds(60), &wanted).expect("the film is made within a minute");
    assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
    pipeline.set_state(gst::State::Null).unwrap();
}
