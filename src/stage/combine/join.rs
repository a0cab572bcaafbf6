//! The join: one side drives, packets of the collected sides inside its spans are gathered, and a
//! span goes on when every collected side has passed its end, or after a wait, then marked partial.
//! A pure state machine, given items and the time; only its `Combine` looks at the clock and frees
//! room.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::sequence::{Combine, Combined, END, Position};
use crate::packet::{Item, Mark, Outcome, Packet, Reason};
use crate::stage::input::PendingInput;
use crate::stage::queue::Inbox;

/// The key `join:` of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinSettings {
    /// The side that drives: its place among the inputs.
    pub per: usize,
    /// The sides that are collected.
    pub collect: Vec<usize>,
    /// How long a span waits for collected sides that lag; none waits for as long as they live.
    pub wait: Option<Duration>,
    /// What happens after that.
    pub late: Late,
}

/// What happens to a span whose wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// It goes on with what is there, marked partial.
    Partial,
    /// It is dropped, counted as late.
    Drop,
}

/// Joins the inputs of one stage for one stream.
#[derive(Debug)]
pub(crate) struct Join {
    settings: JoinSettings,
    /// Items of the driving side, and when each came.
    pending: VecDeque<(Item, Instant)>,
    sides: Vec<Side>,
    /// No span that starts earlier will come.
    driver_watermark: Position,
    /// Spans up to here went on without waiting longer: packets before it come too late.
    late_before: Position,
    /// Packets that it has let go, and whose room in their queue can be freed: the input they came
    /// from, and their weight.
    freed: Vec<(usize, usize)>,
    /// Inputs whose packets do not come in the order of their times: only marks say how far they
    /// are.
    unordered: Vec<usize>,
}

#[derive(Debug)]
struct Side {
    input: usize,
    /// What a span that is pending or still to come may take.
    packets: VecDeque<Packet>,
    watermark: Position,
}

impl Join {
    /// Joins as `settings` say; `ordered` says of each input whether its packets come in the order
    /// of their times.
    pub fn new(settings: JoinSettings, ordered: &[bool]) -> Self {
        let side = |&input: &usize| Side {
            input,
            packets: VecDeque::new(),
            watermark: (0, 0),
        };
        let unordered = (0..ordered.len()).filter(|&input| !ordered[input]);
        Self {
            pending: VecDeque::new(),
            sides: settings.collect.iter().map(side).collect(),
            settings,
            driver_watermark: (0, 0),
            late_before: (0, 0),
            freed: Vec::new(),
            unordered: unordered.collect(),
        }
    }

    /// Takes an item that came from `input` at `now`.
    fn take(&mut self, input: usize, item: Item, now: Instant) {
        if input == self.settings.per {
            // Marks weigh nothing, so they must not pile up behind a span that waits.
            if let Item::Mark(Mark::Watermark { epoch, .. }) = &item
                && let Some((Item::Mark(Mark::Watermark { epoch: last, .. }), _)) =
                    self.pending.back()
                && epoch == last
            {
                self.pending.pop_back();
            }
            self.pending.push_back((item, now));
            return;
        }
        let keep = self.keep_from();
        let Some(side) = self.sides.iter_mut().find(|side| side.input == input) else {
            unreachable!("a join reads only the inputs it names")
        };
        match item {
            Item::Mark(Mark::Watermark { epoch, pts }) => {
                side.watermark = side.watermark.max((epoch, pts))
            }
            Item::Mark(Mark::Gap { to_epoch, .. }) => {
                side.watermark = side.watermark.max((to_epoch, 0))
            }
            Item::Packet(packet) => {
                let position = position(&packet);
                if !self.unordered.contains(&input) {
                    side.watermark = side.watermark.max(position);
                }
                if position < self.late_before || position < keep {
                    let outcome = if position < self.late_before {
                        Outcome::Dropped(Reason::Late)
                    } else {
                        Outcome::Absorbed
                    };
                    self.freed.push((input, packet.weight()));
                    packet.receipt.settle(outcome);
                } else {
                    side.packets.push_back(packet);
                }
            }
        }
    }

    /// Nothing more will come from `input`.
    fn end(&mut self, input: usize) {
        if input == self.settings.per {
            self.driver_watermark = END;
            if self.pending.is_empty() {
                self.drop_passed();
            }
        }
        for side in self.sides.iter_mut().filter(|side| side.input == input) {
            side.watermark = END;
        }
    }

    /// The next span that is complete or overdue at `now`, or mark that is due. Spans leave in their order.
    fn next_at(&mut self, now: Instant) -> Option<Combined> {
        loop {
            let (Item::Packet(packet), since) = self.pending.front()? else {
                let (Item::Mark(mark), _) = self.pending.pop_front()? else {
                    return None;
                };
                self.advance(match mark {
                    Mark::Watermark { epoch, pts } => (epoch, pts),
                    Mark::Gap { to_epoch, .. } => (to_epoch, 0),
                });
                return Some(Combined::Mark(mark));
            };
            let end = (packet.head.epoch, packet.head.span.end);
            let complete = self.sides.iter().all(|side| side.watermark >= end);
            let overdue = self.settings.wait.is_some_and(|wait| now >= *since + wait);
            if !complete && !overdue {
                return None;
            }
            let (Item::Packet(packet), _) = self.pending.pop_front()? else {
                return None;
            };
            self.freed.push((self.settings.per, packet.weight()));
            if !self.unordered.contains(&self.settings.per) {
                self.driver_watermark = self.driver_watermark.max(position(&packet));
            }
            if !complete {
                self.late_before = self.late_before.max(end);
            }
            if !complete && self.settings.late == Late::Drop {
                packet.receipt.settle(Outcome::Dropped(Reason::Late));
                self.drop_passed();
                continue;
            }
            return Some(Combined::Input(self.gather(packet, !complete)));
        }
    }

    fn free_room(&mut self, inbox: &mut Inbox) {
        for (input, weight) in self.freed.drain(..) {
            inbox.free_room(input, weight);
        }
    }

    fn gather(&mut self, packet: Packet, partial: bool) -> PendingInput {
        let (epoch, span) = (packet.head.epoch, packet.head.span);
        let inside =
            |other: &&Packet| other.head.epoch == epoch && span.contains(other.head.span.start);
        let mut collected: Vec<_> = self
            .sides
            .iter()
            .flat_map(|side| side.packets.iter().filter(inside).map(Packet::split))
            .collect();
        collected.sort_by_key(|packet| packet.head.span.start);
        self.drop_passed();
        PendingInput::new(packet, collected, partial)
    }

    fn advance(&mut self, to: Position) {
        self.driver_watermark = self.driver_watermark.max(to);
        self.drop_passed();
    }

    /// Where the earliest span begins that is pending or may still come: what is pending counts
    /// also when its side has ended.
    fn keep_from(&self) -> Position {
        let mut starts = self.pending.iter().filter_map(|(item, _)| {
            if let Item::Packet(packet) = item {
                Some(position(packet))
            } else {
                None
            }
        });
        let pending = if self.unordered.contains(&self.settings.per) {
            starts.min()
        } else {
            starts.next()
        };
        pending.map_or(self.driver_watermark, |pending| {
            pending.min(self.driver_watermark)
        })
    }

    /// Lets go of what no later span can take.
    fn drop_passed(&mut self) {
        let keep = self.keep_from();
        for side in &mut self.sides {
            let ordered = !self.unordered.contains(&side.input);
            let mut at = 0;
            while let Some(packet) = side.packets.get(at) {
                if position(packet) >= keep {
                    if ordered {
                        break;
                    }
                    at += 1;
                } else if let Some(packet) = side.packets.remove(at) {
                    self.freed.push((side.input, packet.weight()));
                    packet.receipt.settle(Outcome::Absorbed);
                }
            }
        }
    }
}

impl Combine for Join {
    fn accept(&mut self, input: usize, items: &mut VecDeque<Item>, inbox: &mut Inbox) {
        let now = Instant::now();
        for item in items.drain(..) {
            self.take(input, item, now);
        }
        self.free_room(inbox);
    }

    fn close(&mut self, input: usize, inbox: &mut Inbox) {
        self.end(input);
        self.free_room(inbox);
    }

    fn next(&mut self, inbox: &mut Inbox) -> Option<Combined> {
        let next = self.next_at(Instant::now());
        self.free_room(inbox);
        next
    }

    fn waiting(&self) -> usize {
        self.pending.len()
    }

    fn reads_ahead(&self) -> bool {
        true
    }

    fn deadline(&self) -> Option<Instant> {
        match self.pending.front()? {
            (Item::Packet(_), since) => Some(*since + self.settings.wait?),
            (Item::Mark(_), _) => None,
        }
    }
}

fn position(packet: &Packet) -> Position {
    (packet.head.epoch, packet.head.span.start)
}

impl Drop for Join {
    /// What is left counts as lost in the shutdown.
    fn drop(&mut self) {
        let pending = self.pending.drain(..).map(|(item, _)| item);
        let collected = self
            .sides
            .iter_mut()
            .flat_map(|side| side.packets.drain(..))
            .map(Item::Packet);
        for item in pending.chain(collected) {
            if let Item::Packet(packet) = item {
                packet.receipt.settle(Outcome::Dropped(Reason::Shutdown));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Payload, Receipt, Segment, Span};
    use crate::stage::testing::{frames, head, root};
    use std::sync::Arc;

    const WAIT: Duration = Duration::from_secs(3);

    fn join_of(late: Late) -> Join {
        let settings = JoinSettings {
            per: 0,
            collect: vec![1],
            wait: Some(WAIT),
            late,
        };
        Join::new(settings, &[true, true])
    }

    fn segment(start: u64, end: u64) -> Item {
        let segment = Segment {
            index: 0,
            cut: crate::packet::Cut::Hard,
            confidence: 1.0,
            frames: end - start,
        };
        let head = Arc::new(head(Span::new(start, end)));
        Item::Packet(Packet {
            head,
            payload: Payload::Segment(Arc::new(segment)),
            receipt: Receipt::none(),
        })
    }

    fn input(combined: Option<Combined>) -> (Vec<u64>, bool) {
        let Some(Combined::Input(input)) = combined else {
            panic!("no input: {combined:?}")
        };
        input.in_flight.settle(Outcome::Absorbed);
        (
            input
                .data
                .collected
                .iter()
                .map(|(head, _)| head.span.start)
                .collect(),
            input.data.partial,
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_span_waits_until_the_collected_side_has_passed_its_end() {
        let (account, mut join, now) = (root(), join_of(Late::Partial), Instant::now());
        join.take(0, segment(0, 3), now);
        for packet in frames(&account, 5) {
            let last = packet.head.span.start == 3;
            assert!(packet.head.span.start >= 3 || join.next_at(now).is_none());
            join.take(1, Item::Packet(packet), now);
            if last {
                assert_eq!(input(join.next_at(now)), (vec![0, 1, 2], false));
            }
        }
        join.take(0, segment(3, 9), now);
        assert!(join.next_at(now).is_none());
        join.end(1);
        assert_eq!(input(join.next_at(now)), (vec![3, 4], false));
        join.end(0);
        drop(join);
        let balance = account.balance();
        assert_eq!(
            (balance.absorbed, balance.leaked, balance.in_flight),
            (5, 0, 0)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_wait_it_goes_on_partial_and_late_points_are_dropped() {
        let (account, mut join, now) = (root(), join_of(Late::Partial), Instant::now());
        let mut packets = frames(&account, 4).into_iter().map(Item::Packet);
        join.take(1, packets.next().expect("four"), now);
        join.take(0, segment(0, 3), now);
        assert!(join.next_at(now).is_none());
        assert_eq!(join.deadline(), Some(now + WAIT));
        assert_eq!(input(join.next_at(now + WAIT)), (vec![0], true));
        packets.for_each(|packet| join.take(1, packet, now));
        assert_eq!(account.balance().dropped["late"], 2);
        join.end(0);
        assert_eq!(account.balance().in_flight, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn late_drop_drops_the_span() {
        let (mut join, now) = (join_of(Late::Drop), Instant::now());
        join.take(0, segment(0, 3), now);
        assert!(join.next_at(now + WAIT).is_none());
        assert_eq!(join.freed, [(0, 256)]);
    }

    #[tokio::test(start_paused = true)]
    async fn overlapping_spans_share_points() {
        let (account, mut join, now) = (root(), join_of(Late::Partial), Instant::now());
        frames(&account, 6)
            .into_iter()
            .for_each(|packet| join.take(1, Item::Packet(packet), now));
        join.take(0, segment(0, 4), now);
        join.take(0, segment(2, 5), now);
        assert_eq!(input(join.next_at(now)), (vec![0, 1, 2, 3], false));
        assert_eq!(input(join.next_at(now)), (vec![2, 3, 4], false));
        join.take(0, Item::Mark(Mark::Watermark { epoch: 0, pts: 5 }), now);
        assert!(matches!(join.next_at(now), Some(Combined::Mark(_))));
        assert_eq!(
            join.freed.iter().filter(|(input, _)| *input == 1).count(),
            5
        );
        drop(join);
        let balance = account.balance();
        assert_eq!((balance.absorbed, balance.dropped["shutdown"]), (5, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_driving_side_that_has_ended_still_collects_for_what_is_pending() {
        let (account, mut join, now) = (root(), join_of(Late::Partial), Instant::now());
        join.take(0, segment(0, 3), now);
        join.take(0, segment(3, 5), now);
        join.end(0);
        frames(&account, 6)
            .into_iter()
            .for_each(|packet| join.take(1, Item::Packet(packet), now));
        assert_eq!(input(join.next_at(now)), (vec![0, 1, 2], false));
        assert_eq!(input(join.next_at(now)), (vec![3, 4], false));
        assert_eq!(account.balance().in_flight, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn watermarks_do_not_pile_up_behind_a_span_that_waits() {
        let (mut join, now) = (join_of(Late::Partial), Instant::now());
        join.take(0, segment(0, 3), now);
        (3..1000).for_each(|pts| join.take(0, Item::Mark(Mark::Watermark { epoch: 0, pts }), now));
        assert_eq!(join.pending.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_epoch_closes_the_old() {
        let (account, mut join, now) = (root(), join_of(Late::Partial), Instant::now());
        frames(&account, 2)
            .into_iter()
            .for_each(|packet| join.take(1, Item::Packet(packet), now));
        join.take(0, segment(0, 9), now);
        assert!(join.next_at(now).is_none());
        join.take(
            1,
            Item::Mark(Mark::Gap {
                from_epoch: 0,
                to_epoch: 1,
            }),
            now,
        );
        assert_eq!(input(join.next_at(now)), (vec![0, 1], false));
    }
}
