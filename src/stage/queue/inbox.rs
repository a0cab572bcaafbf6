//! The inbox: several queues read by one task, which waits for all of them at once.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::Notify;

use super::channel::{Read, Receiver};
use crate::packet::Item;

/// Several queues read by one task, fairly.
pub(crate) struct Inbox {
    receivers: Vec<Receiver>,
    sides: Vec<SideState>,
    filled: Arc<Notify>,
    /// The side that is looked at first.
    next: usize,
    keep_room: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SideState {
    Open,
    Paused,
    Closed,
}

/// What an inbox gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Items of this input were moved out.
    Items(usize),
    /// Nothing more will come from this input.
    Closed(usize),
    /// Every input is closed.
    Done,
}

impl Inbox {
    /// Reads `receivers`, whose queues were all made with `filled`. With `keep_room`, packets that
    /// are read keep their room until `free_room`.
    pub fn new(receivers: Vec<Receiver>, filled: Arc<Notify>, keep_room: bool) -> Self {
        Self {
            sides: vec![SideState::Open; receivers.len()],
            receivers,
            filled,
            next: 0,
            keep_room,
        }
    }

    /// Moves up to `most` items of one input into `into`, waiting for the first. Cancel-safe.
    pub async fn recv(&mut self, into: &mut VecDeque<Item>, most: usize) -> Arrival {
        loop {
            // `notify_one` leaves a permit when nobody waits, so that what comes between the look
            // and the wait is not missed.
            if let Some(arrival) = self.try_recv(into, most) {
                return arrival;
            }
            self.filled.notified().await;
        }
    }

    /// As `recv`, but none when it would wait.
    pub fn try_recv(&mut self, into: &mut VecDeque<Item>, most: usize) -> Option<Arrival> {
        let sides = self.receivers.len();
        for step in 0..sides {
            let side = (self.next + step) % sides;
            if self.sides[side] != SideState::Open {
                continue;
            }
            match self.receivers[side].read(into, most, self.keep_room) {
                Read::Some => {
                    self.next = side + 1;
                    return Some(Arrival::Items(side));
                }
                Read::Closed => {
                    self.sides[side] = SideState::Closed;
                    return Some(Arrival::Closed(side));
                }
                Read::Empty => {}
            }
        }
        self.sides
            .iter()
            .all(|side| *side == SideState::Closed)
            .then_some(Arrival::Done)
    }

    /// Leaves `side` unread until `resume`.
    pub fn pause(&mut self, side: usize) {
        if self.sides[side] == SideState::Open {
            self.sides[side] = SideState::Paused;
        }
    }

    /// Whether every side that is not closed is paused, and some side is.
    pub fn all_paused(&self) -> bool {
        self.sides.contains(&SideState::Paused) && !self.sides.contains(&SideState::Open)
    }

    /// Reads every side again.
    pub fn resume(&mut self) {
        self.sides
            .iter_mut()
            .filter(|side| **side == SideState::Paused)
            .for_each(|side| *side = SideState::Open);
    }

    /// Frees the room of a packet that was read from `side`, by its weight in bytes.
    pub fn free_room(&mut self, side: usize, weight: usize) {
        self.receivers[side].free_room(weight);
    }
}
