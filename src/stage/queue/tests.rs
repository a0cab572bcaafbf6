//! How a queue behaves when it is full, stale, held or reader_gone.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::channel::Read;
use super::*;
use crate::packet::{Item, Mark, Outcome, Packet, now_micros};
use crate::stage::testing::{frames, root};

fn settings(frames: usize, when_full: WhenFull) -> QueueSettings {
    QueueSettings {
        frames,
        bytes: 1 << 20,
        when_full,
        max_age: None,
    }
}

fn pair(settings: QueueSettings) -> (Sender, Receiver) {
    queue(settings, &Arc::new(Notify::new()))
}

fn pts(items: VecDeque<Item>) -> Vec<u64> {
    items
        .into_iter()
        .filter_map(|item| match item {
            Item::Packet(packet) => {
                let pts = packet.head.span.start;
                packet.receipt.settle(Outcome::Delivered);
                Some(pts)
            }
            Item::Mark(_) => None,
        })
        .collect()
}

#[tokio::test]
async fn drop_oldest_keeps_the_newest_and_counts_the_rest() {
    let (account, (sender, mut receiver)) = (root(), pair(settings(2, WhenFull::DropOldest)));
    for packet in frames(&account, 5) {
        sender.send(packet).await;
    }
    let mut items = VecDeque::new();
    receiver.read(&mut items, 10, false);
    assert_eq!(pts(items), [3, 4]);
    assert_eq!(account.balance().dropped["queue_full"], 3);
    assert_eq!(sender.monitor().counts().dropped_full, 3);
}

#[tokio::test]
async fn drop_newest_keeps_the_oldest() {
    let (account, (sender, mut receiver)) = (root(), pair(settings(2, WhenFull::DropNewest)));
    for packet in frames(&account, 5) {
        sender.send(packet).await;
    }
    let mut items = VecDeque::new();
    receiver.read(&mut items, 10, false);
    assert_eq!(pts(items), [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn block_waits_for_room_and_loses_nothing() {
    let (account, filled) = (root(), Arc::default());
    let (sender, receiver) = queue(settings(1, WhenFull::Block), &filled);
    let mut inbox = Inbox::new(vec![receiver], filled, false);
    let packets = frames(&account, 50);
    let writer = tokio::spawn(async move {
        for packet in packets {
            sender.send(packet).await;
        }
    });
    let mut items = VecDeque::new();
    while inbox.recv(&mut items, 3).await != Arrival::Done {
        assert!(items.len() <= 50);
    }
    writer.await.expect("the writer does not panic");
    assert_eq!(pts(items), (0..50).collect::<Vec<_>>());
    assert_eq!(account.balance().delivered, 50);
}

#[tokio::test]
async fn held_packets_keep_their_room() {
    let (account, (sender, mut receiver)) = (root(), pair(settings(2, WhenFull::DropOldest)));
    let mut packets = frames(&account, 3).into_iter();
    sender.send(packets.next().expect("three")).await;
    sender.send(packets.next().expect("three")).await;
    let mut items = VecDeque::new();
    receiver.read(&mut items, 10, true);
    sender.send(packets.next().expect("three")).await;
    assert_eq!(account.balance().dropped["queue_full"], 1);
    assert_eq!(sender.monitor().counts().frames, 2);
    assert_eq!(pts(items), [0, 1]);
}

#[tokio::test]
async fn watermarks_do_not_pile_up() {
    let (account, (sender, mut receiver)) = (root(), pair(settings(2, WhenFull::DropOldest)));
    for (pts, packet) in frames(&account, 100).into_iter().enumerate() {
        sender.send(packet).await;
        for _ in 0..3 {
            sender.mark(Mark::Watermark {
                epoch: 0,
                pts: pts as u64,
            });
        }
    }
    let mut items = VecDeque::new();
    receiver.read(&mut items, 1000, false);
    assert!(items.len() <= 5, "{} items", items.len());
    pts(items);
}

#[tokio::test]
async fn what_nobody_reads_is_lost_in_the_shutdown() {
    let (account, (sender, receiver)) = (root(), pair(settings(8, WhenFull::Block)));
    let mut packets = frames(&account, 2).into_iter();
    sender.send(packets.next().expect("two")).await;
    drop(receiver);
    sender.send(packets.next().expect("two")).await;
    assert_eq!(account.balance().dropped["shutdown"], 2);
}

#[tokio::test]
async fn what_is_never_sent_is_lost_in_the_shutdown() {
    let (account, (sender, _receiver)) = (root(), pair(settings(8, WhenFull::Block)));
    for packet in frames(&account, 1) {
        drop(sender.send(packet));
    }
    assert_eq!(account.balance().dropped["shutdown"], 1);
}

#[tokio::test]
async fn stale_packets_are_dropped_when_read() {
    let aged = QueueSettings {
        max_age: Some(Duration::from_secs(1)),
        ..settings(8, WhenFull::Block)
    };
    let (account, (sender, mut receiver)) = (root(), pair(aged));
    for packet in frames(&account, 2) {
        let mut head = (*packet.head).clone();
        head.ingest_time = if head.span.start == 0 {
            now_micros() - 2_000_000
        } else {
            now_micros()
        };
        sender
            .send(Packet {
                head: Arc::new(head),
                ..packet
            })
            .await;
    }
    let mut items = VecDeque::new();
    assert_eq!(receiver.read(&mut items, 8, false), Read::Some);
    assert_eq!(pts(items), [1]);
    assert_eq!(account.balance().dropped["stale"], 1);
}

#[tokio::test(start_paused = true)]
async fn every_waiting_sender_hears_that_the_reader_has_gone() {
    let (account, (sender, receiver)) = (root(), pair(settings(1, WhenFull::Block)));
    let sender = Arc::new(sender);
    let senders: Vec<_> = frames(&account, 4)
        .into_iter()
        .map(|packet| {
            let sender = Arc::clone(&sender);
            tokio::spawn(async move { sender.send(packet).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(1)).await;
    drop(receiver);
    for sent in senders {
        tokio::time::timeout(Duration::from_secs(1), sent)
            .await
            .expect("it was woken")
            .expect("it does not panic");
    }
    assert_eq!(account.balance().dropped["shutdown"], 4);
}

#[tokio::test]
async fn what_only_counts_holds_no_receipt() {
    let (account, (sender, mut receiver)) = (root(), pair(settings(1, WhenFull::DropNewest)));
    let sender = sender.without_receipts();
    for packet in frames(&account, 2) {
        sender.send(packet).await;
    }
    assert_eq!(
        (
            account.balance().absorbed,
            sender.monitor().counts().dropped_full
        ),
        (2, 1)
    );
    let mut items = VecDeque::new();
    receiver.read(&mut items, 10, false);
    assert_eq!(pts(items), [0]);
}
