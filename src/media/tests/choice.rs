//! Of several streams the right ones are decoded, and only those.

use std::time::Duration;

use super::{AUDIO, FRAMES, Film, VIDEO, drain, options, play, refused};
use crate::media::*;

/// `frames` pictures of this size and one colour, encoded by `encoder`.
fn pictures(size: &str, frames: usize, pattern: &str, encoder: &str) -> String {
    let (width, height) = size.split_once('x').expect("a size");
    format!(
        "videotestsrc num-buffers={frames} pattern={pattern} ! \
         video/x-raw,format=I420,width={width},height={height},framerate=30/1 ! {encoder}"
    )
}

const H264: &str = "x264enc bframes=0 key-int-max=10 speed-preset=ultrafast ! h264parse";

/// The first frame's pixel in the middle, how many frames there are, and how the stream ended.
async fn middle(film: &Film) -> ([u8; 3], usize) {
    let (frames, end, lost) = play(&film.uri()).await;
    assert!(matches!(end, StreamEnd::EndOfStream), "{end:?}");
    assert_eq!(
        (lost.undecodable, lost.corrupt),
        (0, 0),
        "only what is read counts"
    );
    let frame = &frames[0].frame;
    let at = (frame.height / 2 * frame.stride + frame.width / 2 * 3) as usize;
    let pixel = frame.pixels[at..at + 3].try_into().expect("three bytes");
    (pixel, frames.len())
}

fn is_like(pixel: [u8; 3], wanted: [u8; 3]) -> bool {
    pixel.iter().zip(wanted).all(|(a, b)| a.abs_diff(b) < 40)
}

const RED: [u8; 3] = [255, 0, 0];
const GREEN: [u8; 3] = [0, 255, 0];

#[tokio::test]
async fn the_largest_of_several_videos_is_read() {
    for muxer in ["mp4mux", "matroskamux"] {
        let film = Film::make(
            "two.mkv",
            &format!(
                "{muxer} name=m {} ! m. {} ! m.",
                pictures("64x48", 40, "red", H264),
                pictures("320x240", 50, "green", H264)
            ),
        );
        let (pixel, frames) = middle(&film).await;
        assert!(is_like(pixel, GREEN), "{muxer}: {pixel:?}");
        assert_eq!(frames, 50, "{muxer}");
    }
}

#[tokio::test]
async fn a_cover_is_not_taken_for_the_film() {
    // A track of one picture, as covers are kept.
    let cover = "videotestsrc num-buffers=1 pattern=red ! video/x-raw,width=640,height=480,framerate=0/1 ! jpegenc";
    let film = Film::make(
        "cover.mkv",
        &format!(
            "matroskamux name=m {cover} ! m. {} ! m.",
            pictures("160x120", 50, "green", H264)
        ),
    );
    let (pixel, frames) = middle(&film).await;
    assert!(is_like(pixel, GREEN), "{pixel:?}");
    assert_eq!(frames, 50);
}

#[tokio::test]
async fn motion_jpeg_is_a_film() {
    let film = Film::make(
        "motion.avi",
        &format!(
            "avimux name=m {} ! m.",
            pictures("160x120", 25, "red", "jpegenc")
        ),
    );
    let (pixel, frames) = middle(&film).await;
    assert!(is_like(pixel, RED), "{pixel:?}");
    assert_eq!(frames, 25);
}

fn sound_only() -> Options {
    Options {
        sounds: vec![SoundView {
            name: "sound".into(),
            piece: Duration::from_secs(1),
        }],
        ..options(Vec::new())
    }
}

#[tokio::test]
async fn sound_files_are_read_as_sound() {
    for (name, encoder) in [
        ("pod.mp3", "lamemp3enc ! identity name=m"),
        ("pod.flac", "flacenc ! identity name=m"),
        ("pod.ogg", "vorbisenc ! oggmux name=m"),
        ("pod.m4a", "avenc_aac ! mp4mux name=m"),
        ("pod.wav", "wavenc name=m"),
    ] {
        let film = Film::make(
            name,
            &format!(
                "audiotestsrc num-buffers=130 ! audio/x-raw,rate=44100 ! audioconvert ! {encoder}"
            ),
        );
        let mut opened = open(&film.uri(), &sound_only()).await.expect(name);
        let mut sound = opened.sounds.remove(0);
        let mut heard = 0;
        while let Some(piece) = sound.next().await {
            heard += piece.audio.len();
        }
        assert!(heard.abs_diff(48_300) < 1_500, "{name}: {heard} samples");
        assert!(
            matches!(opened.handle.ended().await, StreamEnd::EndOfStream),
            "{name}"
        );
        assert!(opened.info.has_audio && opened.info.width == 0, "{name}");
        let error = refused(&film.uri(), &options(vec![View::native("all")])).await;
        assert!(
            error
                .to_string()
                .contains("has no video stream (audio only)"),
            "{name}: {error}"
        );
    }
}

#[tokio::test]
async fn sound_of_a_film_is_read_without_decoding_its_pictures() {
    let film = Film::make(
        "film.mp4",
        &format!("mp4mux name=m {VIDEO} ! m. {AUDIO} ! m."),
    );
    let mut opened = open(&film.uri(), &sound_only()).await.expect("opens");
    let mut sound = opened.sounds.remove(0);
    while sound.next().await.is_some() {}
    assert!(matches!(
        opened.handle.ended().await,
        StreamEnd::EndOfStream
    ));
    assert_eq!(opened.info.codec, "unknown", "no video decoder was made");
}

#[tokio::test]
async fn subtitles_alone_are_refused_at_once() {
    let film = Film::make(
        "subtitles.mkv",
        "matroskamux name=m fakesrc num-buffers=5 sizetype=fixed sizemax=8 filltype=zero do-timestamp=true format=time ! \
         text/x-raw,format=utf8 ! m.",
    );
    let began = std::time::Instant::now();
    let error = refused(&film.uri(), &options(vec![View::native("all")])).await;
    assert!(
        error.to_string().contains("has no video and no sound"),
        "{error}"
    );
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "long before `connect` has passed"
    );
}

#[tokio::test]
async fn a_reader_of_sound_is_told_at_once_that_there_is_none() {
    let film = Film::video();
    let mut wanted = sound_only();
    wanted.views = vec![View::native("all")];
    let OpenedStream {
        mut views,
        mut sounds,
        mut handle,
        ..
    } = open(&film.uri(), &wanted).await.expect("opens");
    let (frames, sound) = tokio::join!(drain(views.remove(0)), async {
        let mut sound = sounds.remove(0);
        sound.next().await
    });
    assert_eq!((frames.len(), sound.is_none()), (FRAMES, true));
    assert!(matches!(handle.ended().await, StreamEnd::EndOfStream));
}
