//! The bounded queue between two stages, capped in frames and in bytes. What happens when it is
//! full is the user's choice, and counted.

mod buffer;
mod settings;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::packet::{Item, Mark, Micros, Outcome, Packet, Reason, Receipt, now_micros};

pub(crate) use buffer::{InHand, OutputBuffer};
pub use settings::{QueueCounts, QueueSettings, WhenFull};

/// Packets that are dropped, and why.
type Lost = Vec<(Packet, Reason)>;

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
    /// A sender waits for room.
    starved: bool,
    /// Packets that have left, read or dropped.
    left: u64,
    /// The packet that is timed, by its number, and when it came.
    timing: Option<(u64, Instant)>,
}

/// Makes a queue. `filled` is told of everything that comes, so that one reader can wait on several
/// queues.
pub fn queue(settings: QueueSettings, filled: &Arc<Notify>) -> (Sender, Receiver) {
    let shared = Arc::new(Shared {
        settings,
        state: Mutex::default(),
        filled: Arc::clone(filled),
        freed: Notify::new(),
    });
    (
        Sender {
            shared: Arc::clone(&shared),
            holds: true,
        },
        Receiver(shared),
    )
}

/// The end that is written. Dropping it closes the queue: what is inside can still be read.
pub struct Sender {
    shared: Arc<Shared>,
    holds: bool,
}

/// The end that is read. Dropping it drops what is inside, counted as lost in the shutdown.
pub struct Receiver(Arc<Shared>);

/// Looks into a queue from outside.
#[derive(Clone)]
pub struct QueueMonitor(Arc<Shared>);

impl State {
    fn fits(&self, settings: &QueueSettings, weight: usize) -> bool {
        self.counts.frames == 0
            || (self.counts.frames < settings.frames
                && self.counts.bytes + weight <= settings.bytes)
    }

    /// Takes a packet in as `when_full` says; gives it back when it must wait.
    fn admit(
        &mut self,
        settings: &QueueSettings,
        packet: Packet,
        lost: &mut Lost,
    ) -> Option<Packet> {
        let weight = packet.weight();
        if self.abandoned {
            lost.push((packet, Reason::Shutdown));
            return None;
        }
        if !self.fits(settings, weight) {
            match settings.when_full {
                WhenFull::Block => return Some(packet),
                WhenFull::DropOldest => {
                    while !self.fits(settings, weight)
                        && let Some(oldest) = self.evict()
                    {
                        lost.push((oldest, Reason::QueueFull));
                    }
                }
                WhenFull::DropNewest => {}
            }
            // Under drop_oldest, all that still fills the queue is held by its reader.
            if !self.fits(settings, weight) {
                self.counts.dropped_full += 1;
                lost.push((packet, Reason::QueueFull));
                return None;
            }
        }
        self.push(packet, weight);
        None
    }

    fn push(&mut self, packet: Packet, weight: usize) {
        self.counts.frames += 1;
        self.counts.bytes += weight;
        self.counts.accepted += 1;
        if self.timing.is_none() {
            self.timing = Some((self.counts.accepted, Instant::now()));
        }
        self.counts.peak_bytes = self.counts.peak_bytes.max(self.counts.bytes);
        self.items.push_back(Item::Packet(packet));
    }

    /// A watermark replaces the one before it, so that marks stay as few as packets.
    fn push_mark(&mut self, mark: Mark) {
        if self.abandoned {
            return;
        }
        if let (
            Mark::Watermark { epoch, .. },
            Some(Item::Mark(Mark::Watermark { epoch: last, .. })),
        ) = (&mark, self.items.back())
            && epoch == last
        {
            self.items.pop_back();
        }
        self.items.push_back(Item::Mark(mark));
    }

    /// Takes the oldest packet out; marks before it stay in their place.
    fn evict(&mut self) -> Option<Packet> {
        let at = self
            .items
            .iter()
            .position(|item| matches!(item, Item::Packet(_)))?;
        let Some(Item::Packet(packet)) = self.items.remove(at) else {
            return None;
        };
        self.leave();
        self.forget(&packet);
        self.counts.dropped_full += 1;
        if at > 0
            && let (
                Some(Item::Mark(Mark::Watermark { epoch: a, .. })),
                Some(Item::Mark(Mark::Watermark { epoch: b, .. })),
            ) = (self.items.get(at - 1), self.items.get(at))
            && a == b
        {
            self.items.remove(at - 1);
        }
        Some(packet)
    }

    /// A packet leaves: packets leave in the order in which they came.
    fn leave(&mut self) {
        self.left += 1;
        if let Some((number, since)) = self.timing
            && number <= self.left
        {
            self.timing = None;
            self.counts.wait = since.elapsed();
            self.counts.timed += 1;
        }
    }

    /// True when a sender waits for the room.
    fn forget(&mut self, packet: &Packet) -> bool {
        self.free(packet.weight())
    }

    fn free(&mut self, weight: usize) -> bool {
        self.counts.frames -= 1;
        self.counts.bytes -= weight;
        std::mem::take(&mut self.starved)
    }
}

impl Sender {
    /// For readers that only count: a packet that enters holds no receipt, so that neither a loss
    /// nor a delay here shows in the ledger.
    #[must_use]
    pub fn uncounted(mut self) -> Self {
        self.holds = false;
        self
    }

    /// Puts a packet in, as `when_full` says. A packet that is dropped settles its receipt; one
    /// that nobody will read any more is dropped as lost in the shutdown.
    pub async fn send(&self, mut packet: Packet) {
        self.count_out(&mut packet);
        let mut packet = InHand::new(packet);
        self.put(|state, settings, lost| {
            packet.0 = packet
                .take()
                .and_then(|packet| state.admit(settings, packet, lost));
            packet.0.is_none()
        })
        .await;
    }

    /// Puts all of them in, in order: packets as `send` does, marks as `mark` does.
    pub(crate) async fn send_all(&self, burst: &mut OutputBuffer) {
        for item in &mut burst.0 {
            if let Item::Packet(packet) = item {
                self.count_out(packet);
            }
        }
        self.put(|state, settings, lost| {
            while let Some(item) = burst.0.pop_front() {
                match item {
                    Item::Mark(mark) => state.push_mark(mark),
                    Item::Packet(packet) => {
                        if let Some(packet) = state.admit(settings, packet, lost) {
                            burst.0.push_front(Item::Packet(packet));
                            return false;
                        }
                    }
                }
            }
            true
        })
        .await;
    }

    /// Takes the receipt of a packet that a reader gets which only counts.
    fn count_out(&self, packet: &mut Packet) {
        if !self.holds {
            std::mem::replace(&mut packet.receipt, Receipt::none()).settle(Outcome::Absorbed);
        }
    }

    /// Calls `put` under the lock until it has put in all it has, and waits for room in between.
    async fn put(&self, mut put: impl FnMut(&mut State, &QueueSettings, &mut Lost) -> bool) {
        if self.offer(&mut put, None) {
            return;
        }
        let since = Instant::now();
        loop {
            // Made before the look at the queue, so that room made in between is not missed.
            let freed = self.shared.freed.notified();
            if self.offer(&mut put, Some(since)) {
                return;
            }
            freed.await;
        }
    }

    fn offer(
        &self,
        put: &mut impl FnMut(&mut State, &QueueSettings, &mut Lost) -> bool,
        waiting: Option<Instant>,
    ) -> bool {
        let mut lost = Lost::new();
        let (done, wake) = {
            let mut state = self.shared.state.lock();
            let empty = state.items.is_empty();
            let done = put(&mut state, &self.shared.settings, &mut lost);
            match waiting {
                Some(since) if done => state.counts.blocked += since.elapsed(),
                _ => state.starved |= !done,
            }
            // The reader reads until nothing is there before it waits.
            (done, empty && !state.items.is_empty())
        };
        if wake {
            self.shared.filled.notify_one();
        }
        // Receipts settle outside the lock: the last one may run an account's code.
        lost.into_iter()
            .for_each(|(packet, reason)| packet.receipt.settle(Outcome::Dropped(reason)));
        done
    }

    /// Puts a mark in; marks are never dropped and take no room.
    pub fn mark(&self, mark: Mark) {
        self.shared.state.lock().push_mark(mark);
        self.shared.filled.notify_one();
    }

    /// Says that nothing more will come; what is inside can still be read.
    pub fn close(&self) {
        self.shared.state.lock().closed = true;
        self.shared.filled.notify_one();
    }

    /// Looks into the queue.
    pub fn monitor(&self) -> QueueMonitor {
        QueueMonitor(Arc::clone(&self.shared))
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.close();
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
    /// Moves up to `most` items to the end of `into`, at once, none beyond a gap. With `hold`,
    /// packets keep their room in the queue until `release`.
    pub fn read(&mut self, into: &mut VecDeque<Item>, most: usize, hold: bool) -> Read {
        let mut stale = Vec::new();
        let oldest = self
            .0
            .settings
            .max_age
            .map(|age| now_micros() - age.as_micros() as Micros);
        let mut wake = false;
        let read = {
            let mut state = self.0.state.lock();
            let before = into.len();
            while into.len() - before < most
                && let Some(item) = state.items.pop_front()
            {
                let packet = match item {
                    Item::Packet(packet) => packet,
                    Item::Mark(mark) => {
                        let gap = matches!(mark, Mark::Gap { .. });
                        into.push_back(Item::Mark(mark));
                        if gap {
                            break;
                        }
                        continue;
                    }
                };
                state.leave();
                if oldest.is_some_and(|oldest| packet.head.ingest_time < oldest) {
                    wake |= state.forget(&packet);
                    state.counts.dropped_stale += 1;
                    stale.push(packet);
                    continue;
                }
                if !hold {
                    wake |= state.forget(&packet);
                }
                into.push_back(Item::Packet(packet));
            }
            match (into.len() > before, state.closed && state.items.is_empty()) {
                (true, _) => Read::Some,
                (false, true) => Read::Closed,
                (false, false) => Read::Empty,
            }
        };
        if wake {
            self.0.freed.notify_waiters();
        }
        stale
            .into_iter()
            .for_each(|packet| packet.receipt.settle(Outcome::Dropped(Reason::Stale)));
        read
    }

    /// Gives back the room of a packet that was read with `hold`.
    pub fn release(&mut self, weight: usize) {
        if self.0.state.lock().free(weight) {
            self.0.freed.notify_waiters();
        }
    }

    /// Looks into the queue.
    pub fn monitor(&self) -> QueueMonitor {
        QueueMonitor(Arc::clone(&self.0))
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
        // All of them: none will be woken again.
        self.0.freed.notify_waiters();
        for item in left {
            if let Item::Packet(packet) = item {
                packet.receipt.settle(Outcome::Dropped(Reason::Shutdown));
            }
        }
    }
}

impl QueueMonitor {
    /// What the queue holds and has seen.
    pub fn counts(&self) -> QueueCounts {
        self.0.state.lock().counts
    }

    /// Its settings.
    pub fn settings(&self) -> QueueSettings {
        self.0.settings
    }
}

#[cfg(test)]
mod tests;
