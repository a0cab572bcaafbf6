//! Sound beside pictures: whole, in step, and no reason to wait where there is none.

use std::time::Duration;

use super::{AUDIO, FRAMES, Film, VIDEO, drain, options};
use crate::media::*;

/// Sine waves are heard from the first piece on, so that a shift would show.
async fn listen(mut sound: SoundReader) -> Vec<CapturedAudio> {
    let mut heard = Vec::new();
    while let Some(piece) = sound.next().await {
        heard.push(piece);
    }
    heard
}

fn with_sound(views: Vec<View>, piece: Duration) -> Options {
    Options {
        sounds: vec![SoundView {
            name: "sound".into(),
            piece,
        }],
        ..options(views)
    }
}

#[tokio::test]
async fn sound_comes_whole_and_in_step_with_the_pictures() {
    let film = Film::make(
        "film.mp4",
        &format!("mp4mux name=m {VIDEO} ! m. {AUDIO} ! m."),
    );
    for uri in [film.uri(), "test://?frames=90&size=64x48".to_owned()] {
        let opened = open(
            &uri,
            &with_sound(
                vec![View::native("all").sized(32, 24)],
                Duration::from_millis(500),
            ),
        )
        .await
        .expect("opens");
        let OpenedStream {
            mut views,
            mut sounds,
            mut handle,
            ..
        } = opened;
        let (frames, heard) = tokio::join!(drain(views.remove(0)), listen(sounds.remove(0)));
        assert!(matches!(handle.ended().await, StreamEnd::EndOfStream));
        assert_eq!(frames.len(), 90);
        let length: usize = heard.iter().map(|piece| piece.audio.len()).sum();
        assert!(
            (47_000..=49_200).contains(&length),
            "{uri}: {length} samples of three seconds"
        );
        assert!(
            heard[..5].iter().all(|piece| piece.audio.len() == 8000),
            "{uri}"
        );
        assert!(
            heard
                .windows(2)
                .all(|pair| pair[0].span.end == pair[1].span.start
                    && pair[0].audio.index + 1 == pair[1].audio.index)
        );
        assert!(
            heard[0].span.start < 50_000_000,
            "{uri}: {:?}",
            heard[0].span
        );
        for piece in &heard[..5] {
            let energy: f32 = piece
                .audio
                .to_samples()
                .map(|sample| sample * sample)
                .sum::<f32>()
                / piece.audio.len() as f32;
            assert!(energy > 0.01, "{uri}: {energy} in {:?}", piece.span);
        }
    }
}

#[tokio::test]
async fn a_film_without_sound_ends_its_view_of_sound() {
    let film = Film::video();
    let OpenedStream {
        mut views,
        mut sounds,
        mut handle,
        ..
    } = open(
        &film.uri(),
        &with_sound(vec![View::native("all")], Duration::from_millis(500)),
    )
    .await
    .expect("opens");
    let (frames, heard) = tokio::join!(drain(views.remove(0)), listen(sounds.remove(0)));
    assert_eq!((frames.len(), heard.len()), (90, 0));
    assert!(matches!(handle.ended().await, StreamEnd::EndOfStream));
}

#[tokio::test]
async fn live_sound_begins_with_the_first_picture() {
    let mut wanted = with_sound(vec![View::native("all")], Duration::from_millis(100));
    wanted.live = true;
    let OpenedStream {
        mut views,
        mut sounds,
        mut handle,
        ..
    } = open("test://?live=true&fps=25&size=64x48&frames=50", &wanted)
        .await
        .expect("opens");
    let (frames, heard) = tokio::join!(drain(views.remove(0)), listen(sounds.remove(0)));
    let (pictures, sound) = (
        frames.last().expect("frames").span.end,
        heard.last().expect("sound").span.end,
    );
    assert!(heard[0].span.start < 200_000_000, "{:?}", heard[0].span);
    assert!(
        pictures.abs_diff(sound) < 300_000_000,
        "pictures end at {pictures}, sound at {sound}"
    );
    handle.stop().await;
}

#[tokio::test]
async fn sound_alone_is_enough() {
    let film = Film::make(
        "film.mp4",
        &format!("mp4mux name=m {VIDEO} ! m. {AUDIO} ! m."),
    );
    let OpenedStream {
        mut sounds,
        mut handle,
        ..
    } = open(&film.uri(), &with_sound(Vec::new(), Duration::from_secs(1)))
        .await
        .expect("opens");
    assert_eq!(listen(sounds.remove(0)).await.len(), 4);
    assert!(matches!(handle.ended().await, StreamEnd::EndOfStream));
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
