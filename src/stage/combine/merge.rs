//! Inputs read as they come: the watermark of all is the least of theirs, and a gap waits until
//! every input has come to it.

use std::collections::VecDeque;

use super::sequence::{Combine, Combined, END, Position};
use crate::packet::{Item, Mark};
use crate::stage::input::PendingInput;
use crate::stage::queue::Inbox;

/// Merges the inputs of one stage for one stream.
pub(crate) struct Merge {
    sides: Vec<Side>,
    /// The watermark that was given last.
    watermark: Position,
    /// A gap that some side has come to. Such a side is paused, so that nothing from behind the gap
    /// overtakes what other sides still have from before it.
    gap: Option<Mark>,
    ready: VecDeque<Combined>,
}

#[derive(Clone, Copy)]
struct Side {
    /// Whether its packets come in the order of their times, so that each is a watermark too.
    ordered: bool,
    watermark: Position,
}

impl Merge {
    /// Merges one side for each of `ordered`, which says whether its packets come in the order of
    /// their times.
    pub fn new(ordered: &[bool]) -> Self {
        let side = |&ordered: &bool| Side {
            ordered,
            watermark: (0, 0),
        };
        Self {
            sides: ordered.iter().map(side).collect(),
            watermark: (0, 0),
            gap: None,
            ready: VecDeque::new(),
        }
    }

    fn take(&mut self, side: usize, item: Item, inbox: &mut Inbox) {
        match item {
            Item::Packet(packet) => {
                let position = (packet.head.epoch, packet.head.span.start);
                let input = PendingInput::new(packet, Vec::new(), false);
                self.ready.push_back(Combined::Input(input));
                if self.sides[side].ordered {
                    self.advance(side, position);
                }
            }
            Item::Mark(Mark::Watermark { epoch, pts }) => self.advance(side, (epoch, pts)),
            Item::Mark(gap @ Mark::Gap { .. }) => {
                self.gap = Some(gap);
                inbox.pause(side);
                self.pass_gap(inbox);
            }
        }
    }

    /// Lets the gap pass where every side that is still open has come to it.
    fn pass_gap(&mut self, inbox: &mut Inbox) {
        if !inbox.all_paused() {
            return;
        }
        inbox.resume();
        let Some(gap) = self.gap.take() else { return };
        if let Mark::Gap { to_epoch, .. } = gap {
            let begin = (to_epoch, 0);
            self.watermark = self.watermark.max(begin);
            for side in &mut self.sides {
                side.watermark = side.watermark.max(begin);
            }
        }
        self.ready.push_back(Combined::Mark(gap));
    }

    /// Nothing earlier than `position` will come from `side`.
    fn advance(&mut self, side: usize, position: Position) {
        let watermark = &mut self.sides[side].watermark;
        *watermark = position.max(*watermark);
        let least = self.sides.iter().map(|side| side.watermark).min();
        let Some(least @ (epoch, pts)) = least else {
            return;
        };
        if least > self.watermark && least != END {
            self.watermark = least;
            let mark = Mark::Watermark { epoch, pts };
            self.ready.push_back(Combined::Mark(mark));
        }
    }
}

impl Combine for Merge {
    fn accept(&mut self, input: usize, items: &mut VecDeque<Item>, inbox: &mut Inbox) {
        for item in items.drain(..) {
            self.take(input, item, inbox);
        }
    }

    fn close(&mut self, input: usize, inbox: &mut Inbox) {
        self.pass_gap(inbox);
        self.advance(input, END);
    }

    fn next(&mut self, _inbox: &mut Inbox) -> Option<Combined> {
        self.ready.pop_front()
    }

    fn waiting(&self) -> usize {
        self.ready.len()
    }
}
