//! Backpressure, stopping and stalls.

use std::time::{Duration, Instant};

use super::{drain, options};
use crate::media::*;

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
async fn a_dropped_reader_frees_the_others() {
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
