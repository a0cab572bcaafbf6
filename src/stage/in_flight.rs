//! Who has a packet's receipt between two queues: the runner, as `InFlight`, or a stage that keeps
//! inputs, as `Held`. Both say by themselves what became of the frames when nobody else does.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::packet::{Head, Outcome, Packet, Payload, Reason, Receipt};

/// A packet's head and receipt in the runner's hands, while its payload is at work or waits for
/// room. Dropped without an outcome, by a task that is cancelled, its frames count as lost in the
/// shutdown.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub head: Arc<Head>,
    receipt: LostOnDrop,
}

/// A receipt that settles as lost in the shutdown, where nobody settles it otherwise. A type of its
/// own, so that an `InFlight` can still be taken apart.
#[derive(Debug)]
struct LostOnDrop(Receipt);

impl InFlight {
    pub fn new(head: Arc<Head>, receipt: Receipt) -> Self {
        Self {
            head,
            receipt: LostOnDrop(receipt),
        }
    }

    /// A packet, and its payload apart from it.
    pub fn of(packet: Packet) -> (Self, Payload) {
        (Self::new(packet.head, packet.receipt), packet.payload)
    }

    /// The packet that carries `payload`. The receipt is unguarded from here.
    pub fn into_packet(self, payload: Payload) -> Packet {
        Packet {
            head: self.head,
            payload,
            receipt: self.receipt.into_inner(),
        }
    }

    /// The same for a further packet: the frames gain a holder.
    pub fn split(&self) -> Self {
        Self::new(Arc::clone(&self.head), self.receipt.0.split())
    }

    pub fn settle(self, outcome: Outcome) {
        self.into_receipt().settle(outcome);
    }

    pub fn into_receipt(self) -> Receipt {
        self.receipt.into_inner()
    }
}

impl LostOnDrop {
    fn into_inner(mut self) -> Receipt {
        std::mem::replace(&mut self.0, Receipt::none())
    }
}

impl Drop for LostOnDrop {
    fn drop(&mut self) {
        std::mem::replace(&mut self.0, Receipt::none()).settle(Outcome::Dropped(Reason::Shutdown));
    }
}

/// What becomes of the inputs that a stage still holds when it is dropped: absorbed as a rule, lost
/// when the shutdown's deadline has passed. Shared by all that the stage holds.
#[derive(Debug, Clone, Default)]
pub struct DropPolicy(Arc<AtomicBool>);

impl DropPolicy {
    /// From now on, what is dropped counts as lost in the shutdown.
    pub fn abandon(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn outcome(&self) -> Outcome {
        if self.0.load(Ordering::Acquire) {
            Outcome::Dropped(Reason::Shutdown)
        } else {
            Outcome::Absorbed
        }
    }
}

/// An input that a stage keeps, to emit later what it makes of it: its head, and a hold on the
/// frames behind it, which stay in flight meanwhile. Pixels are not kept. It leaves with the draft
/// that names it ([`PacketDraft::holding`](super::PacketDraft::holding)); dropped otherwise, it is
/// absorbed.
pub struct Held {
    head: Arc<Head>,
    receipt: Receipt,
    drop_policy: DropPolicy,
}

impl Held {
    pub(super) fn of(in_flight: &InFlight, drop_policy: &DropPolicy) -> Self {
        Self {
            head: Arc::clone(&in_flight.head),
            receipt: in_flight.receipt.0.split(),
            drop_policy: drop_policy.clone(),
        }
    }

    /// The input's head.
    pub fn head(&self) -> &Arc<Head> {
        &self.head
    }

    /// A further hold on the same input.
    #[must_use]
    pub fn split(&self) -> Self {
        Self {
            head: Arc::clone(&self.head),
            receipt: self.receipt.split(),
            drop_policy: self.drop_policy.clone(),
        }
    }

    pub(crate) fn settle(mut self, outcome: Outcome) {
        self.take().settle(outcome);
    }

    pub(crate) fn into_receipt(mut self) -> Receipt {
        self.take()
    }

    fn take(&mut self) -> Receipt {
        std::mem::replace(&mut self.receipt, Receipt::none())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let outcome = self.drop_policy.outcome();
        self.take().settle(outcome);
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({:?}, {:?})", self.head.span, self.receipt)
    }
}
