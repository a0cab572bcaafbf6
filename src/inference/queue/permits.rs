//! The permits of a worker's queue. A permit is reserved before an item is queued and freed when
//! the item is done with, so that what waits is bounded; those who wait for one stand in order,
//! live before files.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::error::{Error, Result};

/// All permits of a queue.
pub(in crate::inference) struct QueuePermits(Arc<Mutex<State>>);

struct State {
    all: usize,
    free: usize,
    live: VecDeque<Waiter>,
    files: VecDeque<Waiter>,
    next: u64,
    closed: bool,
}

struct Waiter {
    number: u64,
    grant: oneshot::Sender<QueuePermit>,
}

/// One permit. It is free again when this is dropped.
pub(in crate::inference) struct QueuePermit(Option<Arc<Mutex<State>>>);

impl State {
    /// A permit is free, taken, or on its way to a waiter: none is free while somebody waits, as a
    /// freed one is handed on under the same lock that waiters join and leave under.
    fn check(&self) {
        debug_assert!(self.free <= self.all, "no more are free than there are");
        debug_assert!(
            self.free == 0 || self.live.is_empty() && self.files.is_empty(),
            "none waits while one is free"
        );
    }

    fn waiters(&mut self, live: bool) -> &mut VecDeque<Waiter> {
        if live {
            &mut self.live
        } else {
            &mut self.files
        }
    }
}

/// Takes a waiter out of the line when its future is dropped.
struct LeaveOnDrop<'a> {
    permits: &'a QueuePermits,
    number: u64,
    live: bool,
}

impl QueuePermits {
    pub fn new(free: usize) -> Self {
        let (live, files) = (VecDeque::new(), VecDeque::new());
        Self(Arc::new(Mutex::new(State {
            all: free,
            free,
            live,
            files,
            next: 0,
            closed: false,
        })))
    }

    /// Waits for a permit. Dropping the future leaves the line; a permit granted in that moment
    /// goes to the next.
    pub async fn reserve(&self, live: bool) -> Result<QueuePermit> {
        let (granted, number) = {
            let mut state = self.0.lock();
            if state.closed {
                return Err(closed());
            }
            if state.free > 0 {
                state.free -= 1;
                return Ok(QueuePermit(Some(Arc::clone(&self.0))));
            }
            let (grant, granted) = oneshot::channel();
            let number = state.next;
            state.next += 1;
            state.waiters(live).push_back(Waiter { number, grant });
            state.check();
            (granted, number)
        };
        let _leave = LeaveOnDrop {
            permits: self,
            number,
            live,
        };
        granted.await.map_err(|_| closed())
    }

    /// Sends those who wait away and lets nobody in.
    pub fn close(&self) {
        let sent_away = {
            let mut state = self.0.lock();
            state.closed = true;
            (
                std::mem::take(&mut state.live),
                std::mem::take(&mut state.files),
            )
        };
        drop(sent_away);
    }

    /// How many are taken or waited for.
    pub fn taken(&self) -> usize {
        let state = self.0.lock();
        state.all - state.free + state.live.len() + state.files.len()
    }

    #[cfg(test)]
    pub fn free_and_waiting(&self) -> (usize, usize) {
        let state = self.0.lock();
        (state.free, state.live.len() + state.files.len())
    }
}

impl Drop for LeaveOnDrop<'_> {
    fn drop(&mut self) {
        let left = {
            let mut state = self.permits.0.lock();
            let waiters = state.waiters(self.live);
            let at = waiters
                .iter()
                .position(|waiter| waiter.number == self.number);
            at.and_then(|at| waiters.remove(at))
        };
        drop(left);
    }
}

impl Drop for QueuePermit {
    fn drop(&mut self) {
        let Some(permits) = self.0.take() else { return };
        loop {
            let next = {
                let mut state = permits.lock();
                let next = state.live.pop_front().or_else(|| state.files.pop_front());
                if next.is_none() {
                    state.free += 1;
                }
                state.check();
                next
            };
            let Some(waiter) = next else { return };
            match waiter.grant.send(QueuePermit(Some(Arc::clone(&permits)))) {
                Ok(()) => return,
                // Its requester has just gone: the permit stays ours to give away.
                Err(mut refused) => drop(refused.0.take()),
            }
        }
    }
}

pub(in crate::inference) fn closed() -> Error {
    Error::overload("the model's worker is shutting down")
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, poll};

    use super::*;

    #[tokio::test]
    async fn freed_place_goes_to_live_first_then_in_order() {
        let permits = QueuePermits::new(1);
        let first = permits.reserve(false).await.unwrap();
        let (mut file, mut later) = (
            permits.reserve(false).boxed(),
            permits.reserve(false).boxed(),
        );
        let mut live = permits.reserve(true).boxed();
        assert!(
            poll!(&mut file).is_pending()
                && poll!(&mut later).is_pending()
                && poll!(&mut live).is_pending()
        );
        drop(first);
        assert!(poll!(&mut later).is_pending() && poll!(&mut file).is_pending());
        drop(live.await.unwrap());
        assert!(poll!(&mut later).is_pending());
        drop(file.await.unwrap());
        drop(later.await.unwrap());
        assert_eq!(permits.free_and_waiting(), (1, 0));
    }

    #[tokio::test]
    async fn place_of_one_who_goes_passes_to_the_next() {
        let permits = QueuePermits::new(1);
        let first = permits.reserve(false).await.unwrap();
        // One has gone but still stands in line, as between its leaving and its taking itself out.
        let (grant, gone) = oneshot::channel();
        drop(gone);
        permits.0.lock().files.push_back(Waiter {
            number: u64::MAX,
            grant,
        });
        let (mut granted, mut last) = (
            permits.reserve(false).boxed(),
            permits.reserve(false).boxed(),
        );
        assert!(poll!(&mut granted).is_pending() && poll!(&mut last).is_pending());
        drop(first);
        // This one was granted the permit and goes without having looked.
        drop(granted);
        drop(
            last.now_or_never()
                .expect("the permit came through")
                .unwrap(),
        );
        assert_eq!(permits.free_and_waiting(), (1, 0));
    }

    #[tokio::test]
    async fn closing_sends_everyone_away() {
        let permits = QueuePermits::new(1);
        let _first = permits.reserve(false).await.unwrap();
        let mut waits = permits.reserve(true).boxed();
        assert!(poll!(&mut waits).is_pending());
        permits.close();
        assert!(waits.await.is_err() && permits.reserve(false).await.is_err());
    }
}
