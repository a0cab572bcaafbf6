//! Whether the queues of a join are large enough. While the driving side works on a span,
//! everything collected for it waits in the queues of the collected sides, and while a collected
//! side looks ahead, finished spans wait in the queue of the driving side: too small, they block
//! the one source of both for ever, or lose what the span is made of.
//!
//! No other edge can hold up what it waits for. A stage that merges reads whatever side has
//! something; one that has come to a gap is left unread only until the others have, and the source
//! tells all of them of a gap at once. The queues further up on a join's paths are emptied by
//! stages that wait for nothing but room behind them.

use std::time::Duration;

use super::draft::{InputDraft, StageDraft};
use super::links::{Links, gives, view};
use crate::config::{Problems, Provenance, Value, units};
use crate::packet::{PayloadKind, SAMPLE_RATE};
use crate::stage::{JoinSettings, Lookahead};

/// What is assumed where a view keeps the film's own rate.
const ASSUMED_FPS: f64 = 60.0;
/// What is assumed where a view keeps the film's own size.
const ASSUMED_SIZE: (u32, u32) = (1920, 1080);
/// A lag that is none.
const NEGLIGIBLE_LAG: f64 = 0.001;
/// Packets that are between two stages when a span closes.
const IN_TRANSIT: u64 = 2;

/// Says which queues of the join at `at` are too small, and how large they must be. Where spans
/// drive and the file does not say how many may wait, as many may as it takes.
pub(super) fn check(
    at: usize,
    joins: &[Option<JoinSettings>],
    drafts: &mut [StageDraft<'_>],
    links: &Links,
    problems: &mut Problems,
) {
    let Some(join) = &joins[at] else { return };
    // What is wrong with a view was said; its rate is not known.
    if links
        .sources(at)
        .iter()
        .any(|&source| !drafts[source].sound)
    {
        return;
    }
    let graph = Graph {
        drafts,
        links,
        joins,
    };
    let Some(driving) = graph.input_lag(at, join.per) else {
        return;
    };
    let wait = join.wait.filter(|_| links.live(at)).unwrap_or_default();
    let behind: Vec<f64> = join
        .collect
        .iter()
        .map(|&input| graph.side_lag(at, join.per, input).unwrap_or_default())
        .collect();
    for (number, &input) in join.collect.iter().enumerate() {
        // A span leaves when the slowest side has passed it; what the others have for it waits as
        // long.
        let others = behind
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != number)
            .fold(0.0, |most: f64, (_, lag)| most.max(*lag));
        let seconds = driving.seconds + others + wait.as_secs_f64();
        graph.compare(at, input, seconds, &driving.reason(wait, others), problems);
    }
    let slowest = behind.iter().copied().fold(0.0, f64::max);
    if slowest < NEGLIGIBLE_LAG {
        return;
    }
    match graph.packets_within(at, join.per, slowest) {
        Some(frames) if !driving.longest.is_zero() && graph.is_default(at, join.per) => {
            raise_default(&mut drafts[at].inputs[join.per], frames)
        }
        _ => graph.compare(
            at,
            join.per,
            slowest,
            &Lag::default().reason(Duration::ZERO, slowest),
            problems,
        ),
    }
}

/// Lets a queue hold so many packets, where it holds fewer by default.
fn raise_default(input: &mut InputDraft, frames: u64) {
    let Some(setting) = input.keys.setting("queue") else {
        return;
    };
    let (provenance, Some(mut queue)) = (
        setting.provenance.clone(),
        setting.value.as_object().cloned(),
    ) else {
        return;
    };
    let frames = i64::try_from(frames)
        .unwrap_or(i64::MAX)
        .max(queue.int("frames"));
    queue.insert("frames", Value::Int(frames), Provenance::Default);
    input.keys.insert("queue", Value::Object(queue), provenance);
}

/// How far what a stage gives lies behind what its source gave.
#[derive(Debug, Clone, Copy, Default)]
struct Lag {
    seconds: f64,
    longest: Duration,
    frames: u32,
}

impl Lag {
    fn reason(&self, wait: Duration, others: f64) -> String {
        let mut parts = Vec::new();
        if !self.longest.is_zero() {
            parts.push(format!(
                "segments of {}",
                units::write_duration(self.longest)
            ));
        }
        if self.frames > 0 {
            parts.push(format!("{} frames of look-ahead", self.frames));
        }
        if others >= NEGLIGIBLE_LAG {
            parts.push(format!(
                "inputs that lag by {}",
                units::write_duration(rounded(others))
            ));
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

struct Graph<'a, 'n> {
    drafts: &'a [StageDraft<'n>],
    links: &'a Links,
    joins: &'a [Option<JoinSettings>],
}

impl Graph<'_, '_> {
    /// How far the side `input` of the join at `at` lies behind the spans of its driving side, in
    /// seconds: how long a finished span waits for it.
    fn side_lag(&self, at: usize, per: usize, input: usize) -> Option<f64> {
        let driver = self.driver(self.links.upstream(at, per)?);
        self.watermark_lag(
            self.links.upstream(at, input)?,
            driver,
            self.min_delay(driver)?,
        )
    }

    /// The stage that made the spans which a stage hands on: what lies between changes no times.
    fn driver(&self, stage: usize) -> usize {
        let drives = self.joins[stage].as_ref().map_or(0, |join| join.per);
        let one = self.joins[stage].is_some() || self.drafts[stage].inputs.len() == 1;
        match (self.lookahead(stage), self.links.upstream(stage, drives)) {
            (Some(lookahead), Some(up)) if one && lookahead == Lookahead::default() => {
                self.driver(up)
            }
            _ => stage,
        }
    }

    /// How soon after its end, as the source gave it, a span leaves a stage, at the min_delay: it
    /// may be a short one.
    fn min_delay(&self, stage: usize) -> Option<f64> {
        if self.links.is_source(stage) {
            return Some(0.0);
        }
        let ups: Vec<usize> = match &self.joins[stage] {
            Some(join) => self.links.upstream(stage, join.per).into_iter().collect(),
            None => self.links.inputs_of(stage).collect(),
        };
        let before = ups
            .into_iter()
            .filter_map(|up| self.min_delay(up))
            .reduce(f64::min)?;
        Some(before + self.lookahead_seconds(stage, self.lookahead(stage)?.frames))
    }

    /// How far a stage's watermark lies behind what `driver` gives, which itself lies `min_delay`
    /// behind the source.
    fn watermark_lag(&self, stage: usize, driver: usize, min_delay: f64) -> Option<f64> {
        if stage == driver {
            return Some(0.0);
        }
        if self.links.is_source(stage) {
            return Some(-min_delay);
        }
        let before = self
            .links
            .inputs_of(stage)
            .filter_map(|up| self.watermark_lag(up, driver, min_delay))
            .reduce(f64::max)?;
        let Lookahead { longest, frames } = self.lookahead(stage)?;
        Some(before + longest.as_secs_f64() + self.lookahead_seconds(stage, frames))
    }

    fn lookahead(&self, stage: usize) -> Option<Lookahead> {
        let draft = &self.drafts[stage];
        draft
            .kind
            .filter(|_| draft.sound)
            .map(|kind| (kind.lookahead)(&draft.with))
    }

    /// Seconds of so many frames of look-ahead, by the slowest of a stage's inputs.
    fn lookahead_seconds(&self, stage: usize, frames: u32) -> f64 {
        let rate = (0..self.drafts[stage].inputs.len())
            .filter_map(|input| self.rate(stage, input))
            .fold(f64::INFINITY, f64::min);
        if frames > 0 && rate.is_finite() {
            f64::from(frames) / rate
        } else {
            0.0
        }
    }

    /// Packets that come on an edge in so many seconds, at most.
    fn packets_within(&self, at: usize, input: usize, seconds: f64) -> Option<u64> {
        Some((seconds * self.rate(at, input)?).ceil() as u64 + IN_TRANSIT)
    }

    /// Whether the file leaves open how many packets an edge holds.
    fn is_default(&self, at: usize, input: usize) -> bool {
        let queue = self.drafts[at].inputs[input].keys.opt_object("queue");
        queue
            .and_then(|queue| queue.setting("frames"))
            .is_some_and(|frames| frames.provenance == Provenance::Default)
    }

    fn compare(
        &self,
        at: usize,
        input: usize,
        seconds: f64,
        reason: &str,
        problems: &mut Problems,
    ) {
        let draft = &self.drafts[at];
        let edge = &draft.inputs[input];
        let (Some(queue), Some(frames), Some(weight)) = (
            edge.keys.opt_object("queue"),
            self.packets_within(at, input, seconds),
            self.weight(at, input),
        ) else {
            return;
        };
        if !edge.sound {
            return;
        }
        let bytes = frames * weight;
        let (has_frames, has_bytes) = (queue.int("frames").unsigned_abs(), queue.bytes("bytes"));
        let needs = if has_frames < frames {
            format!("{has_frames} packets, but {reason} need {frames}")
        } else if has_bytes < bytes {
            format!(
                "{}, but {reason} need {}",
                units::write_bytes(has_bytes),
                units::write_bytes(mebibytes(bytes))
            )
        } else {
            return;
        };
        let (frames, bytes) = (
            frames.max(has_frames),
            units::write_bytes(mebibytes(bytes).max(has_bytes)),
        );
        let message = format!(
            "the queue from `{}` to `{}` holds {needs}",
            edge.from, draft.id
        );
        problems.add(edge.at, message).help(format!(
            "give this input `queue: {{ frames: {frames}, bytes: {bytes} }}`, or read a view with \
             fewer fps"
        ));
    }

    fn input_lag(&self, at: usize, input: usize) -> Option<Lag> {
        self.lag(self.links.upstream(at, input)?)
    }

    fn lag(&self, stage: usize) -> Option<Lag> {
        if self.links.is_source(stage) {
            return Some(Lag::default());
        }
        let Lookahead { longest, frames } = self.lookahead(stage)?;
        let mut before = Lag::default();
        for up in self.links.inputs_of(stage) {
            let lag = self.lag(up)?;
            if lag.seconds > before.seconds {
                before = lag;
            }
        }
        let seconds =
            before.seconds + longest.as_secs_f64() + self.lookahead_seconds(stage, frames);
        Some(Lag {
            seconds,
            longest: before.longest + longest,
            frames: before.frames + frames,
        })
    }

    /// Packets a second on an edge, at most: no stage makes more of one frame than one.
    fn rate(&self, at: usize, input: usize) -> Option<f64> {
        let up = self.links.upstream(at, input)?;
        if self.links.is_source(up) {
            let view = view(
                &self.drafts[up],
                self.drafts[at].inputs[input].view.as_deref(),
            );
            if let Some(piece) = view.and_then(|view| view.opt_duration("audio")) {
                return Some(1.0 / piece.as_secs_f64());
            }
            let rate = view.and_then(|view| view.opt_fps("fps")).flatten();
            return Some(rate.map_or(ASSUMED_FPS, |(num, den)| f64::from(num) / f64::from(den)));
        }
        (0..self.drafts[up].inputs.len())
            .filter_map(|input| self.rate(up, input))
            .reduce(f64::max)
    }

    /// Bytes of the heaviest packet on an edge.
    fn weight(&self, at: usize, input: usize) -> Option<u64> {
        let up = self.links.upstream(at, input)?;
        let (gives, takes) = (
            gives(
                &self.drafts[up],
                self.drafts[at].inputs[input].view.as_deref(),
            )?,
            self.drafts[at].kind?,
        );
        gives
            .iter()
            .filter(|payload| takes.accepts.contains(payload))
            .map(|payload| self.payload(*payload, at, input))
            .max()
    }

    fn payload(&self, payload: PayloadKind, at: usize, input: usize) -> u64 {
        match payload {
            PayloadKind::Frame => 256 + self.pixels(at, input),
            PayloadKind::Audio => {
                256 + (self.rate(at, input).map_or(1.0, f64::recip) * f64::from(4 * SAMPLE_RATE))
                    as u64
            }
            PayloadKind::Embedding => 16 << 10,
            PayloadKind::Picture => 256 << 10,
            _ => 1 << 10,
        }
    }

    fn pixels(&self, at: usize, input: usize) -> u64 {
        let Some(up) = self.links.upstream(at, input) else {
            return 0;
        };
        if !self.links.is_source(up) {
            return (0..self.drafts[up].inputs.len())
                .map(|input| self.pixels(up, input))
                .max()
                .unwrap_or_default();
        }
        let size = view(
            &self.drafts[up],
            self.drafts[at].inputs[input].view.as_deref(),
        )
        .and_then(|view| view.opt_size("size"))
        .flatten();
        let (width, height) = size.unwrap_or(ASSUMED_SIZE);
        (u64::from(width) * 3).next_multiple_of(4) * u64::from(height)
    }
}

fn mebibytes(bytes: u64) -> u64 {
    bytes.next_multiple_of(1 << 20)
}

fn rounded(seconds: f64) -> Duration {
    Duration::from_millis((seconds * 1000.0).round() as u64)
}
