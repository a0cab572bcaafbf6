//! Frames: every one once, in order, at its time, in GStreamer's own memory.

use gstreamer as gst;
use gstreamer::prelude::*;

use super::{AUDIO, FRAMES, Film, VIDEO, drain, options};
use crate::media::outcome::LossCounts;
use crate::media::*;

fn thinned(name: &str, fps: FrameRate) -> View {
    View {
        fps: Some(fps),
        ..View::native(name)
    }
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
        thinned("thin", FrameRate::new(2, 1)),
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
    let views = vec![thinned("fast", FrameRate::new(60, 1))];
    let mut opened = open(uri, &options(views)).await.expect("opens");
    assert_eq!(drain(opened.views.remove(0)).await.len(), 12);
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
