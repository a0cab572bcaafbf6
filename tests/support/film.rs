//! Films made for the tests: a stretch of the sample film with two cuts, and generated ones.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;
use tempfile::TempDir;

use super::{env, folder};

struct Films {
    _folder: TempDir,
    short: PathBuf,
    tests: PathBuf,
}

/// Samples a second of the film that speaks.
const RATE: usize = 16_000;

static FILMS: LazyLock<Films> = LazyLock::new(|| {
    gst::init().unwrap();
    let folder = folder();
    let (short, tests) = (
        folder.path().join("short.mp4"),
        folder.path().join("patterns.mp4"),
    );
    cut(Path::new(&env("OPUSFLOW_TEST_FILM")), &short, 80, 92);
    patterns(&tests);
    Films {
        _folder: folder,
        short,
        tests,
    }
});

/// Twelve seconds of the sample film, with two cuts in them.
pub fn short() -> &'static Path {
    &FILMS.short
}

/// Six seconds, two each: colour bars, snow (whose pictures are large), a ball.
pub fn patterns_film() -> &'static Path {
    &FILMS.tests
}

/// Makes half a minute of test pictures beside what the sample film says from 68 to 82 s, 5 s of
/// silence before it, 6 s in the middle of it (after 8 s) and 2 s at the end.
pub fn spoken(to: &Path) {
    gst::init().unwrap();
    let silence = |seconds: usize| vec![0; seconds * RATE * 2];
    let said = sound(Path::new(&env("OPUSFLOW_TEST_FILM")));
    let said = |from: usize, to: usize| said[from * RATE * 2..to * RATE * 2].to_vec();
    let samples = [
        silence(5),
        said(68, 76),
        silence(6),
        said(76, 82),
        silence(2),
    ]
    .concat();
    let frames = samples.len() / RATE / 2 * 5;
    let pictures = format!(
        "videotestsrc num-buffers={frames} ! \
         video/x-raw,format=I420,width=64,height=48,framerate=5/1 ! x264enc speed-preset=ultrafast"
    );
    mux(&pictures, &samples, to);
}

/// Makes the twelve seconds of `short` with what the sample film says in them.
pub fn talking(to: &Path) {
    let samples = &sound(Path::new(&env("OPUSFLOW_TEST_FILM")))[80 * RATE * 2..92 * RATE * 2];
    mux(
        &format!(
            "filesrc location={} ! qtdemux ! h264parse",
            short().display()
        ),
        samples,
        to,
    );
}

/// A Matroska film of encoded pictures and of samples.
fn mux(pictures: &str, samples: &[u8], to: &Path) {
    let wave = to.with_extension("wav");
    std::fs::write(
        &wave,
        [wave_header(samples.len() as u32).as_slice(), samples].concat(),
    )
    .unwrap();
    let pipeline = launch(&format!(
        "{pictures} ! queue ! mux. filesrc location={} ! wavparse ! queue ! mux. matroskamux \
         name=mux ! filesink location={}",
        wave.display(),
        to.display()
    ));
    finish(&pipeline);
}

/// Before 16-bit samples of one channel.
fn wave_header(bytes: u32) -> Vec<u8> {
    let (rate, int, short) = (RATE as u32, u32::to_le_bytes, u16::to_le_bytes);
    let format = [
        int(16).as_slice(),
        &short(1),
        &short(1),
        &int(rate),
        &int(2 * rate),
        &short(2),
        &short(16),
    ]
    .concat();
    [
        b"RIFF".as_slice(),
        &int(36 + bytes),
        b"WAVEfmt ",
        &format,
        b"data",
        &int(bytes),
    ]
    .concat()
}

/// A film's sound: one channel of 16-bit samples.
fn sound(film: &Path) -> Vec<u8> {
    let source = launch(&format!(
        "filesrc location={} ! qtdemux ! audio/mpeg ! aacparse ! avdec_aac ! audioconvert ! audioresample !
         audio/x-raw,format=S16LE,rate={RATE},channels=1,layout=interleaved ! appsink name=out sync=false",
        film.display()
    ));
    let out = source
        .by_name("out")
        .unwrap()
        .downcast::<gst_app::AppSink>()
        .unwrap();
    source.set_state(gst::State::Playing).unwrap();
    let mut samples = Vec::new();
    while let Ok(sample) = out.pull_sample() {
        samples.extend_from_slice(&sample.buffer().unwrap().map_readable().unwrap());
    }
    source.set_state(gst::State::Null).unwrap();
    samples
}

/// A film under way: frames are poured in and encoded. (Encoders and muxers survive neither a seek
/// nor a joint in one pipeline.)
struct Film {
    pipeline: gst::Pipeline,
    into: gst_app::AppSrc,
    frames: u64,
}

impl Film {
    fn new(to: &Path) -> Self {
        let pipeline = launch(&format!(
            "appsrc name=in format=time block=true ! videoconvert ! video/x-raw,format=I420 ! x264enc speed-preset=veryfast bitrate=1500
             threads=1 ! mp4mux ! filesink location={}",
            to.display()
        ));
        let into = pipeline
            .by_name("in")
            .unwrap()
            .downcast::<gst_app::AppSrc>()
            .unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        Self {
            pipeline,
            into,
            frames: 0,
        }
    }

    /// Adds what a pipeline gives from one second to another, at `rate` frames a second.
    fn pour(&mut self, source: &str, seconds: Option<(u64, u64)>, rate: u64) {
        let source = launch(&format!(
            "{source} ! appsink name=out sync=false max-buffers=8"
        ));
        let out = source
            .by_name("out")
            .unwrap()
            .downcast::<gst_app::AppSink>()
            .unwrap();
        source.set_state(gst::State::Paused).unwrap();
        source.state(gst::ClockTime::from_seconds(30)).0.unwrap();
        if let Some((start, stop)) = seconds.map(|(start, stop)| {
            (
                gst::ClockTime::from_seconds(start),
                gst::ClockTime::from_seconds(stop),
            )
        }) {
            let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE;
            source
                .seek(
                    1.0,
                    flags,
                    gst::SeekType::Set,
                    start,
                    gst::SeekType::Set,
                    stop,
                )
                .unwrap();
        }
        source.set_state(gst::State::Playing).unwrap();
        while let Ok(sample) = out.pull_sample() {
            let mut buffer = sample.buffer_owned().unwrap();
            let at = |frame: u64| gst::ClockTime::from_nseconds(frame * 1_000_000_000 / rate);
            let (pts, next) = (at(self.frames), at(self.frames + 1));
            let stamped = buffer.make_mut();
            stamped.set_pts(pts);
            stamped.set_dts(gst::ClockTime::NONE);
            stamped.set_duration(next - pts);
            self.into
                .push_sample(
                    &gst::Sample::builder()
                        .caps(&sample.caps_owned().unwrap())
                        .buffer(&buffer)
                        .build(),
                )
                .unwrap();
            self.frames += 1;
        }
        source.set_state(gst::State::Null).unwrap();
    }

    fn finish(self) {
        self.into.end_of_stream().unwrap();
        finish(&self.pipeline);
    }
}

/// Runs a pipeline to its end.
fn finish(pipeline: &gst::Pipeline) {
    pipeline.set_state(gst::State::Playing).unwrap();
    let wanted = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = pipeline
        .bus()
        .unwrap()
        .timed_pop_filtered(gst::ClockTime::from_seconds(60), &wanted);
    let message = message.expect("the film is made within a minute");
    assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
    pipeline.set_state(gst::State::Null).unwrap();
}

fn launch(text: &str) -> gst::Pipeline {
    gst::parse::launch(text).unwrap().downcast().unwrap()
}

fn cut(film: &Path, to: &Path, from_s: u64, to_s: u64) {
    let source = format!(
        "filesrc location={} ! qtdemux ! h264parse ! avdec_h264 max-threads=1 ! videoscale ! \
         video/x-raw,width=480,height=270",
        film.display()
    );
    let mut film = Film::new(to);
    film.pour(&source, Some((from_s, to_s)), 30);
    film.finish();
}

fn patterns(to: &Path) {
    let mut film = Film::new(to);
    for pattern in ["smpte", "snow", "ball"] {
        let size = "video/x-raw,format=I420,width=480,height=270,framerate=25/1";
        film.pour(
            &format!("videotestsrc pattern={pattern} num-buffers=50 ! {size}"),
            None,
            25,
        );
    }
    film.finish();
}
