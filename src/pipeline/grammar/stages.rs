//! The keys of a stage and of its inputs, and which of them a role takes.

use super::field::field;
use crate::config::shape::Default::{Absent, Is, Required};
use crate::config::shape::{Field, Type};
use crate::stage::Role;

/// The keys of a stage.
pub(crate) const STAGE: &[Field] = &[
    field(
        "id",
        Type::Text,
        Required,
        "The stage's id: letters, digits, `-` and `_`.",
    ),
    field(
        "kind",
        Type::Text,
        Required,
        "What it does; `opusflow stages` lists the kinds.",
    ),
    field(
        "inputs",
        Type::Unchecked,
        Absent,
        "Where it reads from: `STAGE`, `SOURCE.VIEW`, or a mapping of `from` and `queue`.",
    ),
    field(
        "join",
        Type::Object(JOIN),
        Absent,
        "Joins the inputs by time; without it packets are taken as they come.",
    ),
    field(
        "concurrency",
        Type::Int(1, 1024),
        Absent,
        "Packets of one stream that it works on at a time: 8 for transforms without memory, else \
         1.",
    ),
    field(
        "timeout",
        Type::Duration,
        Is("0s"),
        "How long one packet may take; `0s` for as long as it needs.",
    ),
    field(
        "retry",
        Type::Object(RETRY),
        Is("{}"),
        "How often a packet is tried again after an error that may pass.",
    ),
    field(
        "dead_letter",
        Type::Text,
        Absent,
        "The sink that takes packets that failed: the first required sink when left out, also for \
         itself; `none` to drop and count them.",
    ),
    field(
        "required",
        Type::Bool,
        Absent,
        "For sinks: whether a frame counts as delivered only when this sink has it; true but for \
         `redis` and `console`.",
    ),
    field(
        "with",
        Type::Unchecked,
        Absent,
        "The parameters of its kind.",
    ),
];

/// One of the inputs, written as a mapping.
pub(crate) const INPUT: &[Field] = &[
    field("from", Type::Text, Required, "`STAGE`, or `SOURCE.VIEW`."),
    field(
        "queue",
        Type::Object(QUEUE),
        Is("{}"),
        "The queue between the two stages.",
    ),
];

const QUEUE: &[Field] = &[
    field(
        "frames",
        Type::Int(1, 1_000_000),
        Is("64"),
        "Most packets inside. On the driving side of a join of segments, where a collected side \
         looks ahead: as many as may wait for it.",
    ),
    field(
        "bytes",
        Type::Bytes,
        Is("64MiB"),
        "Most bytes inside; a single packet above it passes alone.",
    ),
    field(
        "when_full",
        Type::Choice(&["block", "drop_oldest", "drop_newest"]),
        Absent,
        "What happens when a packet does not fit: `block` for files, `drop_oldest` for live \
         streams.",
    ),
    field(
        "max_age",
        Type::Duration,
        Absent,
        "A packet that arrived longer ago is dropped when it is read: `5s` for the frames of live \
         streams, else never; `0s` for never.",
    ),
];

const JOIN: &[Field] = &[
    field(
        "per",
        Type::Stage,
        Required,
        "The input that drives: one result for each of its packets.",
    ),
    field(
        "collect",
        Type::List(&Type::Stage),
        Absent,
        "The inputs whose packets inside the driving packet's span are collected; all others when \
         left out.",
    ),
    field(
        "wait",
        Type::Duration,
        Absent,
        "How long a span waits for inputs that lag: `3s` for live streams, for files until they \
         have caught up.",
    ),
    field(
        "late",
        Type::Choice(&["partial", "drop"]),
        Is("partial"),
        "What happens to a span whose wait is over: it goes on with what is there, or it is \
         dropped and counted.",
    ),
];

const RETRY: &[Field] = &[
    field("attempts", Type::Int(1, 100), Is("3"), "Tries in all."),
    field(
        "backoff",
        Type::Duration,
        Is("100ms"),
        "The pause before the second try; it doubles with each further one.",
    ),
];

/// Whether a key means anything for a role.
pub(crate) fn applies(key: &str, role: Role) -> bool {
    match key {
        "id" | "kind" | "with" => true,
        "inputs" | "timeout" | "retry" | "dead_letter" => role != Role::Source,
        "join" | "concurrency" => role == Role::Transform,
        _ => role == Role::Sink,
    }
}
