//! The way that one stage combines its inputs, chosen from its settings.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::join::{Join, JoinSettings};
use super::merge::Merge;
use super::sequence::{Combine, Combined};
use super::single::Single;
use crate::packet::Item;
use crate::stage::queue::Inbox;

/// One of the ways. An enum, since it is asked for every packet.
pub(crate) enum Combiner {
    Single(Single),
    Merge(Merge),
    Join(Join),
}

/// Calls the same method of whichever it is.
macro_rules! each {
    ($combiner:expr, $inner:ident => $call:expr) => {
        match $combiner {
            Combiner::Single($inner) => $call,
            Combiner::Merge($inner) => $call,
            Combiner::Join($inner) => $call,
        }
    };
}

impl Combiner {
    /// For a stage with one input for each of `ordered`, which says whether its packets come in the
    /// order of their times.
    pub fn new(join: Option<JoinSettings>, ordered: &[bool]) -> Self {
        match join {
            Some(settings) => Self::Join(Join::new(settings, ordered)),
            None if ordered.len() > 1 => Self::Merge(Merge::new(ordered)),
            None => Self::Single(Single::default()),
        }
    }
}

impl Combine for Combiner {
    fn accept(&mut self, input: usize, items: &mut VecDeque<Item>, inbox: &mut Inbox) {
        each!(self, inner => inner.accept(input, items, inbox));
    }

    fn close(&mut self, input: usize, inbox: &mut Inbox) {
        each!(self, inner => inner.close(input, inbox));
    }

    fn next(&mut self, inbox: &mut Inbox) -> Option<Combined> {
        each!(self, inner => inner.next(inbox))
    }

    fn waiting(&self) -> usize {
        each!(self, inner => inner.waiting())
    }

    fn reads_ahead(&self) -> bool {
        each!(self, inner => inner.reads_ahead())
    }

    fn deadline(&self) -> Option<Instant> {
        each!(self, inner => inner.deadline())
    }
}
