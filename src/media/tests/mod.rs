//! Streams from end to end on small films made here: counts, times, zero copy, damage,
//! backpressure, stopping.

mod sound;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::error::Kind;

const FRAMES: usize = 90;
pub(super) const VIDEO: &str = "videotestsrc num-buffers=90 pattern=ball ! \
                                video/x-raw,format=I420,width=160,height=120,framerate=30/1 ! \
                                x264enc bframes=0 key-int-max=10 speed-preset=ultrafast ! \
                                h264parse";
pub(super) const AUDIO: &str = "audiotestsrc num-buffers=130 ! audioconvert ! avenc_aac";

pub(super) struct Film {
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

pub(super) fn options(views: Vec<View>) -> Options {
    Options {
        views,
        connect: Duration::from_secs(20),
        stall: Duration::from_secs(20),
        ..Options::default()
    }
}

pub(super) async fn drain(mut view: ViewReader) -> Vec<CapturedFrame> {
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

/// Opens, reads the only view to its end, and tells the end.
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

#[tokio::test]
async fn every_encoded_frame_comes_out_once_in_order() {
    let film = Film::video();
    let opened = open(&film.uri(), &options(vec![View::native("all")]))
        .await
        .expect("opens");
    let info = opened.info.clone();
    assert_eq!(
        (
            info.width,
            info.height,
            info.fps,
            info.codec.as_str(),
            info.has_audio
        ),
        (160, 120, Some(FrameRate::new(30, 1)), "h264", false)
    );
    assert_eq!(info.duration, Some(3_000_000_000));
    let OpenedStream {
        mut views,
        mut handle,
        ..
    } = opened;
    let frames = drain(views.remove(0)).await;
    assert!(matches!(handle.ended().await, StreamEnd::EndOfStream));
    assert_eq!(handle.lost(), LossCounts::default());
    assert_eq!(frames.len(), FRAMES);
    for (index, captured) in frames.iter().enumerate() {
        assert_eq!(captured.frame.index, index as u64);
        assert_eq!(
            (
                captured.frame.width,
                captured.frame.height,
                captured.frame.stride
            ),
            (160, 120, 480)
        );
        assert!(
            captured
                .span
                .start
                .abs_diff(index as u64 * 1_000_000_000 / 30)
                < 1_000_000,
            "frame {index} at {}",
            captured.span.start
        );
    }
}

/// Each in a pipeline of its own, one after the other: whatever races there are at a start get
/// their chance.
#[tokio::test]
async fn one_film_after_another_begins() {
    let film = Film::make(
        "film.mp4",
        &format!("mp4mux name=m {VIDEO} ! m. {AUDIO} ! m."),
    );
    for turn in 0..100 {
        let OpenedStream {
            mut views,
            mut handle,
            ..
        } = open(&film.uri(), &options(vec![View::native("all")]))
            .await
            .unwrap_or_else(|error| panic!("turn {turn}: {error}"));
        assert!(views.remove(0).next().await.is_some());
        handle.stop().await;
    }
}

#[tokio::test]
async fn pixels_are_the_memory_of_the_sink() {
    let mut opened = open(
        "test://?frames=20&size=64x48",
        &options(vec![View::native("all")]),
    )
    .await
    .expect("opens");
    let reader = opened.views.remove(0);
    let (seen, sunk) = (
        std::sync::Arc::new(parking_lot::Mutex::new(Vec::new())),
        reader.samples.sink.static_pad("sink").expect("a pad"),
    );
    let addresses = std::sync::Arc::clone(&seen);
    sunk.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let map = info
            .buffer()
            .expect("a buffer")
            .map_readable()
            .expect("mapped");
        addresses.lock().push(map.as_slice().as_ptr() as usize);
        gst::PadProbeReturn::Ok
    });
    let frames = drain(reader).await;
    let last: Vec<usize> = frames
        .iter()
        .rev()
        .take(8)
        .map(|captured| captured.frame.pixels.as_ptr() as usize)
        .collect();
    let passed: Vec<usize> = seen.lock().iter().rev().take(8).copied().collect();
    assert_eq!(last, passed);
}

#[tokio::test]
async fn views_share_pts_and_a_thin_view_is_exact() {
    let film = Film::video();
    let views = vec![
        View::native("all").sized(48, 27),
        View::native("thin").at(FrameRate::new(2, 1)),
    ];
    let OpenedStream {
        mut views,
        mut handle,
        ..
    } = open(&film.uri(), &options(views)).await.expect("opens");
    let (thin, all) = (views.remove(1), views.remove(0));
    let (all, thin) = tokio::join!(drain(all), drain(thin));
    assert!(matches!(handle.ended().await, StreamEnd::EndOfStream));
    assert_eq!((all.len(), thin.len()), (FRAMES, 6));
    for (tick, captured) in thin.iter().enumerate() {
        assert_eq!(captured.span.start, all[tick * 15].span.start);
        assert_eq!(captured.span.len(), 500_000_000);
    }
    assert_eq!((all[0].frame.width, all[0].frame.height), (48, 27));
}

#[tokio::test]
async fn a_view_faster_than_its_film_keeps_every_frame() {
    let uri = "test://?frames=12&fps=10&size=64x48";
    let views = vec![View::native("fast").at(FrameRate::new(60, 1))];
    let mut opened = open(uri, &options(views)).await.expect("opens");
    assert_eq!(drain(opened.views.remove(0)).await.len(), 12);
}

#[tokio::test]
async fn sound_does_not_hold_up_the_picture() {
    let film = Film::make(
        "both.mp4",
        &format!("mp4mux name=m {VIDEO} ! m. {AUDIO} ! m."),
    );
    let OpenedStream {
        mut views,
        mut handle,
        info,
        ..
    } = open(&film.uri(), &options(vec![View::native("all")]))
        .await
        .expect("opens");
    assert!(info.has_audio);
    assert_eq!(drain(views.remove(0)).await.len(), FRAMES);
    assert!(matches!(handle.ended().await, StreamEnd::EndOfStream));
}

#[tokio::test]
async fn sound_alone_is_refused() {
    let film = Film::make("sound.mp4", &format!("mp4mux name=m {AUDIO} ! m."));
    let error = refused(&film.uri(), &options(vec![View::native("all")])).await;
    assert!(
        error
            .to_string()
            .contains("sound.mp4 has no video stream (audio only)"),
        "{error}"
    );
    assert_eq!(error.kind(), Kind::External);
}

#[tokio::test]
async fn a_film_without_its_index_is_refused() {
    let film = Film::video();
    film.change(|data| data.truncate(data.len() / 2));
    let error = refused(&film.uri(), &Options::default()).await;
    assert!(
        error.to_string().contains("film.mp4 has no index"),
        "{error}"
    );
}

#[tokio::test]
async fn a_film_cut_off_gives_its_frames_and_an_error() {
    let film = Film::make(
        "film.mp4",
        &format!("mp4mux faststart=true name=m {VIDEO} ! m."),
    );
    film.change(|data| data.truncate(data.len() * 2 / 3));
    let (frames, end, _) = play(&film.uri()).await;
    assert!(
        (20..FRAMES).contains(&frames.len()),
        "{} frames",
        frames.len()
    );
    let StreamEnd::Failed(error) = end else {
        panic!("{end:?}")
    };
    assert!(error.to_string().contains("film.mp4 is cut off"), "{error}");
}

#[tokio::test]
async fn flipped_bits_lose_few_frames_and_are_counted() {
    for (seed, muxer) in [
        (7, "mp4mux faststart=true"),
        (8, "mpegtsmux"),
        (9, "matroskamux"),
    ] {
        let film = Film::make("film.bin", &format!("{muxer} name=m {VIDEO} ! m."));
        film.change(|data| flip(data, seed));
        let (frames, end, lost) = play(&film.uri()).await;
        assert!(
            frames.len() > 20,
            "{muxer}: {} frames, {end:?}",
            frames.len()
        );
        assert!(
            frames
                .windows(2)
                .all(|pair| pair[0].span.start < pair[1].span.start)
        );
        let told = matches!(end, StreamEnd::Failed(_));
        assert!(
            told || lost != LossCounts::default(),
            "{muxer}: {} frames, {end:?}, {lost:?}",
            frames.len()
        );
    }
}

/// Flips a bit in about every 700th byte of the last two thirds, by xorshift.
fn flip(data: &mut [u8], seed: u64) {
    let (mut state, from) = (seed, data.len() / 3);
    for _ in 0..data.len() / 700 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let room = (data.len() - 4000).saturating_sub(from) as u64;
        data[from + (state % room) as usize] ^= 1 << (state >> 40 & 7);
    }
}

#[tokio::test]
async fn what_is_no_video_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, data: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, data).expect("written");
        path.display().to_string()
    };
    let noise: Vec<u8> = (0..60_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    for file in [
        write("text.mp4", b"only some words\nand more\n"),
        write("noise.mp4", &noise),
        write("one.mp4", b"x"),
    ] {
        let error = refused(&file, &Options::default()).await;
        assert!(
            error.to_string().contains(
                Path::new(&file)
                    .file_name()
                    .expect("a name")
                    .to_str()
                    .expect("UTF-8")
            ),
            "{error}"
        );
        assert_eq!(error.kind(), Kind::External);
    }
}

#[tokio::test]
async fn an_unreachable_source_is_refused_without_its_password() {
    for uri in [
        "http://joe:hidden@127.0.0.1:1/x.mp4",
        "rtmp://joe:hidden@127.0.0.1:1/live/x",
        "rtsp://joe:hidden@127.0.0.1:1/x",
    ] {
        let error = refused(
            uri,
            &Options {
                connect: Duration::from_secs(8),
                live: true,
                ..Options::default()
            },
        )
        .await;
        assert_eq!(error.kind(), Kind::External, "{error}");
        assert!(
            !error.to_string().contains("hidden") && error.to_string().contains("127.0.0.1:1"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn pictures_above_the_limit_are_refused() {
    let film = Film::video();
    let small = Options {
        max_pixels: 160 * 119,
        ..Options::default()
    };
    let error = refused(&film.uri(), &small).await;
    assert!(
        error.to_string().contains("160x120 exceed 19040 pixels"),
        "{error}"
    );
}

#[tokio::test]
async fn an_unread_view_stops_the_source_and_nothing_is_lost() {
    let views = vec![
        View::native("all"),
        View {
            queue: 2,
            ..View::native("unread")
        },
    ];
    let OpenedStream {
        mut views,
        mut handle,
        ..
    } = open("test://?frames=200&size=64x48", &options(views))
        .await
        .expect("opens");
    let (mut unread, mut all) = (views.remove(1), views.remove(0));
    let mut read = 0;
    while tokio::time::timeout(Duration::from_millis(90), all.next())
        .await
        .is_ok_and(|frame| frame.is_some())
    {
        read += 1;
    }
    assert!(
        read < 12,
        "{read} frames passed a branch that holds 2 + 2 and what is in work"
    );
    let (rest, other) = tokio::join!(drain(all), async {
        let mut count = 0;
        while unread.next().await.is_some() {
            count += 1;
        }
        count
    });
    assert_eq!((read + rest.len(), other), (200, 200));
    assert!(matches!(handle.ended().await, StreamEnd::EndOfStream));
}

#[tokio::test]
async fn a_fallen_reader_frees_the_others() {
    let OpenedStream {
        mut views,
        mut handle,
        ..
    } = open(
        "test://?frames=100&size=64x48",
        &options(vec![View::native("all"), View::native("gone")]),
    )
    .await
    .expect("opens");
    drop(views.remove(1));
    assert_eq!(drain(views.remove(0)).await.len(), 100);
    assert!(matches!(handle.ended().await, StreamEnd::EndOfStream));
}

#[tokio::test]
async fn stopping_a_blocked_stream_is_prompt() {
    let OpenedStream {
        mut views,
        mut handle,
        ..
    } = open("test://?size=64x48", &options(vec![View::native("all")]))
        .await
        .expect("opens");
    tokio::time::sleep(Duration::from_millis(50)).await;
    let began = Instant::now();
    handle.stop().await;
    handle.stop().await;
    assert!(began.elapsed() < Duration::from_secs(2));
    assert!(views[0].next().await.is_none());
    assert!(matches!(handle.ended().await, StreamEnd::Stopped));
}

#[tokio::test]
async fn frames_outlive_their_stream() {
    let OpenedStream {
        mut views,
        mut handle,
        ..
    } = open(
        "test://?size=64x48&pattern=white",
        &options(vec![View::native("all")]),
    )
    .await
    .expect("opens");
    let captured = views[0].next().await.expect("a frame");
    handle.stop().await;
    drop((views, handle));
    assert!(captured.frame.pixels.iter().all(|value| *value > 250));
}

#[tokio::test]
async fn a_silent_source_is_a_stall_only_while_somebody_waits() {
    let mut given = options(vec![View::native("all")]);
    given.stall = Duration::from_millis(300);
    given.live = true;
    let OpenedStream {
        mut views,
        mut handle,
        ..
    } = open("test://?live=true&fps=1/30&size=64x48", &given)
        .await
        .expect("opens");
    let first = views[0].next().await.expect("a frame");
    assert_eq!(first.span.start, 0);
    assert!(
        tokio::time::timeout(Duration::from_secs(5), views[0].next())
            .await
            .expect("an end")
            .is_none()
    );
    let StreamEnd::Failed(error) = handle.ended().await else {
        panic!("no failure")
    };
    assert!(error.to_string().contains("no frame for 300ms"), "{error}");
}
