//! One input alone: its items pass straight through.

use std::collections::VecDeque;

use super::sequence::{Combine, Combined};
use crate::packet::Item;
use crate::stage::input::PendingInput;
use crate::stage::queue::Inbox;

/// Passes one input through.
#[derive(Default)]
pub(crate) struct Single {
    ready: VecDeque<Combined>,
}

impl Combine for Single {
    fn accept(&mut self, _input: usize, items: &mut VecDeque<Item>, _inbox: &mut Inbox) {
        self.ready.extend(items.drain(..).map(|item| match item {
            Item::Packet(packet) => Combined::Input(PendingInput::new(packet, Vec::new(), false)),
            Item::Mark(mark) => Combined::Mark(mark),
        }));
    }

    fn close(&mut self, _input: usize, _inbox: &mut Inbox) {}

    fn next(&mut self, _inbox: &mut Inbox) -> Option<Combined> {
        self.ready.pop_front()
    }

    fn waiting(&self) -> usize {
        self.ready.len()
    }
}
