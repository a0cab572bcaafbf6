//! Whether the queues of a join are large enough. While the driving side works on a span, everything collected for it waits in the queues of
//! the collected sides: too small, they block the one source of both, or lose what the span is made of.

use std::time::Duration;

use super::links::{Links, view};
use super::stages::Draft;
use crate::config::{Problems, units};
use crate::packet::PayloadKind;
use crate::stage::{Holds, JoinSettings};

/// What is assumed where a view keeps the film's own rate.
const NATIVE_FPS: f64 = 60.0;
/// What is assumed where a view keeps the film's own size.
const NATIVE_SIZE: (u32, u32) = (1920, 1080);
/// Packets that are between two stages when a span closes.
const SLACK: u64 = 2;

/// Says which queues of the join at `at` are too small, and how large they must be.
pub(super) fn check(at: usize, join: &JoinSettings, drafts: &[Draft<'_>], links: &Links, problems: &mut Problems) {
    // What is wrong with a view was said; its rate is not known.
    if links.sources(at).iter().any(|&source| !drafts[source].sound) {
        return;
    }
    let graph = Graph { drafts, links };
    let Some(driving) = graph.input_lag(at, join.per) else { return };
    let wait = join.wait.filter(|_| links.live(at)).unwrap_or_default();
    let mut slowest = 0.0f64;
    for &input in &join.collect {
        slowest = slowest.max(graph.input_lag(at, input).map_or(0.0, |lag| lag.seconds));
        let reason = driving.reason(wait);
        graph.compare(at, input, driving.seconds + wait.as_secs_f64(), &reason, problems);
    }
    // Where single packets drive, it is they who wait for sides that look ahead.
    let behind = slowest - driving.seconds;
    if driving.longest.is_zero() && behind > 0.0 {
        let reason = format!("inputs that lag by {}", units::write_duration(rounded(behind)));
        graph.compare(at, join.per, behind, &reason, problems);
    }
}

/// How far what a stage gives lies behind what its source gave.
#[derive(Debug, Clone, Copy, Default)]
struct Lag {
    seconds: f64,
    longest: Duration,
    frames: u32,
}

impl Lag {
    fn reason(&self, wait: Duration) -> String {
        let mut parts = Vec::new();
        if !self.longest.is_zero() {
            parts.push(format!("segments of {}", units::write_duration(self.longest)));
        }
        if self.frames > 0 {
            parts.push(format!("{} frames of look-ahead", self.frames));
        }
        if !wait.is_zero() {
            parts.push(format!("a wait of {}", units::write_duration(wait)));
        }
        match &parts[..] {
            [] => "the packets under way".to_owned(),
            [one] => one.clone(),
            [first @ .., last] => format!("{} and {last}", first.join(", ")),
        }
    }
}

struct Graph<'a> {
    drafts: &'a [Draft<'a>],
    links: &'a Links,
}

impl Graph<'_> {
    fn compare(&self, at: usize, input: usize, seconds: f64, reason: &str, problems: &mut Problems) {
        let draft = &self.drafts[at];
        let edge = &draft.inputs[input];
        let (Some(queue), Some(rate), Some(weight)) = (edge.keys.opt_object("queue"), self.rate(at, input), self.weight(at, input)) else {
            return;
        };
        if !edge.sound {
            return;
        }
        let frames = (seconds * rate).ceil() as u64 + SLACK;
        let bytes = frames * weight;
        let (has_frames, has_bytes) = (queue.int("frames").unsigned_abs(), queue.bytes("bytes"));
        let needs = if has_frames < frames {
            format!("{has_frames} packets, but {reason} need {frames}")
        } else if has_bytes < bytes {
            format!("{}, but {reason} need {}", units::write_bytes(has_bytes), units::write_bytes(mebibytes(bytes)))
        } else {
            return;
        };
        let (frames, bytes) = (frames.max(has_frames), units::write_bytes(mebibytes(bytes).max(has_bytes)));
        let message = format!("the queue from `{}` to `{}` holds {needs}", edge.from, draft.id);
        problems
            .add(edge.at, message)
            .help(format!("give this input `queue: {{ frames: {frames}, bytes: {bytes} }}`, or read a view with fewer fps"));
    }

    fn input_lag(&self, at: usize, input: usize) -> Option<Lag> {
        self.lag(self.links.upstream(at, input)?)
    }

    fn lag(&self, stage: usize) -> Option<Lag> {
        let draft = &self.drafts[stage];
        if self.links.is_source(stage) {
            return Some(Lag::default());
        }
        let kind = draft.kind.filter(|_| draft.sound)?;
        let Holds { longest, frames } = (kind.holds)(&draft.with);
        let mut before = Lag::default();
        for up in self.links.above(stage) {
            let lag = self.lag(up)?;
            if lag.seconds > before.seconds {
                before = lag;
            }
        }
        let rate = (0..draft.inputs.len()).filter_map(|input| self.rate(stage, input)).fold(f64::INFINITY, f64::min);
        let ahead = if frames > 0 && rate.is_finite() { f64::from(frames) / rate } else { 0.0 };
        let seconds = before.seconds + longest.as_secs_f64() + ahead;
        Some(Lag { seconds, longest: before.longest + longest, frames: before.frames + frames })
    }

    /// Packets a second on an edge, at most: no stage makes more of one frame than one.
    fn rate(&self, at: usize, input: usize) -> Option<f64> {
        let up = self.links.upstream(at, input)?;
        if self.links.is_source(up) {
            let rate = view(&self.drafts[up], self.drafts[at].inputs[input].view.as_deref()).and_then(|view| view.opt_fps("fps")).flatten();
            return Some(rate.map_or(NATIVE_FPS, |(num, den)| f64::from(num) / f64::from(den)));
        }
        (0..self.drafts[up].inputs.len()).filter_map(|input| self.rate(up, input)).reduce(f64::max)
    }

    /// Bytes of the heaviest packet on an edge.
    fn weight(&self, at: usize, input: usize) -> Option<u64> {
        let up = self.links.upstream(at, input)?;
        let (gives, takes) = (self.drafts[up].kind?, self.drafts[at].kind?);
        gives.emits.iter().filter(|payload| takes.accepts.contains(payload)).map(|payload| self.payload(*payload, at, input)).max()
    }

    fn payload(&self, payload: PayloadKind, at: usize, input: usize) -> u64 {
        match payload {
            PayloadKind::Frame => 256 + self.pixels(at, input),
            PayloadKind::Embedding => 16 << 10,
            PayloadKind::Picture => 256 << 10,
            _ => 1 << 10,
        }
    }

    fn pixels(&self, at: usize, input: usize) -> u64 {
        let Some(up) = self.links.upstream(at, input) else { return 0 };
        if !self.links.is_source(up) {
            return (0..self.drafts[up].inputs.len()).map(|input| self.pixels(up, input)).max().unwrap_or_default();
        }
        let size = view(&self.drafts[up], self.drafts[at].inputs[input].view.as_deref()).and_then(|view| view.opt_size("size")).flatten();
        let (width, height) = size.unwrap_or(NATIVE_SIZE);
        (u64::from(width) * 3).next_multiple_of(4) * u64::from(height)
    }
}

fn mebibytes(bytes: u64) -> u64 {
    bytes.next_multiple_of(1 << 20)
}

fn rounded(seconds: f64) -> Duration {
    Duration::from_millis((seconds * 1000.0).round() as u64)
}
