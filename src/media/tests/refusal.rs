//! What cannot be opened is refused in words, without secrets.

use std::path::Path;
use std::time::Duration;

use super::{AUDIO, Film, options, refused};
use crate::error::Kind;
use crate::media::*;

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
