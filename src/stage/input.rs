//! An input of a transform: how the runner carries it, and how each call sees it.

use std::sync::Arc;

use super::in_flight::{DropPolicy, Held, InFlight};
use crate::packet::{Head, Packet, Payload, Receipt, RecordId};

/// What a transform is called with: one packet, and with a `join` the packets collected for it.
#[derive(Debug)]
pub struct Input<'a> {
    /// Stream, times and origin.
    pub head: &'a Arc<Head>,
    /// What it carries.
    pub payload: Payload,
    /// With a `join`: the packets of the collected sides inside its span, by pts.
    pub collected: Vec<(Arc<Head>, Payload)>,
    /// With a `join`: whether a collected side had not caught up in time.
    pub partial: bool,
    in_flight: &'a InFlight,
    drop_policy: &'a DropPolicy,
}

impl Input<'_> {
    /// The id of the packet it came as.
    pub fn id(&self) -> RecordId {
        self.head.id(self.payload.kind())
    }

    /// Keeps the frames behind it in flight, for a stage that emits later what it makes of them. A
    /// stage that neither holds an input nor emits absorbs it.
    #[must_use = "what is dropped at once holds nothing"]
    pub fn hold(&self) -> Held {
        Held::of(self.in_flight, self.drop_policy)
    }
}

/// An input on its way to a transform, as the runner has it.
#[derive(Debug)]
pub struct PendingInput {
    /// Settles the frames behind it, those of what was collected included.
    pub(crate) in_flight: InFlight,
    /// What each try is called with.
    pub(crate) data: InputData,
}

/// The part of an input that a call uses up: cloned where the call may be tried again.
#[derive(Debug, Clone)]
pub(crate) struct InputData {
    pub payload: Payload,
    pub collected: Vec<(Arc<Head>, Payload)>,
    pub partial: bool,
}

impl PendingInput {
    /// A packet with what was collected for it; `partial` where a side had not caught up in time.
    pub fn new(packet: Packet, collected: Vec<Packet>, partial: bool) -> Self {
        let (mut receipt, mut gathered) = (packet.receipt, Vec::with_capacity(collected.len()));
        if !collected.is_empty() {
            let mut receipts = Vec::with_capacity(collected.len() + 1);
            receipts.push(receipt);
            for packet in collected {
                receipts.push(packet.receipt);
                gathered.push((packet.head, packet.payload));
            }
            receipt = Receipt::join(receipts);
        }
        Self {
            in_flight: InFlight::new(packet.head, receipt),
            data: InputData {
                payload: packet.payload,
                collected: gathered,
                partial,
            },
        }
    }
}

impl InputData {
    /// The input of one call, on frames that are `in_flight`.
    pub fn into_input<'a>(self, in_flight: &'a InFlight, drop_policy: &'a DropPolicy) -> Input<'a> {
        let Self {
            payload,
            collected,
            partial,
        } = self;
        Input {
            head: &in_flight.head,
            payload,
            collected,
            partial,
            in_flight,
            drop_policy,
        }
    }
}
