//! The networks of sound as workers' models.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::inference::Model;
use crate::models::silero_vad::{CHUNK, SileroVad, VadState};
use crate::models::whisper::{
    SAMPLE_RATE, Transcription, TranscriptionOptions, TranscriptionRequest, Whisper,
};

/// Chunks of the sound that batches are measured with: about a second.
const SECOND: usize = SAMPLE_RATE / CHUNK;

/// Whisper: a window of sound in, what is said in it out.
pub(in crate::inference) struct Transcriber(pub Whisper);

impl Transcriber {
    /// A window of silence, in the first language that the model knows.
    fn silence(&self, samples: usize) -> TranscriptionRequest {
        let language = self
            .0
            .capabilities()
            .languages()
            .first()
            .map(|&code| code.to_owned());
        let options = TranscriptionOptions {
            language,
            words: false,
            temperatures: vec![0.],
            compression_ratio: None,
            ..TranscriptionOptions::default()
        };
        TranscriptionRequest {
            samples: vec![0.; samples].into(),
            options,
        }
    }
}

impl Model for Transcriber {
    type Item = TranscriptionRequest;
    type Answer = Transcription;

    fn run(
        &mut self,
        items: &[&TranscriptionRequest],
        cancelled: &dyn Fn(usize) -> bool,
    ) -> Result<Vec<Result<Transcription>>> {
        // A window that cannot be heard must not fail its neighbours.
        let checks: Vec<Result<()>> = items.iter().map(|request| self.0.check(request)).collect();
        let good: Vec<usize> = (0..items.len()).filter(|&at| checks[at].is_ok()).collect();
        let requests: Vec<TranscriptionRequest> =
            good.iter().map(|&at| items[at].clone()).collect();
        let mut written = self
            .0
            .transcribe(&requests, &|at| cancelled(good[at]))?
            .into_iter();
        let answer = |check: Result<()>| {
            check.and_then(|()| {
                written
                    .next()
                    .ok_or_else(|| Error::bug("a window is missing from its batch"))
            })
        };
        Ok(checks.into_iter().map(answer).collect())
    }

    fn warm_up(&mut self) -> Result<()> {
        self.0
            .transcribe(&[self.silence(SAMPLE_RATE)], &|_| false)
            .map(drop)
    }

    fn sample(&self) -> Option<TranscriptionRequest> {
        Some(self.silence(self.0.capabilities().longest()))
    }

    fn shape(item: &TranscriptionRequest) -> String {
        format!("windows of {} samples", item.samples.len())
    }
}

/// Sound of a stream that goes on.
#[derive(Debug, Clone)]
pub struct Heard {
    /// Samples from -1 to 1, 16,000 a second, as many as whole chunks have.
    pub samples: Vec<f32>,
    /// What is remembered of the stream's sound before.
    pub memory: VadState,
}

/// Silero VAD: sound that goes on in, the probability of speech in its chunks out.
pub(in crate::inference) struct SpeechDetector(pub SileroVad);

impl Model for SpeechDetector {
    type Item = Heard;
    type Answer = (Vec<f32>, VadState);

    fn run(
        &mut self,
        items: &[&Heard],
        _cancelled: &dyn Fn(usize) -> bool,
    ) -> Result<Vec<Result<(Vec<f32>, VadState)>>> {
        let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (at, item) in items.iter().enumerate() {
            groups.entry(item.samples.len()).or_default().push(at);
        }
        let mut answers: Vec<Result<(Vec<f32>, VadState)>> = items
            .iter()
            .map(|_| Err(Error::bug("a stream is missing from its batch")))
            .collect();
        for places in groups.into_values() {
            let streams: Vec<(&[f32], &VadState)> = places
                .iter()
                .map(|&at| (items[at].samples.as_slice(), &items[at].memory))
                .collect();
            for (at, answer) in places.into_iter().zip(self.0.forward(&streams)?) {
                answers[at] = Ok(answer);
            }
        }
        Ok(answers)
    }

    fn warm_up(&mut self) -> Result<()> {
        self.0
            .forward(&[(&[0.; CHUNK], &VadState::default())])
            .map(drop)
    }

    fn sample(&self) -> Option<Heard> {
        Some(Heard {
            samples: vec![0.; SECOND * CHUNK],
            memory: VadState::default(),
        })
    }

    fn shape(item: &Heard) -> String {
        format!("{} samples", item.samples.len())
    }
}
