//! What one stage has emitted for its readers and not yet sent.

use std::collections::VecDeque;

use crate::packet::{Item, Outcome, Reason};

/// Items on their way into a queue, together, so that one lock serves many. Whoever carries them
/// may be cancelled: what is left when the buffer is dropped counts as lost in the shutdown.
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

    /// Packets among its items.
    pub fn packets(&self) -> usize {
        self.0
            .iter()
            .filter(|item| matches!(item, Item::Packet(_)))
            .count()
    }

    /// The same for a further reader: the frames gain a holder.
    pub fn split(&self) -> Self {
        let copy = |item: &Item| match item {
            Item::Packet(packet) => Item::Packet(packet.split()),
            Item::Mark(mark) => Item::Mark(mark.clone()),
        };
        Self(self.0.iter().map(copy).collect())
    }

    /// Settles all that is left.
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
