//! A stream's sound, piece by piece, to windows of speech: what a voice detector hears is gathered
//! until the next phrase would not fit or too long a silence follows. Without a detector windows
//! follow one another. Pieces that are in no window are let go of at once.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::models::silero_vad::{CHUNK, Spans, SpansSettings, VadState};
use crate::packet::{Audio, Nanos, RecordId, SAMPLE_RATE, Span};
use crate::stage::Held;

/// Nanoseconds a sample.
const SAMPLE: Nanos = 1_000_000_000 / SAMPLE_RATE as Nanos;

/// How windows are made. Lengths are in samples.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The longest window.
    pub longest: u64,
    /// Silence that is longer ends a window.
    pub pause: u64,
    /// Sound that is missing for longer ends a window.
    pub gap: Nanos,
    /// When speech begins and ends, where there is a detector.
    pub speech: Option<SpansSettings>,
}

/// The sound of one stream.
#[derive(Debug)]
pub struct Gathered {
    limits: Limits,
    /// Pieces that have not been let go of, in their order.
    pieces: VecDeque<Piece>,
    /// Places where sound is missing, counted in samples, which are not reached yet.
    gaps: VecDeque<u64>,
    /// Samples taken in.
    taken: u64,
    /// Samples that the detector has processed, or that are in a window where there is none.
    heard: u64,
    /// Where the unbroken sound began that the detector hears.
    begin: u64,
    spans: Option<Spans>,
    memory: VadState,
    /// The window that is being filled.
    open: Option<Range<u64>>,
}

#[derive(Debug)]
struct Piece {
    audio: Arc<Audio>,
    /// Its place, counted in samples.
    place: Range<u64>,
    start: Nanos,
    end: Nanos,
    id: RecordId,
    held: Held,
}

/// A stretch of sound that is written down.
#[derive(Debug)]
pub struct Window {
    /// Its samples.
    pub samples: Arc<[f32]>,
    /// The pieces it is of.
    parts: Vec<Part>,
}

/// What a window has of a piece.
#[derive(Debug)]
struct Part {
    /// Where it lies in the window, in samples.
    place: Range<u64>,
    /// When that begins.
    start: Nanos,
    id: RecordId,
    held: Held,
}

/// What the detector is asked next.
#[derive(Debug)]
pub struct Question {
    /// Samples, whole chunks of them.
    pub samples: Vec<f32>,
    /// What it remembers.
    pub memory: VadState,
    /// Those of them that are sound, not filled up.
    of_sound: u64,
}

impl Gathered {
    /// Of nothing yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            pieces: VecDeque::new(),
            gaps: VecDeque::new(),
            taken: 0,
            heard: 0,
            begin: 0,
            spans: limits.speech.map(Spans::new),
            memory: VadState::default(),
            open: None,
        }
    }

    /// Takes in the next piece.
    pub fn take(&mut self, audio: Arc<Audio>, span: Span, id: RecordId, held: Held) {
        if self
            .pieces
            .back()
            .is_some_and(|last| span.start.saturating_sub(last.end) > self.limits.gap)
        {
            self.end();
        }
        let place = self.taken..self.taken + audio.len() as u64;
        self.taken = place.end;
        self.pieces.push_back(Piece {
            audio,
            place,
            start: span.start,
            end: span.end,
            id,
            held,
        });
    }

    /// Sound is missing here, or nothing follows.
    pub fn end(&mut self) {
        if self.gaps.back() != Some(&self.taken) && self.taken > self.begin {
            self.gaps.push_back(self.taken);
        }
    }

    /// What the detector has to process next; none while there is not a whole chunk of it, or no
    /// detector.
    pub fn question(&self) -> Option<Question> {
        self.spans.as_ref()?;
        let end = self.gaps.front().copied().unwrap_or(self.taken);
        let ends = !self.gaps.is_empty();
        let mut samples = self.samples(self.heard..end);
        let of_sound = if ends {
            samples.len()
        } else {
            samples.len() / CHUNK * CHUNK
        };
        if of_sound == 0 {
            return None;
        }
        samples.resize(of_sound.next_multiple_of(CHUNK), 0.);
        Some(Question {
            samples,
            memory: self.memory.clone(),
            of_sound: of_sound as u64,
        })
    }

    /// Takes in the detector's answer, the probability of speech in each chunk; nothing where it
    /// gave none, which counts as silence. Gives the windows that are complete.
    pub fn answer(
        &mut self,
        question: &Question,
        answer: Option<(Vec<f32>, VadState)>,
    ) -> Vec<Window> {
        let chunks = question.samples.len() / CHUNK;
        let (probabilities, memory) =
            answer.unwrap_or_else(|| (vec![0.; chunks], VadState::default()));
        self.memory = memory;
        self.heard += question.of_sound;
        let mut done = Vec::new();
        for probability in probabilities {
            let spans = self
                .spans
                .as_mut()
                .map(|spans| spans.push(probability))
                .unwrap_or_default();
            spans
                .into_iter()
                .for_each(|span| self.speech(span, &mut done));
            self.pause(&mut done);
        }
        done.extend(self.reach());
        self.let_go();
        done
    }

    /// The windows that are complete without a detector's answer.
    pub fn ready(&mut self) -> Vec<Window> {
        let mut done = Vec::new();
        while self.spans.is_none() {
            let end = self.gaps.front().copied().unwrap_or(self.taken);
            let next = self.heard + self.limits.longest;
            if next <= end {
                done.extend(self.cut(self.heard..next));
                self.heard = next;
            } else if self.gaps.is_empty() {
                break;
            } else {
                done.extend(self.cut(self.heard..end));
                self.heard = end;
            }
            done.extend(self.reach());
        }
        done.extend(self.reach());
        self.let_go();
        done
    }

    /// The earliest time of what may still come out, given that what comes in is not earlier than
    /// `incoming`.
    pub fn earliest(&self, incoming: Nanos) -> Nanos {
        let place = self.earliest_place();
        self.pieces
            .iter()
            .find(|piece| piece.place.end > place)
            .map_or(incoming, |piece| piece.time(place).min(incoming))
    }

    fn earliest_place(&self) -> u64 {
        let next = self
            .spans
            .as_ref()
            .map_or(self.heard, |spans| self.begin + spans.earliest());
        self.open.as_ref().map_or(next, |open| open.start.min(next))
    }

    /// Speech, by the detector's count, comes into the open window, or begins the next.
    fn speech(&mut self, span: Range<u64>, done: &mut Vec<Window>) {
        let span = self.begin + span.start..self.begin + span.end;
        let fits = |open: &Range<u64>| {
            span.end - open.start <= self.limits.longest
                && span.start.saturating_sub(open.end) <= self.limits.pause
        };
        match self.open.take() {
            Some(open) if fits(&open) => self.open = Some(open.start..span.end),
            open => {
                done.extend(open.and_then(|open| self.cut(open)));
                self.open = Some(span);
            }
        }
    }

    /// Ends the open window where the speech that may follow would not come into it.
    fn pause(&mut self, done: &mut Vec<Window>) {
        let Some(spans) = &self.spans else { return };
        let (next, heard) = (self.begin + spans.earliest(), self.begin + spans.heard());
        // What has not ended yet ends later than all that has been processed.
        let long = |open: &Range<u64>| {
            spans.is_settled() && heard.saturating_sub(open.start) > self.limits.longest
        };
        let late =
            |open: &mut Range<u64>| next.saturating_sub(open.end) > self.limits.pause || long(open);
        if let Some(open) = self.open.take_if(late) {
            done.extend(self.cut(open));
        }
    }

    /// Where the sound up to a gap has been processed, ends everything that is open there.
    fn reach(&mut self) -> Vec<Window> {
        let mut done = Vec::new();
        if self.gaps.front().is_some_and(|&gap| gap <= self.heard) {
            self.gaps.pop_front();
            let rest = self
                .spans
                .as_mut()
                .map(|spans| spans.finish(self.heard - self.begin))
                .unwrap_or_default();
            rest.into_iter()
                .for_each(|span| self.speech(span, &mut done));
            done.extend(self.open.take().and_then(|open| self.cut(open)));
            self.begin = self.heard;
            self.memory = VadState::default();
        }
        done
    }

    fn let_go(&mut self) {
        let earliest = self.earliest_place();
        while self
            .pieces
            .front()
            .is_some_and(|piece| piece.place.end <= earliest)
        {
            self.pieces.pop_front();
        }
    }

    fn samples(&self, place: Range<u64>) -> Vec<f32> {
        let first = self
            .pieces
            .iter()
            .find(|piece| piece.place.end > place.start)
            .map_or(place.start, |piece| piece.place.start);
        let pieces = self
            .pieces
            .iter()
            .filter(|piece| piece.place.end > place.start && piece.place.start < place.end);
        let skipped = place.start.saturating_sub(first) as usize;
        pieces
            .flat_map(|piece| piece.audio.to_samples())
            .skip(skipped)
            .take((place.end - place.start) as usize)
            .collect()
    }

    fn cut(&self, place: Range<u64>) -> Option<Window> {
        let samples = self.samples(place.clone());
        let within = self
            .pieces
            .iter()
            .filter(|piece| piece.place.end > place.start && piece.place.start < place.end);
        let part = |piece: &Piece| {
            let begin = piece.place.start.max(place.start);
            let end = piece.place.end.min(place.end);
            let place = begin - place.start..end - place.start;
            Part {
                place,
                start: piece.time(begin),
                id: piece.id,
                held: piece.held.split(),
            }
        };
        (!samples.is_empty()).then(|| Window {
            samples: samples.into(),
            parts: within.map(part).collect(),
        })
    }
}

impl Piece {
    /// When the sample at a place is heard, of this piece or after it.
    fn time(&self, place: u64) -> Nanos {
        self.start + place.saturating_sub(self.place.start) * SAMPLE
    }
}

impl Window {
    /// A time in the window, in seconds since its begin, as one of the stream; at most its end.
    pub fn time(&self, seconds: f64) -> Nanos {
        let nanos = (seconds.max(0.) * 1e9).round() as Nanos;
        let nanos = nanos.min(self.samples.len() as Nanos * SAMPLE);
        let part = self
            .parts
            .iter()
            .rev()
            .find(|part| part.place.start * SAMPLE <= nanos)
            .or(self.parts.first());
        part.map_or(0, |part| {
            part.start
                + nanos
                    .saturating_sub(part.place.start * SAMPLE)
                    .min((part.place.end - part.place.start) * SAMPLE)
        })
    }

    /// The holds on all its pieces.
    pub fn held(&self) -> impl Iterator<Item = &Held> {
        self.parts.iter().map(|part| &part.held)
    }

    /// The records of the pieces that have a part in a span of the stream, and holds on them; the
    /// nearest where none has.
    pub fn behind(&self, span: Span) -> (Vec<RecordId>, Vec<Held>) {
        let end = |part: &Part| part.start + (part.place.end - part.place.start) * SAMPLE;
        let mut parts: Vec<&Part> = self
            .parts
            .iter()
            .filter(|part| part.start < span.end && end(part) > span.start)
            .collect();
        if parts.is_empty() {
            parts.extend(
                self.parts
                    .iter()
                    .rev()
                    .find(|part| part.start <= span.start)
                    .or(self.parts.first()),
            );
        }
        parts
            .into_iter()
            .map(|part| (part.id, part.held.split()))
            .unzip()
    }
}

#[cfg(test)]
mod tests;
