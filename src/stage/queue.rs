//! The bounded queue between two stages, capped in frames and in bytes. What happens when it is full is the user's choice, and counted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::packet::{Item, Mark, Micros, Outcome, Packet, Reason, now_micros};

/// What a full queue does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// The sender waits: nothing is lost.
    Block,
    /// The oldest packet makes room.
    DropOldest,
    /// The packet that comes is dropped.
    DropNewest,
}

/// The key `queue:` of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueSettings {
    /// Most packets inside.
    pub frames: usize,
    /// Most bytes inside; a single packet above it passes alone.
    pub bytes: usize,
    /// What happens when a packet does not fit.
    pub when_full: WhenFull,
    /// A packet that arrived longer ago is dropped when it is read.
    pub max_age: Option<Duration>,
}

/// What a queue has seen, for status and metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// Packets inside now.
    pub frames: usize,
    /// Bytes inside now.
    pub bytes: usize,
    /// Most bytes ever inside.
    pub peak_bytes: usize,
    /// Packets accepted.
    pub accepted: u64,
    /// Packets dropped because it was full.
    pub dropped_full: u64,
    /// Packets dropped because they had waited too long.
    pub dropped_stale: u64,
    /// Time senders spent waiting for room.
    pub blocked: Duration,
}

struct Shared {
    settings: QueueSettings,
    state: Mutex<State>,
    filled: Arc<Notify>,
    freed: Notify,
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    counts: QueueCounts,
    closed: bool,
    abandoned: bool,
}

/// Makes a queue. `filled` is told of everything that comes, so that one reader can wait on several queues.
pub fn queue(settings: QueueSettings, filled: &Arc<Notify>) -> (Sender, Receiver) {
    let shared = Arc::new(Shared { settings, state: Mutex::default(), filled: Arc::clone(filled), freed: Notify::new() });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

/// The end that is written. Dropping it closes the queue: what is inside can still be read.
pub struct Sender(Arc<Shared>);

/// The end that is read. Dropping it drops what is inside, counted as lost in the shutdown.
pub struct Receiver(Arc<Shared>);

/// A packet on its way into a queue: if its sender is cancelled meanwhile, it counts as lost in the shutdown.
pub(crate) struct InHand(Option<Packet>);

impl InHand {
    pub fn new(packet: Packet) -> Self {
        Self(Some(packet))
    }

    /// The same packet for a further reader; none once it has been taken.
    pub fn split(&self) -> Option<Packet> {
        self.0.as_ref().map(Packet::split)
    }

    pub fn take(&mut self) -> Option<Packet> {
        self.0.take()
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        if let Some(packet) = self.0.take() {
            packet.receipt.settle(Outcome::Dropped(Reason::Shutdown));
        }
    }
}

/// Looks into a queue from outside.
#[derive(Clone)]
pub struct Gauge(Arc<Shared>);

impl State {
    fn fits(&self, settings: &QueueSettings, weight: usize) -> bool {
        self.counts.frames == 0 || (self.counts.frames < settings.frames && self.counts.bytes + weight <= settings.bytes)
    }

    fn push(&mut self, packet: Packet, weight: usize) {
        self.counts.frames += 1;
        self.counts.bytes += weight;
        self.counts.accepted += 1;
        self.counts.peak_bytes = self.counts.peak_bytes.max(self.counts.bytes);
        self.items.push_back(Item::Packet(packet));
    }

    /// A watermark replaces the one before it, so that marks stay as few as packets.
    fn push_mark(&mut self, mark: Mark) {
        if let (Mark::Watermark { epoch, .. }, Some(Item::Mark(Mark::Watermark { epoch: last, .. }))) = (&mark, self.items.back())
            && epoch == last
        {
            self.items.pop_back();
        }
        self.items.push_back(Item::Mark(mark));
    }

    /// Takes the oldest packet out; marks before it stay in their place.
    fn evict(&mut self) -> Option<Packet> {
        let at = self.items.iter().position(|item| matches!(item, Item::Packet(_)))?;
        let Some(Item::Packet(packet)) = self.items.remove(at) else { return None };
        self.forget(&packet);
        self.counts.dropped_full += 1;
        if at > 0
            && let (Some(Item::Mark(Mark::Watermark { epoch: a, .. })), Some(Item::Mark(Mark::Watermark { epoch: b, .. }))) =
                (self.items.get(at - 1), self.items.get(at))
            && a == b
        {
            self.items.remove(at - 1);
        }
        Some(packet)
    }

    fn forget(&mut self, packet: &Packet) {
        self.counts.frames -= 1;
        self.counts.bytes -= packet.weight();
    }
}

impl Sender {
    /// Puts a packet in, as `when_full` says. A packet that is dropped settles its receipt; one that nobody will read any more is dropped as
    /// lost in the shutdown.
    pub async fn send(&self, packet: Packet) {
        let weight = packet.weight();
        let mut packet = InHand::new(packet);
        let mut waiting: Option<Instant> = None;
        loop {
            let freed = self.0.freed.notified();
            if self.offer(&mut packet.0, weight, &mut waiting) {
                return;
            }
            freed.await;
        }
    }

    fn offer(&self, packet: &mut Option<Packet>, weight: usize, waiting: &mut Option<Instant>) -> bool {
        let mut lost = Vec::new();
        {
            let mut state = self.0.state.lock();
            if state.abandoned {
                lost.extend(packet.take().map(|packet| (packet, Reason::Shutdown)));
            } else {
                match self.0.settings.when_full {
                    WhenFull::Block if !state.fits(&self.0.settings, weight) => {
                        waiting.get_or_insert_with(Instant::now);
                        return false;
                    }
                    WhenFull::DropNewest if !state.fits(&self.0.settings, weight) => {
                        state.counts.dropped_full += 1;
                        lost.extend(packet.take().map(|packet| (packet, Reason::QueueFull)));
                    }
                    _ => {
                        while !state.fits(&self.0.settings, weight) {
                            let Some(oldest) = state.evict() else {
                                // All that fills the queue is held by its reader.
                                state.counts.dropped_full += 1;
                                lost.extend(packet.take().map(|packet| (packet, Reason::QueueFull)));
                                break;
                            };
                            lost.push((oldest, Reason::QueueFull));
                        }
                    }
                }
            }
            if let Some(packet) = packet.take() {
                if let Some(since) = waiting {
                    state.counts.blocked += since.elapsed();
                }
                state.push(packet, weight);
            }
        }
        self.0.filled.notify_one();
        // Receipts settle outside the lock: the last one may run an account's code.
        lost.into_iter().for_each(|(packet, reason)| packet.receipt.settle(Outcome::Dropped(reason)));
        true
    }

    /// Puts a mark in; marks are never dropped and take no room.
    pub fn mark(&self, mark: Mark) {
        let mut state = self.0.state.lock();
        if !state.abandoned {
            state.push_mark(mark);
            drop(state);
            self.0.filled.notify_one();
        }
    }

    /// Looks into the queue.
    pub fn gauge(&self) -> Gauge {
        Gauge(Arc::clone(&self.0))
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.state.lock().closed = true;
        self.0.filled.notify_one();
    }
}

/// What reading gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// Items were moved out.
    Some,
    /// Nothing is there yet.
    Empty,
    /// Nothing is there, and nothing will come.
    Closed,
}

impl Receiver {
    /// Moves up to `most` items to the end of `into`, at once. With `hold`, packets keep their room in the queue until `release`.
    pub fn read(&mut self, into: &mut VecDeque<Item>, most: usize, hold: bool) -> Read {
        let mut stale = Vec::new();
        let oldest = self.0.settings.max_age.map(|age| now_micros() - age.as_micros() as Micros);
        let read = {
            let mut state = self.0.state.lock();
            let before = into.len();
            while into.len() - before < most
                && let Some(item) = state.items.pop_front()
            {
                let Item::Packet(packet) = item else {
                    into.push_back(item);
                    continue;
                };
                if oldest.is_some_and(|oldest| packet.head.ingest_time < oldest) {
                    state.forget(&packet);
                    state.counts.dropped_stale += 1;
                    stale.push(packet);
                    continue;
                }
                if !hold {
                    state.forget(&packet);
                }
                into.push_back(Item::Packet(packet));
            }
            match (into.len() > before, state.closed && state.items.is_empty()) {
                (true, _) => Read::Some,
                (false, true) => Read::Closed,
                (false, false) => Read::Empty,
            }
        };
        if !hold && read == Read::Some || !stale.is_empty() {
            self.0.freed.notify_one();
        }
        stale.into_iter().for_each(|packet| packet.receipt.settle(Outcome::Dropped(Reason::Stale)));
        read
    }

    /// Gives back the room of a packet that was read with `hold`.
    pub fn release(&mut self, weight: usize) {
        let mut state = self.0.state.lock();
        state.counts.frames -= 1;
        state.counts.bytes -= weight;
        drop(state);
        self.0.freed.notify_one();
    }

    /// Looks into the queue.
    pub fn gauge(&self) -> Gauge {
        Gauge(Arc::clone(&self.0))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let left = {
            let mut state = self.0.state.lock();
            state.abandoned = true;
            state.counts.frames = 0;
            state.counts.bytes = 0;
            std::mem::take(&mut state.items)
        };
        self.0.freed.notify_one();
        for item in left {
            if let Item::Packet(packet) = item {
                packet.receipt.settle(Outcome::Dropped(Reason::Shutdown));
            }
        }
    }
}

impl Gauge {
    /// What the queue holds and has seen.
    pub fn counts(&self) -> QueueCounts {
        self.0.state.lock().counts
    }

    /// Its settings.
    pub fn settings(&self) -> QueueSettings {
        self.0.settings
    }
}

/// Several queues read by one task, fairly.
pub struct Inbox {
    receivers: Vec<Receiver>,
    closed: Vec<bool>,
    filled: Arc<Notify>,
    next: usize,
    hold: bool,
}

/// What an inbox gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// Items of this input were moved out.
    Items(usize),
    /// Nothing more will come from this input.
    Closed(usize),
    /// Every input is closed.
    Done,
}

impl Inbox {
    /// Reads `receivers`, which were all made with `filled`. With `hold`, what is read keeps its room until it is released.
    pub fn new(receivers: Vec<Receiver>, filled: Arc<Notify>, hold: bool) -> Self {
        Self { closed: vec![false; receivers.len()], receivers, filled, next: 0, hold }
    }

    /// Moves up to `most` items of one input into `into`, waiting for the first. Cancel-safe.
    pub async fn recv(&mut self, into: &mut VecDeque<Item>, most: usize) -> Arrival {
        loop {
            let filled = Arc::clone(&self.filled);
            let filled = filled.notified();
            for step in 0..self.receivers.len() {
                let side = (self.next + step) % self.receivers.len();
                match self.receivers[side].read(into, most, self.hold) {
                    Read::Some => {
                        self.next = side + 1;
                        return Arrival::Items(side);
                    }
                    Read::Closed if !std::mem::replace(&mut self.closed[side], true) => return Arrival::Closed(side),
                    Read::Empty | Read::Closed => {}
                }
            }
            if self.closed.iter().all(|closed| *closed) {
                return Arrival::Done;
            }
            filled.await;
        }
    }

    /// Gives back the room of what was read from `side` and held.
    pub fn release(&mut self, side: usize, weight: usize) {
        self.receivers[side].release(weight);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::testing::{frames, root};

    fn settings(frames: usize, when_full: WhenFull) -> QueueSettings {
        QueueSettings { frames, bytes: 1 << 20, when_full, max_age: None }
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
        assert_eq!(receiver.gauge().counts().dropped_full, 3);
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
        let (account, (sender, receiver)) = (root(), pair(settings(1, WhenFull::Block)));
        let mut inbox = Inbox::new(vec![receiver], Arc::clone(&sender.0.filled), false);
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
        assert_eq!(receiver.gauge().counts().frames, 2);
        assert_eq!(pts(items), [0, 1]);
    }

    #[tokio::test]
    async fn watermarks_do_not_pile_up() {
        let (account, (sender, mut receiver)) = (root(), pair(settings(2, WhenFull::DropOldest)));
        for (pts, packet) in frames(&account, 100).into_iter().enumerate() {
            sender.send(packet).await;
            for _ in 0..3 {
                sender.mark(Mark::Watermark { epoch: 0, pts: pts as u64 });
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
    async fn stale_packets_are_dropped_when_read() {
        let aged = QueueSettings { max_age: Some(Duration::from_secs(1)), ..settings(8, WhenFull::Block) };
        let (account, (sender, mut receiver)) = (root(), pair(aged));
        for packet in frames(&account, 2) {
            let mut head = (*packet.head).clone();
            head.ingest_time = if head.span.start == 0 { now_micros() - 2_000_000 } else { now_micros() };
            sender.send(Packet { head: Arc::new(head), ..packet }).await;
        }
        let mut items = VecDeque::new();
        assert_eq!(receiver.read(&mut items, 8, false), Read::Some);
        assert_eq!(pts(items), [1]);
        assert_eq!(account.balance().dropped["stale"], 1);
    }
}
