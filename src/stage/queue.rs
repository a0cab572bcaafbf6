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
    filled: Notify,
    freed: Notify,
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    counts: QueueCounts,
    closed: bool,
    abandoned: bool,
}

/// Makes a queue.
pub fn queue(settings: QueueSettings) -> (Sender, Receiver) {
    let shared = Arc::new(Shared { settings, state: Mutex::default(), filled: Notify::new(), freed: Notify::new() });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

/// The end that is written. Dropping it closes the queue: what is inside can still be read.
pub struct Sender(Arc<Shared>);

/// The end that is read. Dropping it drops what is inside, counted as lost in the shutdown.
pub struct Receiver(Arc<Shared>);

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
        let mut packet = Some(packet);
        let mut waiting: Option<Instant> = None;
        loop {
            let freed = self.0.freed.notified();
            if self.offer(&mut packet, weight, &mut waiting) {
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
                            let Some(oldest) = state.evict() else { break };
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

impl Receiver {
    /// Moves up to `most` items into `into`, waiting for the first. Returns false when the queue is closed and empty.
    pub async fn recv(&mut self, into: &mut VecDeque<Item>, most: usize) -> bool {
        loop {
            let filled = self.0.filled.notified();
            match self.take(into, most) {
                Taken::Some => return true,
                Taken::Closed => return false,
                Taken::Nothing => filled.await,
            }
        }
    }

    fn take(&mut self, into: &mut VecDeque<Item>, most: usize) -> Taken {
        let mut stale = Vec::new();
        let taken = {
            let mut state = self.0.state.lock();
            let before = into.len();
            let oldest = self.0.settings.max_age.map(|age| now_micros() - age.as_micros() as Micros);
            while into.len() - before < most
                && let Some(item) = state.items.pop_front()
            {
                if let Item::Packet(packet) = &item {
                    state.forget(packet);
                }
                match (item, oldest) {
                    (Item::Packet(packet), Some(oldest)) if packet.head.ingest_time < oldest => {
                        state.counts.dropped_stale += 1;
                        stale.push(packet);
                    }
                    (item, _) => into.push_back(item),
                }
            }
            match (into.len() > before, state.closed && state.items.is_empty()) {
                (true, _) => Taken::Some,
                (false, true) => Taken::Closed,
                (false, false) => Taken::Nothing,
            }
        };
        if matches!(taken, Taken::Some) || !stale.is_empty() {
            self.0.freed.notify_one();
        }
        stale.into_iter().for_each(|packet| packet.receipt.settle(Outcome::Dropped(Reason::Stale)));
        taken
    }

    /// Looks into the queue.
    pub fn gauge(&self) -> Gauge {
        Gauge(Arc::clone(&self.0))
    }
}

enum Taken {
    Some,
    Nothing,
    Closed,
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
