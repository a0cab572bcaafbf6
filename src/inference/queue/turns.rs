//! What waits for a model: live before files, and within each the streams take round_robin.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One thing that waits.
pub(in crate::inference) struct Queued<T> {
    pub number: u64,
    pub stream: Arc<str>,
    pub live: bool,
    pub deadline: Option<Instant>,
    pub arrived: Instant,
    pub what: T,
}

impl<T> Queued<T> {
    /// When it no longer waits for a fuller batch: after `max_wait`, or at once where its deadline
    /// would pass meanwhile.
    pub fn due(&self, max_wait: Duration) -> Instant {
        let due = self.arrived + max_wait;
        match self.deadline {
            Some(deadline) if deadline < due => self.arrived,
            _ => due,
        }
    }

    pub fn is_expired(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }
}

/// The streams of one class. `round_robin` holds each stream with something waiting exactly once.
struct FairQueue<T> {
    streams: HashMap<Arc<str>, VecDeque<Queued<T>>>,
    round_robin: VecDeque<Arc<str>>,
}

impl<T> FairQueue<T> {
    fn new() -> Self {
        Self {
            streams: HashMap::new(),
            round_robin: VecDeque::new(),
        }
    }

    fn push(&mut self, waiting: Queued<T>) {
        if let Some(stream) = self.streams.get_mut(&waiting.stream) {
            return stream.push_back(waiting);
        }
        self.round_robin.push_back(Arc::clone(&waiting.stream));
        self.streams
            .insert(Arc::clone(&waiting.stream), VecDeque::from([waiting]));
    }

    fn pop(&mut self) -> Option<Queued<T>> {
        let name = self.round_robin.pop_front()?;
        let stream = self.streams.get_mut(&name)?;
        let waiting = stream.pop_front();
        if stream.is_empty() {
            self.streams.remove(&name);
        } else {
            self.round_robin.push_back(name);
        }
        waiting
    }

    fn remove(&mut self, name: &str, number: u64) -> Option<Queued<T>> {
        let stream = self.streams.get_mut(name)?;
        let at = stream.iter().position(|waiting| waiting.number == number)?;
        let waiting = stream.remove(at);
        if stream.is_empty() {
            self.streams.remove(name);
            self.round_robin.retain(|turn| &**turn != name);
        }
        waiting
    }
}

/// The queue of one worker. Its bound is kept by the permits.
pub(in crate::inference) struct Queue<T> {
    live: FairQueue<T>,
    files: FairQueue<T>,
    len: usize,
    next: u64,
}

impl<T> Queue<T> {
    pub fn new() -> Self {
        Self {
            live: FairQueue::new(),
            files: FairQueue::new(),
            len: 0,
            next: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// A number for the next to be pushed.
    pub fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub fn push(&mut self, waiting: Queued<T>) {
        self.len += 1;
        self.line(waiting.live).push(waiting);
        self.check();
    }

    /// The next in turn.
    pub fn pop(&mut self) -> Option<Queued<T>> {
        let next = self.live.pop().or_else(|| self.files.pop())?;
        self.len -= 1;
        self.check();
        Some(next)
    }

    /// Takes one out that its requester gave up.
    pub fn remove(&mut self, live: bool, stream: &str, number: u64) -> Option<Queued<T>> {
        let removed = self.line(live).remove(stream, number)?;
        self.len -= 1;
        self.check();
        Some(removed)
    }

    /// When the first of them no longer waits for a fuller batch.
    pub fn due(&self, max_wait: Duration) -> Option<Instant> {
        let lines = [&self.live, &self.files];
        lines
            .into_iter()
            .flat_map(|line| line.streams.values().flatten())
            .map(|waiting| waiting.due(max_wait))
            .min()
    }

    /// The count is that of the items, and each stream with an item has one turn.
    fn check(&self) {
        debug_assert_eq!(
            self.len,
            [&self.live, &self.files]
                .iter()
                .flat_map(|queue| queue.streams.values())
                .map(VecDeque::len)
                .sum::<usize>()
        );
        debug_assert!(
            [&self.live, &self.files]
                .iter()
                .all(|queue| queue.round_robin.len() == queue.streams.len())
        );
    }

    fn line(&mut self, live: bool) -> &mut FairQueue<T> {
        if live {
            &mut self.live
        } else {
            &mut self.files
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn push(queue: &mut Queue<u32>, stream: &str, live: bool, what: u32) -> u64 {
        let number = queue.number();
        queue.push(Queued {
            number,
            stream: stream.into(),
            live,
            deadline: None,
            arrived: Instant::now(),
            what,
        });
        number
    }

    #[test]
    fn live_goes_first_and_streams_take_turns() {
        let mut queue = Queue::new();
        for (stream, what) in [
            ("a", 1),
            ("a", 2),
            ("a", 3),
            ("b", 11),
            ("c", 21),
            ("c", 22),
        ] {
            push(&mut queue, stream, false, what);
        }
        push(&mut queue, "x", true, 100);
        let order: Vec<_> = std::iter::from_fn(|| queue.pop())
            .map(|waiting| waiting.what)
            .collect();
        assert_eq!(order, [100, 1, 11, 21, 2, 22, 3]);
    }

    #[test]
    fn tight_deadline_does_not_wait_for_a_fuller_batch() {
        let (arrived, wait) = (Instant::now(), Duration::from_millis(20));
        let due = |deadline| {
            Queued {
                number: 0,
                stream: "a".into(),
                live: true,
                deadline,
                arrived,
                what: (),
            }
            .due(wait)
        };
        assert_eq!(due(None), arrived + wait);
        assert_eq!(due(Some(arrived + Duration::from_secs(1))), arrived + wait);
        assert_eq!(due(Some(arrived + Duration::from_millis(10))), arrived);
    }

    proptest! {
        /// Whatever is pushed, popped and removed: nothing is lost or doubled, each stream keeps
        /// its order, live is never behind files.
        #[test]
        fn nothing_is_lost_and_streams_keep_their_order(steps in prop::collection::vec((0u8..4, any::<bool>(), 0u8..3), 1..200)) {
            let mut queue = Queue::new();
            let mut model: Vec<(bool, String, u64)> = Vec::new();
            for (stream, live, step) in steps {
                let name = format!("{stream}");
                match step {
                    0 | 1 => model.push((live, name.clone(), push(&mut queue, &name, live, 0))),
                    _ if stream == 0 && !model.is_empty() => {
                        let (live, name, number) = model.remove(model.len() / 2);
                        prop_assert!(queue.remove(live, &name, number).is_some());
                        prop_assert!(queue.remove(live, &name, number).is_none());
                    }
                    _ => {
                        let popped = queue.pop();
                        prop_assert_eq!(popped.is_none(), model.is_empty());
                        if let Some(popped) = popped {
                            prop_assert!(popped.live || model.iter().all(|(live, ..)| !live));
                            let first = model.iter().position(|(live, name, _)| *live == popped.live && **name == *popped.stream);
                            prop_assert_eq!(first.map(|at| model.remove(at).2), Some(popped.number));
                        }
                    }
                }
                prop_assert_eq!(queue.len(), model.len());
                prop_assert_eq!(queue.due(Duration::ZERO).is_some(), !model.is_empty());
            }
        }
    }
}
