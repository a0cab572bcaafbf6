//! Dead letters: each stage's go to a sink that takes them, the first sink's to itself, and never
//! in a circle.

use std::sync::Arc;

use super::draft::StageDraft;
use super::links::Links;
use super::values::default;
use crate::config::{Problems, Value};
use crate::packet::PayloadKind;
use crate::stage::Role;

/// For each stage the sink of its dead letters; the default is filled into its keys.
pub(super) fn check(
    drafts: &mut [StageDraft<'_>],
    links: &Links,
    problems: &mut Problems,
) -> Vec<Option<usize>> {
    let takes = |draft: &StageDraft<'_>| {
        draft.kind.is_some_and(|kind| {
            kind.role() == Role::Sink && kind.accepts.contains(&PayloadKind::DeadLetter)
        })
    };
    let required = |draft: &StageDraft<'_>| draft.keys.opt_bool("required") == Some(true);
    let first = drafts
        .iter()
        .position(|draft| takes(draft) && required(draft));
    // A sink falls back on the first only where that one hands nothing on: defaults never make a
    // circle.
    let first_passes_on = first.is_some_and(|at| {
        let word = drafts[at].keys.opt_text("dead_letter");
        word.is_some_and(|word| **word != *"none" && *word != drafts[at].id)
    });
    let mut letters = Vec::with_capacity(drafts.len());
    for at in 0..drafts.len() {
        let letter = match drafts[at].keys.opt_text("dead_letter").cloned() {
            Some(word) if *word == *"none" => None,
            Some(word) => named(&word, at, drafts, &takes, problems),
            None if drafts[at].role() == Some(Role::Sink) && first_passes_on => None,
            None => first,
        };
        if drafts[at].role().is_some_and(|role| role != Role::Source) {
            let word = letter.map_or_else(|| "none".into(), |sink| Arc::clone(&drafts[sink].id));
            default(&mut drafts[at].keys, "dead_letter", Value::Text(word));
            letters.push(letter);
        } else {
            letters.push(None);
        }
    }
    if links.order().is_some() {
        circles(drafts, &letters, problems);
    }
    letters
}

fn named(
    word: &str,
    at: usize,
    drafts: &[StageDraft<'_>],
    takes: &dyn Fn(&StageDraft<'_>) -> bool,
    problems: &mut Problems,
) -> Option<usize> {
    let draft = &drafts[at];
    let place = draft
        .node
        .entry("dead_letter")
        .map_or(draft.at, |entry| entry.value.place);
    let sinks = drafts
        .iter()
        .filter(|draft| takes(draft))
        .map(|draft| &*draft.id);
    let found = drafts
        .iter()
        .position(|other| *other.id == *word)
        .map(|sink| (sink, &drafts[sink]));
    match found {
        None => {
            problems
                .add(place, format!("there is no sink `{word}`"))
                .suggest(word, sinks.chain(["none"]));
            None
        }
        Some((_, sink)) if sink.kind.is_some() && !takes(sink) => {
            problems
                .add(place, format!("`{word}` takes no dead letters"))
                .suggest("", sinks.chain(["none"]));
            None
        }
        Some((sink, _)) => Some(sink),
    }
}

/// A sink whose dead letters come back to it would never end.
fn circles(drafts: &[StageDraft<'_>], letters: &[Option<usize>], problems: &mut Problems) {
    // A sink that takes its own hands nothing on.
    let next = |at: usize| letters[at].filter(|&to| to != at);
    for (start, draft) in drafts
        .iter()
        .enumerate()
        .filter(|(_, draft)| draft.role() == Some(Role::Sink))
    {
        let mut path = vec![start];
        while let Some(at) = next(path[path.len() - 1]) {
            if at == start {
                let names: Vec<String> = path
                    .iter()
                    .chain([&start])
                    .map(|&at| format!("`{}`", drafts[at].id))
                    .collect();
                let place = draft
                    .node
                    .entry("dead_letter")
                    .map_or(draft.at, |entry| entry.value.place);
                // Each circle is said once, at its first stage.
                if path.iter().all(|&at| at >= start) {
                    problems
                        .add(
                            place,
                            format!("dead letters go in a circle: {}", names.join(" -> ")),
                        )
                        .help("write `dead_letter: none` at one of them");
                }
                break;
            }
            if path.contains(&at) {
                break;
            }
            path.push(at);
        }
    }
}
