//! The calls of a lane that are under way: they end in any order and leave in the order in which
//! they began.

use std::collections::VecDeque;

use futures::future::FutureExt;
use futures::stream::{FuturesOrdered, StreamExt};
use tokio_util::sync::ReusableBoxFuture;

use super::attempt::AttemptOutcome;

type Work = ReusableBoxFuture<'static, AttemptOutcome>;

/// Everything in `finished` began before everything in `working`: only the first of `working` is
/// ever moved, and only to the end of `finished`.
#[derive(Default)]
pub(crate) struct OrderedCalls {
    working: FuturesOrdered<Work>,
    /// Ended while an earlier outcome was still being sent.
    finished: VecDeque<AttemptOutcome>,
    /// A box that the next call can be written into, so that most calls allocate none.
    spare: Option<Work>,
}

impl OrderedCalls {
    /// Whether nothing has begun that has not left.
    pub fn is_empty(&self) -> bool {
        self.working.is_empty() && self.finished.is_empty()
    }

    /// Whether [`next`](Self::next) has something to wait for.
    pub fn is_working(&self) -> bool {
        !self.working.is_empty()
    }

    /// The first outcome, if it is there already.
    pub fn pop_finished(&mut self) -> Option<AttemptOutcome> {
        self.finished.pop_front()
    }

    /// Waits for the first outcome; to be asked when `pop_finished` has none. Cancel-safe: a call
    /// stays where it is until it has ended.
    pub async fn next(&mut self) -> Option<AttemptOutcome> {
        self.working.next().await
    }

    /// Puts a mark between the calls begun before and those that begin later.
    pub fn push_mark(&mut self, mark: AttemptOutcome) {
        self.working
            .push_back(ReusableBoxFuture::new(std::future::ready(mark)));
    }

    /// Begins a call: it is polled now, so that calls run to their first wait in the order of their
    /// inputs. Gives the outcome at once where the call ended in that and none is before it, as
    /// most do.
    pub fn begin(
        &mut self,
        call: impl Future<Output = AttemptOutcome> + Send + 'static,
    ) -> Option<AttemptOutcome> {
        let mut boxed = match self.spare.take() {
            None => ReusableBoxFuture::new(call),
            Some(mut spare) => {
                spare.set(call);
                spare
            }
        };
        match (&mut boxed).now_or_never() {
            Some(outcome) if self.is_empty() => {
                self.spare = Some(boxed);
                return Some(outcome);
            }
            // It has to wait for its turn.
            Some(outcome) => boxed.set(std::future::ready(outcome)),
            None => {}
        }
        self.working.push_back(boxed);
        None
    }

    /// Waits for `sending`; the calls go on meanwhile, so that a full reader costs them no timeout.
    pub async fn drive_while_sending(&mut self, sending: impl Future<Output = ()>) {
        if self.working.is_empty() {
            return sending.await;
        }
        tokio::pin!(sending);
        loop {
            tokio::select! {
                biased;
                () = &mut sending => return,
                Some(outcome) = self.working.next(), if !self.working.is_empty() => {
                    self.finished.push_back(outcome);
                }
            }
        }
    }
}
