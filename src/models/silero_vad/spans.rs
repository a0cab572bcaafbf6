//! Probabilities of speech to spans of it, chunk by chunk as they come: what silero's
//! `get_speech_timestamps` finds in a whole file.

use std::ops::Range;

use super::CHUNK;

/// Silence inside speech that is long enough to be cut at, in samples: 98 ms.
const BREATH: u64 = 1568;

/// When speech begins and ends. Lengths are in samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpansSettings {
    /// A chunk of this probability begins speech; 0.15 below it, silence.
    pub threshold: f32,
    /// What is shorter is no speech.
    pub min_speech: u64,
    /// Silence that is shorter belongs to the speech.
    pub min_silence: u64,
    /// Samples added before and after speech.
    pub pad: u64,
    /// Speech that is longer is cut at the longest silence in it; none to let it be.
    pub longest: Option<u64>,
}

impl Default for SpansSettings {
    /// Silero's: 0.5, 250 ms, 100 ms, 30 ms, no limit.
    fn default() -> Self {
        Self {
            threshold: 0.5,
            min_speech: 4000,
            min_silence: 1600,
            pad: 480,
            longest: None,
        }
    }
}

/// Finds spans of speech in a stream.
#[derive(Debug)]
pub struct Spans {
    settings: SpansSettings,
    /// Samples heard.
    heard: u64,
    /// Where the open speech began.
    open: Option<u64>,
    /// Where the silence began that may end it.
    silent: Option<u64>,
    /// Silences inside it: where they began, how long they were.
    breaths: Vec<(u64, u64)>,
    /// A span whose end is not padded yet, as the next may begin close to it.
    held: Option<Range<u64>>,
}

impl Spans {
    /// From the beginning of a stream.
    pub fn new(settings: SpansSettings) -> Self {
        Self {
            settings,
            heard: 0,
            open: None,
            silent: None,
            breaths: Vec::new(),
            held: None,
        }
    }

    /// Samples heard.
    pub fn heard(&self) -> u64 {
        self.heard
    }

    /// Whether all speech that has ended has come out.
    pub fn is_settled(&self) -> bool {
        self.held.is_none()
    }

    /// The first sample that a span may still have that has not come out yet.
    pub fn earliest(&self) -> u64 {
        let begun = self
            .held
            .as_ref()
            .map(|held| held.start)
            .or(self.open)
            .unwrap_or(self.heard);
        begun.saturating_sub(self.settings.pad)
    }

    /// Takes the next chunk's probability; gives the spans that are complete.
    pub fn push(&mut self, probability: f32) -> Vec<Range<u64>> {
        let (here, mut done) = (self.heard, Vec::new());
        self.heard += CHUNK as u64;
        self.step(here, probability, &mut done);
        let next = self.open.unwrap_or(self.heard);
        if let Some(held) = self
            .held
            .take_if(|held| next.saturating_sub(held.end) >= 2 * self.settings.pad)
        {
            done.push(held.start..held.end + self.settings.pad);
        }
        done
    }

    fn step(&mut self, here: u64, probability: f32, done: &mut Vec<Range<u64>>) {
        let SpansSettings {
            threshold,
            min_speech,
            min_silence,
            pad,
            longest,
        } = self.settings;
        let speaks = probability >= threshold;
        if speaks && let Some(silent) = self.silent.take() {
            let length = here - silent;
            if length > BREATH {
                self.breaths.push((silent, length));
            }
        }
        let Some(start) = self.open else {
            self.open = speaks.then_some(here);
            return;
        };
        let mut start = start;
        let most = longest.map(|longest| longest.saturating_sub(CHUNK as u64 + 2 * pad));
        if most.is_some_and(|most| here - start > most) {
            // The first of the longest.
            let longest = self
                .breaths
                .drain(..)
                .reduce(|best, breath| if breath.1 > best.1 { breath } else { best });
            self.silent = None;
            let Some((end, length)) = longest else {
                self.open = None;
                return self.close(start..here, done);
            };
            self.close(start..end, done);
            start = end + length;
            self.open = Some(start);
        }
        if probability < (threshold - 0.15).max(0.01) {
            let silent = *self.silent.get_or_insert(here);
            if here - silent >= min_silence {
                (self.open, self.silent) = (None, None);
                self.breaths.clear();
                if silent.saturating_sub(start) > min_speech {
                    self.close(start..silent, done);
                }
            }
        }
    }

    /// Nothing follows; the stream had so many samples, at most a chunk less than were heard.
    pub fn finish(&mut self, samples: u64) -> Vec<Range<u64>> {
        let mut done = Vec::new();
        if let Some(start) = self.open.take()
            && samples.saturating_sub(start) > self.settings.min_speech
        {
            self.close(start..samples, &mut done);
        }
        done.extend(
            self.held
                .take()
                .map(|held| held.start..(held.end + self.settings.pad).min(samples)),
        );
        *self = Self::new(self.settings);
        done
    }

    /// Speech is complete but for the padding of its end.
    fn close(&mut self, mut span: Range<u64>, done: &mut Vec<Range<u64>>) {
        let pad = self.settings.pad;
        match self.held.take() {
            Some(held) if span.start - held.end < 2 * pad => {
                let half = (span.start - held.end) / 2;
                done.push(held.start..held.end + half);
                span.start -= half;
            }
            Some(held) => {
                done.push(held.start..held.end + pad);
                span.start -= pad;
            }
            None => span.start = span.start.saturating_sub(pad),
        }
        self.held = Some(span);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::golden::{goldens, path};

    /// The spans of probabilities, as they come and at the end; each must come out no earlier than
    /// `earliest` said.
    fn spans(probabilities: &[f32], samples: u64, settings: SpansSettings) -> Vec<[u64; 2]> {
        let mut spans = Spans::new(settings);
        let mut found: Vec<Range<u64>> = Vec::new();
        for &probability in probabilities {
            let earliest = spans.earliest();
            let done = spans.push(probability);
            assert!(
                done.iter().all(|span| span.start >= earliest),
                "{done:?} before {earliest}"
            );
            found.extend(done);
        }
        found.extend(spans.finish(samples));
        found
            .into_iter()
            .map(|span| [span.start, span.end])
            .collect()
    }

    #[test]
    fn spans_are_those_of_the_package() {
        let probabilities: Vec<f32> =
            Vec::try_from(&goldens("silero.safetensors")["probabilities"]).unwrap();
        let text = std::fs::read_to_string(path("tests/golden/silero.json")).unwrap();
        let runs: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        for run in &runs {
            let number = |key: &str| {
                run["settings"][key]
                    .as_f64()
                    .map(|milliseconds| (milliseconds * 16.) as u64)
            };
            let settings = SpansSettings {
                threshold: run["settings"]["threshold"].as_f64().unwrap() as f32,
                min_speech: number("min_speech_duration_ms").unwrap(),
                min_silence: number("min_silence_duration_ms").unwrap(),
                pad: number("speech_pad_ms").unwrap(),
                longest: run["settings"]["max_speech_duration_s"]
                    .as_f64()
                    .map(|seconds| (seconds * 16_000.) as u64),
            };
            let expected: Vec<[u64; 2]> = serde_json::from_value(run["spans"].clone()).unwrap();
            assert_eq!(
                spans(&probabilities, run["samples"].as_u64().unwrap(), settings),
                expected,
                "{settings:?}"
            );
            assert!(expected.len() > 1);
        }
        assert!(runs.len() > 3);
    }

    #[test]
    fn silence_has_no_spans() {
        assert!(spans(&[0.1; 200], 200 * 512, SpansSettings::default()).is_empty());
        assert!(
            spans(
                &[0.1, 0.9, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1],
                9 * 512,
                SpansSettings::default()
            )
            .is_empty(),
            "a click is no speech"
        );
    }

    #[test]
    fn a_stream_begins_anew_after_its_end() {
        let mut spans = Spans::new(SpansSettings::default());
        for _ in 0..2 {
            (0..20).for_each(|_| assert!(spans.push(0.9).is_empty()));
            assert_eq!(
                spans.finish(20 * 512 - 100).first(),
                Some(&(0..20 * 512 - 100))
            );
        }
    }
}
