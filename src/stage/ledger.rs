//! The ledger: one account for each (stream, view), in which every frame that left a source settles
//! exactly once. At all times `ingested = delivered + absorbed + dropped + dead_lettered + leaked +
//! in_flight`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::packet::{self, Balance, Nanos, Outcome, Reason, Receipt};

/// The accounts of one stream.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    accounts: Mutex<BTreeMap<Arc<str>, Arc<Account>>>,
}

/// The account of one view of one stream.
#[derive(Debug, Default)]
pub(crate) struct Account {
    book: Mutex<Book>,
    settled: Notify,
}

#[derive(Debug, Default)]
struct Book {
    ingested: u64,
    delivered: u64,
    absorbed: u64,
    dropped: [u64; Reason::ALL.len()],
    dead_lettered: u64,
    leaked: u64,
    /// Frames from the oldest unsettled on. Their numbers are contiguous, `first..ingested`, so
    /// that a frame's place is its number less `first`.
    open: VecDeque<Slot>,
    /// Number of the first of `open`: all before it have settled.
    first: u64,
    /// Epoch and end of the last of those.
    complete: Option<(u64, Nanos)>,
}

#[derive(Debug)]
struct Slot {
    epoch: u64,
    end: Nanos,
    settled: bool,
}

impl Book {
    /// Frames that have settled, whatever their outcome.
    fn settled(&self) -> u64 {
        self.delivered
            + self.absorbed
            + self.dropped.iter().sum::<u64>()
            + self.dead_lettered
            + self.leaked
    }

    /// The invariants, as far as they are seen without a look at every open slot.
    fn check(&self) {
        debug_assert_eq!(
            self.first + self.open.len() as u64,
            self.ingested,
            "slots are contiguous"
        );
        debug_assert!(
            (self.first..=self.ingested).contains(&self.settled()),
            "what has settled is all before the first open slot, and nothing that never came"
        );
        debug_assert!(
            self.open.front().is_none_or(|slot| !slot.settled),
            "settled slots leave from the front"
        );
        debug_assert!(!self.open.is_empty() || self.settled() == self.ingested);
    }
}

impl Ledger {
    /// The account of `view`, opened when first asked for.
    pub fn account(&self, view: &Arc<str>) -> Arc<Account> {
        Arc::clone(self.accounts.lock().entry(Arc::clone(view)).or_default())
    }

    /// Every account's terms, by view.
    pub fn balances(&self) -> BTreeMap<String, Balance> {
        self.accounts
            .lock()
            .iter()
            .map(|(view, account)| (view.to_string(), account.balance()))
            .collect()
    }

    /// The contiguous settled prefix over all views: every frame of `epoch` that ended by that time
    /// has settled, in every view. None as long as some view has settled nothing.
    pub fn complete(&self) -> Option<(u64, Nanos)> {
        self.accounts
            .lock()
            .values()
            .map(|account| account.book.lock().complete)
            .min()?
    }

    /// Waits until nothing is in flight.
    pub async fn drained(&self) {
        let accounts: Vec<_> = self.accounts.lock().values().cloned().collect();
        for account in accounts {
            account.drained().await;
        }
    }
}

impl Account {
    /// Opens a receipt for a frame that ends at `end` of `epoch`.
    pub fn open(self: &Arc<Self>, epoch: u64, end: Nanos) -> Receipt {
        let mut book = self.book.lock();
        let slot = book.ingested;
        book.ingested += 1;
        book.open.push_back(Slot {
            epoch,
            end,
            settled: false,
        });
        book.check();
        Receipt::root(Arc::clone(self) as Arc<dyn packet::Settle>, slot)
    }

    /// The terms now.
    pub fn balance(&self) -> Balance {
        let book = self.book.lock();
        let dropped = Reason::ALL
            .into_iter()
            .zip(book.dropped)
            .filter(|(_, count)| *count > 0);
        let balance = Balance {
            ingested: book.ingested,
            delivered: book.delivered,
            absorbed: book.absorbed,
            dropped: dropped
                .map(|(reason, count)| (reason.as_str().to_owned(), count))
                .collect(),
            dead_lettered: book.dead_lettered,
            leaked: book.leaked,
            in_flight: book.ingested - book.settled(),
        };
        // Counted apart from the terms: frames in flight are the slots that have not settled.
        debug_assert_eq!(
            balance.in_flight,
            book.open.iter().filter(|slot| !slot.settled).count() as u64
        );
        balance
    }

    /// Waits until nothing is in flight.
    pub async fn drained(&self) {
        loop {
            let settled = self.settled.notified();
            if self.book.lock().open.is_empty() {
                return;
            }
            settled.await;
        }
    }
}

impl packet::Settle for Account {
    fn settle(&self, slot: u64, outcome: Outcome) {
        let mut book = self.book.lock();
        match outcome {
            Outcome::Delivered => book.delivered += 1,
            Outcome::Absorbed => book.absorbed += 1,
            Outcome::Dropped(reason) => book.dropped[reason as usize] += 1,
            Outcome::DeadLettered => book.dead_lettered += 1,
            Outcome::Leaked => {
                book.leaked += 1;
                tracing::error!(slot, "a receipt was dropped without an outcome");
            }
        }
        let at = (slot - book.first) as usize;
        let settled_before = std::mem::replace(&mut book.open[at].settled, true);
        debug_assert!(!settled_before, "a root settles once");
        while book.open.front().is_some_and(|slot| slot.settled) {
            book.complete = book.open.pop_front().map(|slot| (slot.epoch, slot.end));
            book.first += 1;
        }
        book.check();
        if book.open.is_empty() {
            drop(book);
            self.settled.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_balance_and_the_prefix_is_contiguous() {
        let ledger = Ledger::default();
        let account = ledger.account(&Arc::from("frames"));
        let mut receipts: Vec<_> = (0..4).map(|n| account.open(0, (n + 1) * 10)).collect();
        receipts.remove(1).settle(Outcome::Delivered);
        assert_eq!(ledger.complete(), None);
        receipts.remove(0).settle(Outcome::Dropped(Reason::Stale));
        assert_eq!(ledger.complete(), Some((0, 20)));
        let balance = account.balance();
        assert!(balance.balances());
        assert_eq!(
            (
                balance.ingested,
                balance.delivered,
                balance.dropped["stale"],
                balance.in_flight
            ),
            (4, 1, 1, 2)
        );
        receipts
            .into_iter()
            .for_each(|receipt| receipt.settle(Outcome::Absorbed));
        assert_eq!(ledger.complete(), Some((0, 40)));
    }

    #[test]
    fn the_slowest_view_holds_the_prefix_back() {
        let ledger = Ledger::default();
        let (a, b) = (
            ledger.account(&Arc::from("a")),
            ledger.account(&Arc::from("b")),
        );
        a.open(0, 10).settle(Outcome::Delivered);
        assert_eq!(ledger.complete(), None);
        b.open(0, 5).settle(Outcome::Delivered);
        assert_eq!(ledger.complete(), Some((0, 5)));
    }

    #[test]
    fn a_leak_is_counted_as_one() {
        let account = Arc::new(Account::default());
        drop(account.open(0, 1));
        assert_eq!(account.balance().leaked, 1);
    }

    #[tokio::test]
    async fn drained_wakes_when_the_last_receipt_settles() {
        let account = Arc::new(Account::default());
        let receipt = account.open(0, 1);
        let waiting = tokio::spawn({
            let account = Arc::clone(&account);
            async move { account.drained().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        receipt.settle(Outcome::Delivered);
        waiting.await.expect("it does not panic");
    }
}
