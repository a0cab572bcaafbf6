//! Several inputs read as one: a watermark is the least of all sides, and a gap waits until every
//! side has come to it.

use crate::packet::{Item, Mark, Nanos};
use crate::stage::{Inbox, Joined, PendingInput};

/// A point in a stream across its epochs.
type Position = (u64, Nanos);

const END: Position = (u64::MAX, Nanos::MAX);

/// Merges the inputs of one stage for one stream.
pub(crate) struct Merge {
    sides: Vec<Side>,
    told: Position,
    gap: Option<Mark>,
}

#[derive(Clone, Copy)]
struct Side {
    ordered: bool,
    reached: Position,
}

impl Merge {
    /// Merges one side for each of `ordered`, which says whether its packets come in the order of
    /// their times.
    pub fn new(ordered: &[bool]) -> Self {
        Self {
            sides: ordered
                .iter()
                .map(|&ordered| Side {
                    ordered,
                    reached: (0, 0),
                })
                .collect(),
            told: (0, 0),
            gap: None,
        }
    }

    /// What follows from an item of `side`.
    pub fn accept(&mut self, side: usize, item: Item, inbox: &mut Inbox) -> [Option<Joined>; 2] {
        match item {
            Item::Packet(packet) => {
                let position = (packet.head.epoch, packet.head.span.start);
                let input = Some(Joined::Input(PendingInput::new(packet, Vec::new(), false)));
                [
                    input,
                    if self.sides[side].ordered {
                        self.reach(side, position)
                    } else {
                        None
                    },
                ]
            }
            Item::Mark(Mark::Watermark { epoch, pts }) => [self.reach(side, (epoch, pts)), None],
            Item::Mark(gap @ Mark::Gap { .. }) => {
                self.gap = Some(gap);
                inbox.pause(side);
                [self.pass(inbox), None]
            }
        }
    }

    /// What follows from the end of `side`.
    pub fn close(&mut self, side: usize, inbox: &mut Inbox) -> [Option<Joined>; 2] {
        [self.pass(inbox), self.reach(side, END)]
    }

    fn pass(&mut self, inbox: &mut Inbox) -> Option<Joined> {
        if !inbox.all_paused() {
            return None;
        }
        inbox.resume();
        if let Some(Mark::Gap { to_epoch, .. }) = self.gap {
            self.told = self.told.max((to_epoch, 0));
            self.sides
                .iter_mut()
                .for_each(|side| side.reached = side.reached.max((to_epoch, 0)));
        }
        self.gap.take().map(Joined::Mark)
    }

    fn reach(&mut self, side: usize, position: Position) -> Option<Joined> {
        let reached = &mut self.sides[side].reached;
        *reached = position.max(*reached);
        let least = self.sides.iter().map(|side| side.reached).min()?;
        if least <= self.told || least == END {
            return None;
        }
        self.told = least;
        Some(Joined::Mark(Mark::Watermark {
            epoch: least.0,
            pts: least.1,
        }))
    }
}
