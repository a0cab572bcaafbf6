//! Receipts: who still holds something made of a frame, and what became of it. A root settles once,
//! when its last holder goes; the worst outcome wins, so that a frame counts as lost if any branch
//! lost it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Why a packet was dropped. Each is a value of the `reason` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    /// The queue was full and its `when_full` drops.
    QueueFull,
    /// It waited longer than the queue's `max_age`.
    Stale,
    /// It arrived after the join that would have taken it had emitted.
    Late,
    /// The stream broke off around it.
    Gap,
    /// The deadline of the shutdown passed.
    Shutdown,
    /// Processing failed and the stage has no dead letters.
    Failed,
}

impl Reason {
    /// Every reason, in the order of its number.
    pub const ALL: [Reason; 6] = [
        Reason::QueueFull,
        Reason::Stale,
        Reason::Late,
        Reason::Gap,
        Reason::Shutdown,
        Reason::Failed,
    ];

    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::QueueFull => "queue_full",
            Reason::Stale => "stale",
            Reason::Late => "late",
            Reason::Gap => "gap",
            Reason::Shutdown => "shutdown",
            Reason::Failed => "failed",
        }
    }
}

/// What became of a frame, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Consumed on purpose, nothing was emitted from it.
    Absorbed,
    /// A required sink has it, or a record made of it.
    Delivered,
    /// It failed and lies in the dead letters with its error.
    DeadLettered,
    /// It was lost, counted under its reason.
    Dropped(Reason),
    /// A holder was dropped without saying what became of it: a bug.
    Leaked,
}

const DROPPED: u8 = 16;
const LEAKED: u8 = u8::MAX;

impl Outcome {
    const fn rank(self) -> u8 {
        match self {
            Outcome::Absorbed => 0,
            Outcome::Delivered => 1,
            Outcome::DeadLettered => 2,
            Outcome::Dropped(reason) => DROPPED + reason as u8,
            Outcome::Leaked => LEAKED,
        }
    }

    fn of_rank(rank: u8) -> Self {
        match rank {
            0 => Outcome::Absorbed,
            1 => Outcome::Delivered,
            2 => Outcome::DeadLettered,
            LEAKED => Outcome::Leaked,
            dropped => Outcome::Dropped(Reason::ALL[(dropped - DROPPED) as usize]),
        }
    }
}

/// Where roots are counted: the ledger's account of one (stream, view).
pub trait Settle: Send + Sync {
    /// Root number `slot` has settled.
    fn settle(&self, slot: u64, outcome: Outcome);
}

/// One hold on what a packet was made of. Not `Clone`: a further hold is taken by
/// [`Receipt::split`] and each must be settled.
pub struct Receipt(Option<Arc<Node>>);

struct Node {
    worst: AtomicU8,
    origin: Roots,
}

enum Roots {
    Root(Arc<dyn Settle>, u64),
    Joined(Vec<Receipt>),
}

impl Receipt {
    /// The first hold on a frame that left a source as number `slot` of `account`.
    pub fn root(account: Arc<dyn Settle>, slot: u64) -> Self {
        Self::of(Roots::Root(account, slot))
    }

    /// A hold on nothing, for packets that no frame went into (events).
    pub const fn none() -> Self {
        Self(None)
    }

    /// One hold that stands for all of `parents`; they settle when it does.
    pub fn join(mut parents: Vec<Receipt>) -> Self {
        parents.retain(|parent| parent.0.is_some());
        match parents.len() {
            0 => Self::none(),
            1 => parents.remove(0),
            _ => Self::of(Roots::Joined(parents)),
        }
    }

    fn of(origin: Roots) -> Self {
        Self(Some(Arc::new(Node {
            worst: AtomicU8::new(0),
            origin,
        })))
    }

    /// A further hold on the same.
    #[must_use = "a hold dropped without an outcome is a leak"]
    pub fn split(&self) -> Self {
        Self(self.0.clone())
    }

    /// Says that this hold ended with `outcome`.
    pub fn settle(mut self, outcome: Outcome) {
        if let Some(node) = self.0.take() {
            node.note(outcome);
        }
    }

    /// Notes an outcome without letting go, when the end is known but something of it still travels
    /// (a dead letter).
    pub fn note(&self, outcome: Outcome) {
        if let Some(node) = &self.0 {
            node.note(outcome);
        }
    }
}

impl Node {
    fn note(&self, outcome: Outcome) {
        self.worst.fetch_max(outcome.rank(), Ordering::AcqRel);
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(node) = self.0.take() {
            node.note(Outcome::Leaked);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let outcome = Outcome::of_rank(*self.worst.get_mut());
        match &mut self.origin {
            Roots::Root(account, slot) => account.settle(*slot, outcome),
            Roots::Joined(parents) => parents.drain(..).for_each(|parent| parent.settle(outcome)),
        }
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(node) => write!(f, "Receipt({} holders)", Arc::strong_count(node)),
            None => f.write_str("Receipt(none)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    #[derive(Default)]
    struct Book(Mutex<Vec<(u64, Outcome)>>);

    impl Settle for Book {
        fn settle(&self, slot: u64, outcome: Outcome) {
            self.0.lock().push((slot, outcome));
        }
    }

    fn root(book: &Arc<Book>, slot: u64) -> Receipt {
        Receipt::root(Arc::clone(book) as Arc<dyn Settle>, slot)
    }

    #[test]
    fn root_settles_once_with_the_worst_outcome() {
        let book = Arc::new(Book::default());
        let first = root(&book, 7);
        let second = first.split();
        first.settle(Outcome::Dropped(Reason::Stale));
        assert!(book.0.lock().is_empty());
        second.settle(Outcome::Delivered);
        assert_eq!(*book.0.lock(), [(7, Outcome::Dropped(Reason::Stale))]);
    }

    #[test]
    fn joined_receipt_settles_every_parent() {
        let book = Arc::new(Book::default());
        let kept = root(&book, 1);
        let joined = Receipt::join(vec![kept.split(), root(&book, 2), Receipt::none()]);
        kept.settle(Outcome::Absorbed);
        joined.settle(Outcome::Delivered);
        assert_eq!(
            *book.0.lock(),
            [(1, Outcome::Delivered), (2, Outcome::Delivered)]
        );
    }

    #[test]
    fn a_receipt_dropped_unsettled_is_a_leak() {
        let book = Arc::new(Book::default());
        drop(root(&book, 3));
        assert_eq!(*book.0.lock(), [(3, Outcome::Leaked)]);
    }

    #[test]
    fn ranks_survive_the_round_trip() {
        let outcomes = [
            Outcome::Absorbed,
            Outcome::Delivered,
            Outcome::DeadLettered,
            Outcome::Leaked,
        ];
        for outcome in outcomes
            .into_iter()
            .chain(Reason::ALL.map(Outcome::Dropped))
        {
            assert_eq!(Outcome::of_rank(outcome.rank()), outcome);
        }
    }
}
