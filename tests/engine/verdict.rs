//! What became of every frame, counted from the labs' own notes and compared with the ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use opusflow::packet::Balance;
use opusflow::pipeline::{SessionReport, Summary};
use opusflow::stage::WhenFull;

use super::lab::{Book, Call, Lab, Made, Root, Token};
use super::spec::{Act, Spec, Stage};

/// What became of a frame, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Absorbed,
    Delivered,
    DeadLettered,
    Dropped,
}

/// The best and the worst that the notes allow.
type Range = (Fate, Fate);

const fn just(fate: Fate) -> Range {
    (fate, fate)
}

/// Checks a finished run against the notes.
pub fn check(lab: &Arc<Lab>, summary: &Summary) {
    let book = lab.book.lock();
    assert_eq!(
        summary.sessions.len(),
        book.opened,
        "every stream ends: {:?}",
        summary.errors
    );
    for session in &summary.sessions {
        balances(&lab.spec, &book, session, summary.forced);
    }
    in_order(&book);
    if !summary.forced {
        joins_are_complete(&lab.spec, &book);
        assert!(summary.errors.is_empty(), "{:?}", summary.errors);
        let sinks = lab
            .spec
            .stages
            .iter()
            .filter(|stage| stage.act == Act::Sink)
            .count();
        assert_eq!(
            book.finished.len(),
            sinks * book.opened,
            "every sink is sent the end of every stream"
        );
    }
    for (stage, (_, most)) in &book.busy {
        let limit = lab
            .spec
            .stages
            .iter()
            .find(|other| other.id == *stage)
            .map_or(0, |stage| stage.concurrency);
        assert!(
            *most <= limit * lab.spec.load.streams,
            "`{stage}` worked on {most} at once"
        );
    }
}

fn balances(spec: &Spec, book: &Book, session: &SessionReport, forced: bool) {
    let stream: u8 = session.stream.parse().expect("streams are numbered");
    let mut fates: BTreeMap<Root, Range> = BTreeMap::new();
    for (token, made) in book.made.iter().filter(|(_, made)| made.stream == stream) {
        let mut worst = just(Fate::Absorbed);
        for (reader, input) in spec.readers(&made.stage, made.view) {
            let (fate, roots) = at(book, reader, input, *token, forced);
            for root in roots.unwrap_or(&made.roots) {
                worsen(fates.entry(*root).or_insert(just(Fate::Absorbed)), fate);
            }
            worst = (worst.0.max(fate.0), worst.1.max(fate.1));
        }
        for root in &made.roots {
            worsen(fates.entry(*root).or_insert(just(Fate::Absorbed)), worst);
        }
    }
    for (number, (view, _)) in spec.load.views.iter().enumerate() {
        if spec.readers("in", Some(view)).next().is_none() {
            continue;
        }
        let of_view: Vec<_> = fates
            .iter()
            .filter(|(root, _)| usize::from(root.1) == number)
            .map(|(_, range)| *range)
            .collect();
        let empty = Balance::default();
        compare(
            view,
            &of_view,
            session.ledger.get(*view).unwrap_or(&empty),
            forced,
        );
    }
}

fn worsen(range: &mut Range, by: Range) {
    *range = (range.0.max(by.0), range.1.max(by.1));
}

fn compare(view: &str, fates: &[Range], balance: &Balance, forced: bool) {
    let say = format!("view `{view}`, forced {forced}: {balance:?}");
    assert!(balance.balances(), "{say}");
    assert_eq!((balance.leaked, balance.in_flight), (0, 0), "{say}");
    assert_eq!(balance.ingested, fates.len() as u64, "{say}");
    let dropped: u64 = balance.dropped.values().sum();
    let terms = [
        (Fate::Absorbed, balance.absorbed),
        (Fate::Delivered, balance.delivered),
        (Fate::DeadLettered, balance.dead_lettered),
        (Fate::Dropped, dropped),
    ];
    for (fate, counted) in terms {
        let least = fates.iter().filter(|range| **range == just(fate)).count() as u64;
        let most = fates
            .iter()
            .filter(|range| range.0 <= fate && fate <= range.1)
            .count() as u64;
        assert!(
            (least..=most).contains(&counted),
            "{fate:?}: the notes say {least} to {most}; {say}"
        );
    }
    if !forced {
        assert!(!balance.dropped.contains_key("shutdown"), "{say}");
    }
}

/// What became of a packet at one of its readers, and the frames that it says this of, where these
/// are more than its own.
fn at<'a>(
    book: &'a Book,
    reader: &Stage,
    input: usize,
    token: Token,
    forced: bool,
) -> (Range, Option<&'a [Root]>) {
    let key = (reader.id.clone(), token);
    let call = book.calls.get(&key);
    if reader.act == Act::Sink {
        return (
            match call {
                _ if !reader.required => just(Fate::Absorbed),
                None => just(Fate::Dropped),
                Some(call) if call.ok => just(Fate::Delivered),
                Some(_) => lost(book, &key),
            },
            None,
        );
    }
    if let Some(join) = &reader.join
        && join.collect.contains(&input)
    {
        let queue = reader.inputs[input].queue;
        let sure = !forced
            && join.wait.is_none()
            && queue.when_full == WhenFull::Block
            && queue.max_age.is_none();
        let sure = sure || (!forced && book.collected.contains(&key));
        return (
            if sure {
                just(Fate::Absorbed)
            } else {
                (Fate::Absorbed, Fate::Dropped)
            },
            None,
        );
    }
    match call {
        None => (just(Fate::Dropped), None),
        Some(call) if call.ok => (
            if forced {
                (Fate::Absorbed, Fate::Dropped)
            } else {
                just(Fate::Absorbed)
            },
            Some(&call.roots),
        ),
        Some(call) => (lost(book, &key), Some(&call.roots)),
    }
}

fn lost(book: &Book, key: &(String, Token)) -> Range {
    just(if book.letters.contains(key) {
        Fate::DeadLettered
    } else {
        Fate::Dropped
    })
}

fn in_order(book: &Book) {
    for ((reader, stream, from, kind), seen) in &book.order {
        assert!(
            seen.is_sorted_by(|a, b| a < b),
            "`{reader}` saw {kind:?} of `{from}`, stream {stream}, as {seen:?}"
        );
    }
}

/// A join that did not give up had everything that was emitted inside its span, where nothing could
/// be dropped on the way.
fn joins_are_complete(spec: &Spec, book: &Book) {
    for stage in &spec.stages {
        let Some(join) = &stage.join else { continue };
        let lossless = |input: &usize| {
            let queue = stage.inputs[*input].queue;
            queue.when_full == WhenFull::Block && queue.max_age.is_none()
        };
        if join.wait.is_some() || !join.collect.iter().all(lossless) {
            continue;
        }
        let sides: Vec<_> = join
            .collect
            .iter()
            .map(|&input| &stage.inputs[input])
            .collect();
        for ((_, token), call) in book
            .calls
            .iter()
            .filter(|((id, _), call)| *id == stage.id && call.tries > 0)
        {
            let made = &book.made[token];
            let inside = |other: &Made| {
                other.stream == made.stream
                    && other.epoch == made.epoch
                    && call.span.contains(other.start)
            };
            let side = |other: &Made| {
                sides
                    .iter()
                    .any(|edge| edge.from == other.stage && edge.view == other.view)
            };
            let all: BTreeSet<_> = book
                .made
                .iter()
                .filter(|(_, other)| side(other) && inside(other))
                .map(|(token, _)| *token)
                .collect();
            let Call {
                collected, partial, ..
            } = call;
            assert!(!partial);
            assert_eq!(
                collected.iter().copied().collect::<BTreeSet<_>>(),
                all,
                "`{}` on {token:?} {:?}",
                stage.id,
                call.span
            );
        }
    }
}
