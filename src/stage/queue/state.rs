//! What is inside a queue: what comes in, what is dropped to make room for it, what leaves. Used
//! under the queue's lock, so it waits for nothing and settles no receipt.

use std::collections::VecDeque;
use std::time::Instant;

use super::settings::{QueueCounts, QueueSettings, WhenFull};
use crate::packet::{Item, Mark, Packet, Reason};

/// Packets that are dropped, and why: whoever holds the lock settles them after it.
pub(super) type Lost = Vec<(Packet, Reason)>;

/// Invariants, with the packets among `items` called inside, and those that the reader has but that
/// keep their room called kept:
/// - `counts.frames` and `counts.bytes` are those of the packets inside and kept;
/// - `counts.accepted - departed` packets are inside;
/// - frames and bytes are within the settings, but that one packet alone may be heavier.
#[derive(Default)]
pub(super) struct State {
    items: VecDeque<Item>,
    pub counts: QueueCounts,
    closed: bool,
    /// Nobody reads any more: what comes is dropped.
    reader_gone: bool,
    /// A sender waits for room.
    pub sender_waits: bool,
    /// Packets that have left `items`, read or dropped.
    departed: u64,
    /// The packet that is timed, by its number among those accepted, and when it came.
    timing: Option<(u64, Instant)>,
}

impl State {
    /// Takes a packet in as `when_full` says; gives it back when it must wait.
    pub fn admit(
        &mut self,
        settings: &QueueSettings,
        packet: Packet,
        lost: &mut Lost,
    ) -> Option<Packet> {
        let weight = packet.weight();
        if self.reader_gone {
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
            // Under drop_oldest, all that still fills the queue is kept by its reader.
            if !self.fits(settings, weight) {
                self.counts.dropped_full += 1;
                lost.push((packet, Reason::QueueFull));
                return None;
            }
        }
        self.push(packet, weight);
        self.check(settings);
        None
    }

    fn fits(&self, settings: &QueueSettings, weight: usize) -> bool {
        self.counts.frames == 0
            || (self.counts.frames < settings.frames
                && self.counts.bytes + weight <= settings.bytes)
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

    /// Takes a mark in. A watermark replaces the one before it, so that marks stay as few as
    /// packets.
    pub fn push_mark(&mut self, mark: Mark) {
        if self.reader_gone {
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

    /// Drops the oldest packet inside; marks before it stay in their place.
    fn evict(&mut self) -> Option<Packet> {
        let at = self
            .items
            .iter()
            .position(|item| matches!(item, Item::Packet(_)))?;
        let Some(Item::Packet(packet)) = self.items.remove(at) else {
            return None;
        };
        self.count_departure();
        self.free_room(packet.weight());
        self.counts.dropped_full += 1;
        // The marks on both its sides have become neighbours: of two watermarks one is enough.
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

    /// Takes out the oldest item. A packet keeps its room until `free_room`.
    pub fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        if let Item::Packet(_) = &item {
            self.count_departure();
        }
        Some(item)
    }

    /// Packets leave in the order in which they came, so the number of those that have left says
    /// whether the timed one is among them.
    fn count_departure(&mut self) {
        self.departed += 1;
        debug_assert!(self.departed <= self.counts.accepted);
        if let Some((number, since)) = self.timing
            && number <= self.departed
        {
            self.timing = None;
            self.counts.wait = since.elapsed();
            self.counts.timed += 1;
        }
    }

    /// Frees the room of a packet that has left; true when a sender waits for it and must be woken.
    pub fn free_room(&mut self, weight: usize) -> bool {
        self.counts.frames -= 1;
        self.counts.bytes -= weight;
        debug_assert!(
            self.counts.frames as u64 >= self.counts.accepted - self.departed,
            "room is freed once, and of packets that have left"
        );
        std::mem::take(&mut self.sender_waits)
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether nothing is inside and nothing will come.
    pub fn is_drained(&self) -> bool {
        self.closed && self.items.is_empty()
    }

    /// The sender has gone.
    pub fn close(&mut self) {
        self.closed = true;
        self.recount();
    }

    /// The reader has gone: gives what is inside, and from now on drops what comes.
    pub fn abandon(&mut self) -> VecDeque<Item> {
        self.recount();
        self.reader_gone = true;
        self.counts.frames = 0;
        self.counts.bytes = 0;
        self.departed = self.counts.accepted;
        std::mem::take(&mut self.items)
    }

    /// The invariants, as far as they are seen without a look at every item.
    pub fn check(&self, settings: &QueueSettings) {
        let QueueCounts { frames, bytes, .. } = self.counts;
        debug_assert_eq!(frames == 0, bytes == 0, "every packet weighs something");
        debug_assert!(
            frames <= 1 || (frames <= settings.frames && bytes <= settings.bytes),
            "{frames} frames of {bytes} bytes in a queue of {settings:?}"
        );
    }

    /// In debug builds, compares the counts with every packet inside.
    fn recount(&self) {
        if cfg!(debug_assertions) && !self.reader_gone {
            let (mut frames, mut bytes) = (0, 0);
            for item in &self.items {
                if let Item::Packet(packet) = item {
                    frames += 1;
                    bytes += packet.weight();
                }
            }
            debug_assert_eq!(frames as u64, self.counts.accepted - self.departed);
            debug_assert!(frames <= self.counts.frames && bytes <= self.counts.bytes);
            // What is counted beyond those inside is kept by the reader.
            debug_assert_eq!(
                self.counts.frames == frames,
                self.counts.bytes == bytes,
                "frames and bytes count the same packets"
            );
        }
    }
}
