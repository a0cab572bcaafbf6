//! Packets between two queues: whoever carries them may be cancelled, and then they count as lost
//! in the shutdown.

use std::collections::VecDeque;

use crate::packet::{Item, Outcome, Packet, Reason};

/// A packet on its way into a queue: if its sender is cancelled meanwhile, it counts as lost in the
/// shutdown.
pub(crate) struct InHand(pub(super) Option<Packet>);

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

/// Items on their way into a queue, together: what is left of them when it falls counts as lost in
/// the shutdown.
#[derive(Default)]
pub(crate) struct OutputBuffer(pub(super) VecDeque<Item>);

impl OutputBuffer {
    pub fn push(&mut self, item: Item) {
        self.0.push_back(item);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn packets(&self) -> usize {
        self.0
            .iter()
            .filter(|item| matches!(item, Item::Packet(_)))
            .count()
    }

    /// The same for a further reader.
    pub fn split(&self) -> Self {
        let copy = |item: &Item| match item {
            Item::Packet(packet) => Item::Packet(packet.split()),
            Item::Mark(mark) => Item::Mark(mark.clone()),
        };
        Self(self.0.iter().map(copy).collect())
    }

    /// Lets go of all that is left.
    pub fn settle(&mut self, outcome: Outcome) {
        for item in self.0.drain(..) {
            if let Item::Packet(packet) = item {
                packet.receipt.settle(outcome);
            }
        }
    }
}

impl Drop for OutputBuffer {
    fn drop(&mut self) {
        self.settle(Outcome::Dropped(Reason::Shutdown));
    }
}
