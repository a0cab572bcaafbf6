//! Damaged films: what is left comes out, and what is lost is said.

use super::{FRAMES, Film, VIDEO, play, refused};
use crate::media::outcome::LossCounts;
use crate::media::*;

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
        let has_failed = matches!(end, StreamEnd::Failed(_));
        assert!(
            has_failed || lost != LossCounts::default(),
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
