//! The two ends of a queue: a sender that waits for room where `when_full` blocks, a receiver that
//! reads by batches, and a monitor that looks in from outside.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::output_buffer::OutputBuffer;
use super::settings::{QueueCounts, QueueSettings};
use super::state::{Lost, State};
use crate::packet::{Item, Mark, Micros, Outcome, Packet, Reason, Receipt, now_micros};
use crate::stage::in_flight::InFlight;

struct Shared {
    settings: QueueSettings,
    state: Mutex<State>,
    /// Wakes the reader. It may be shared with the reader's other queues.
    filled: Arc<Notify>,
    /// Wakes senders that wait for room.
    freed: Notify,
}

/// Makes a queue. `filled` is notified when something comes into it while it is empty, so that one
/// reader can wait on several queues.
pub(crate) fn queue(settings: QueueSettings, filled: &Arc<Notify>) -> (Sender, Receiver) {
    let shared = Arc::new(Shared {
        settings,
        state: Mutex::default(),
        filled: Arc::clone(filled),
        freed: Notify::new(),
    });
    (
        Sender {
            shared: Arc::clone(&shared),
            keeps_receipts: true,
        },
        Receiver(shared),
    )
}

/// The end that is written. Dropping it closes the queue: what is inside can still be read.
pub(crate) struct Sender {
    shared: Arc<Shared>,
    keeps_receipts: bool,
}

/// The end that is read. Dropping it drops what is inside, counted as lost in the shutdown.
pub(crate) struct Receiver(Arc<Shared>);

/// Looks into a queue from outside.
#[derive(Clone)]
pub(crate) struct QueueMonitor(Arc<Shared>);

impl Sender {
    /// For readers that only count: a packet that enters holds no receipt, so that neither a loss
    /// nor a delay here shows in the ledger.
    #[must_use]
    pub fn without_receipts(mut self) -> Self {
        self.keeps_receipts = false;
        self
    }

    /// Puts a packet in, as `when_full` says. A packet that is dropped settles its receipt; one
    /// that nobody will read any more is dropped as lost in the shutdown, and so is one whose
    /// sender is cancelled before it is in.
    pub fn send(&self, mut packet: Packet) -> impl Future<Output = ()> + Send {
        self.strip_receipt(&mut packet);
        // Before the future begins: one that is dropped without a poll settles the receipt too.
        let mut waiting = Some(InFlight::of(packet));
        async move {
            self.put(|state, settings, lost| {
                waiting = waiting
                    .take()
                    .and_then(|(in_flight, payload)| {
                        state.admit(settings, in_flight.into_packet(payload), lost)
                    })
                    .map(InFlight::of);
                waiting.is_none()
            })
            .await;
        }
    }

    /// Puts all of them in, in order: packets as `send` does, marks as `mark` does.
    pub(crate) async fn send_all(&self, buffer: &mut OutputBuffer) {
        for item in &mut buffer.0 {
            if let Item::Packet(packet) = item {
                self.strip_receipt(packet);
            }
        }
        self.put(|state, settings, lost| {
            while let Some(item) = buffer.0.pop_front() {
                match item {
                    Item::Mark(mark) => state.push_mark(mark),
                    Item::Packet(packet) => {
                        if let Some(packet) = state.admit(settings, packet, lost) {
                            buffer.0.push_front(Item::Packet(packet));
                            return false;
                        }
                    }
                }
            }
            true
        })
        .await;
    }

    /// Settles the receipt of a packet whose reader only counts.
    fn strip_receipt(&self, packet: &mut Packet) {
        if !self.keeps_receipts {
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
            // Made before the look at the queue, so that room freed in between is not missed.
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
            let empty = state.is_empty();
            let done = put(&mut state, &self.shared.settings, &mut lost);
            match waiting {
                Some(since) if done => state.counts.blocked += since.elapsed(),
                _ => state.sender_waits |= !done,
            }
            // The reader reads until nothing is there before it waits.
            (done, empty && !state.is_empty())
        };
        if wake {
            self.shared.filled.notify_one();
        }
        // Receipts settle outside the lock: the last one may run an account's code.
        for (packet, reason) in lost {
            packet.receipt.settle(Outcome::Dropped(reason));
        }
        done
    }

    /// Puts a mark in; marks are never dropped and take no room.
    pub fn mark(&self, mark: Mark) {
        self.shared.state.lock().push_mark(mark);
        self.shared.filled.notify_one();
    }

    /// Says that nothing more will come; what is inside can still be read.
    pub fn close(&self) {
        self.shared.state.lock().close();
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
pub(super) enum Read {
    /// Items were moved out.
    Some,
    /// Nothing is there yet.
    Empty,
    /// Nothing is there, and nothing will come.
    Closed,
}

impl Receiver {
    /// Moves up to `most` items to the end of `into`, at once, none beyond a gap. Packets that are
    /// too old by the queue's `max_age` are dropped instead. With `keep_room`, packets keep their
    /// room in the queue until `free_room`.
    pub(super) fn read(&mut self, into: &mut VecDeque<Item>, most: usize, keep_room: bool) -> Read {
        let mut stale = Vec::new();
        let max_age = self.0.settings.max_age;
        let oldest = max_age.map(|age| now_micros() - age.as_micros() as Micros);
        let mut wake = false;
        let read = {
            let mut state = self.0.state.lock();
            let before = into.len();
            while into.len() - before < most
                && let Some(item) = state.pop()
            {
                match item {
                    Item::Packet(packet) => {
                        let is_stale =
                            oldest.is_some_and(|oldest| packet.head.ingest_time < oldest);
                        if is_stale || !keep_room {
                            wake |= state.free_room(packet.weight());
                        }
                        if is_stale {
                            state.counts.dropped_stale += 1;
                            stale.push(packet);
                        } else {
                            into.push_back(Item::Packet(packet));
                        }
                    }
                    Item::Mark(mark) => {
                        let gap = matches!(mark, Mark::Gap { .. });
                        into.push_back(Item::Mark(mark));
                        if gap {
                            break;
                        }
                    }
                }
            }
            state.check(&self.0.settings);
            if into.len() > before {
                Read::Some
            } else if state.is_drained() {
                Read::Closed
            } else {
                Read::Empty
            }
        };
        if wake {
            self.0.freed.notify_waiters();
        }
        // Outside the lock, as in `offer`.
        for packet in stale {
            packet.receipt.settle(Outcome::Dropped(Reason::Stale));
        }
        read
    }

    /// Frees the room of a packet that was read with `keep_room`, by its weight in bytes.
    pub(super) fn free_room(&mut self, weight: usize) {
        if self.0.state.lock().free_room(weight) {
            self.0.freed.notify_waiters();
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let inside = self.0.state.lock().abandon();
        // All of them: none will be woken again.
        self.0.freed.notify_waiters();
        for item in inside {
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
