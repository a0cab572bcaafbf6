//! `transcribe`: what is said in a stream, phrase by phrase, with the times of its words. A voice
//! detector in front keeps silence from the model. Answers are cached by content.

mod cache_key;
mod params;
mod windows;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::inference::{Heard, Requester, SpeechModel, VadModel};
use crate::models::whisper::{
    Segment, Task, Transcription, TranscriptionOptions, TranscriptionRequest,
};
use crate::packet::{
    Nanos, Payload, PayloadKind, SAMPLE_RATE, Span, SpeechTask, SpokenWord, Transcript,
};
use crate::stage::{
    Build, Context, Deps, Emitter, Endpoint, Flush, Input, Joins, OpenTransform, PacketDraft,
    StageKind, Transform,
};
use crate::{Error, Result};
use cache_key::key;
use params::{PARAMS, limits, lookahead, options};
use windows::{Gathered, Limits, Question, Window};

/// The kind.
pub const KIND: StageKind = StageKind {
    name: "transcribe",
    doc: "Writes down what is said, a record for each phrase, with the times of its words. Wants \
          a view of sound (`audio: 1s`). With a `vad` only speech reaches the model, in windows \
          that are cut at silences. With a `concurrency` above the pieces of one window, several \
          windows of a stream are written down at a time.",
    accepts: &[PayloadKind::Audio],
    emits: &[PayloadKind::Transcript],
    params: PARAMS,
    joins: Joins::AsWritten,
    endpoint: Endpoint::Other,
    lookahead,
    build: Build::Windowed(build),
};

fn build(context: &Context<'_>) -> Result<OpenTransform> {
    let params = context.params;
    let model = context.deps.models.speech(params.text("model"))?;
    let vad = params
        .opt_text("vad")
        .map(|name| context.deps.models.vad(name))
        .transpose()?;
    let (options, limits) = (
        options(params, vad.is_some()),
        limits(params, vad.is_some()),
    );
    model.capabilities().check(&options)?;
    let (least, most) = (SAMPLE_RATE as u64, model.capabilities().longest() as u64);
    if !(least..=most).contains(&limits.longest) {
        let message = format!(
            "`max_length` must be between 1s and {}s, which is what the model hears at once",
            most / least
        );
        return Err(Error::config(message));
    }
    let (cache, deps) = (params.bool("cache"), Arc::clone(context.deps));
    let settings = Arc::new(Settings {
        model,
        vad,
        options,
        limits,
        cache,
        deps,
    });
    Ok(Box::new(move |stream| {
        Arc::new(Transcribe {
            requester: Requester {
                stream: Arc::clone(&stream.id),
                live: stream.live,
                deadline: None,
            },
            gathered: Mutex::new(Gathered::new(settings.limits)),
            turn: tokio::sync::Mutex::default(),
            said: Mutex::default(),
            settings: Arc::clone(&settings),
        })
    }))
}

struct Settings {
    model: SpeechModel,
    vad: Option<VadModel>,
    options: TranscriptionOptions,
    limits: Limits,
    cache: bool,
    deps: Arc<Deps>,
}

struct Transcribe {
    settings: Arc<Settings>,
    requester: Requester,
    gathered: Mutex<Gathered>,
    /// Whoever has it asks the detector. Calls come to it in the order in which they begin.
    turn: tokio::sync::Mutex<()>,
    /// What was written last, where that is read on.
    said: Mutex<String>,
}

#[async_trait]
impl Transform for Transcribe {
    async fn process(&self, input: Input<'_>, out: &mut Emitter) -> Result<()> {
        let (id, span, held) = (input.id(), input.head.span, input.hold());
        let Payload::Audio(audio) = input.payload else {
            return Err(Error::bug("transcribe takes sound"));
        };
        self.gathered.lock().take(audio, span, id, held);
        self.go_on(out).await
    }

    async fn flush(&self, _why: Flush, out: &mut Emitter) -> Result<()> {
        self.gathered.lock().end();
        let result = self.go_on(out).await;
        self.said.lock().clear();
        result
    }

    fn watermark(&self, incoming: Nanos) -> Nanos {
        self.gathered.lock().earliest(incoming)
    }
}

impl Transcribe {
    /// Hears what has come and writes down the windows that are complete.
    async fn go_on(&self, out: &mut Emitter) -> Result<()> {
        let turn = self.turn.lock().await;
        let (windows, mut result) = self.listen().await;
        // Where a window is read on from the one before, the next call waits for this one's text.
        let turn = self.settings.options.remember.then_some(turn);
        for window in windows {
            result = result.and(self.write(&window, out).await);
        }
        drop(turn);
        result
    }

    /// The windows that are complete. Where the detector gives no answer, what it was asked about
    /// counts as silence.
    async fn listen(&self) -> (Vec<Window>, Result<()>) {
        let (mut windows, mut result) = (self.gathered.lock().ready(), Ok(()));
        let Some(vad) = &self.settings.vad else {
            return (windows, result);
        };
        loop {
            let question = self.gathered.lock().question();
            let Some(question) = question else {
                return (windows, result);
            };
            let Question {
                samples, memory, ..
            } = &question;
            let asked = vad
                .ask(
                    Heard {
                        samples: samples.clone(),
                        memory: memory.clone(),
                    },
                    self.requester.clone(),
                )
                .await;
            let answer = match asked {
                Ok(answer) => Some(answer),
                Err(error) => {
                    result = result.and(Err(error));
                    None
                }
            };
            windows.extend(self.gathered.lock().answer(&question, answer));
        }
    }

    async fn write(&self, window: &Window, out: &mut Emitter) -> Result<()> {
        out.risk(window.held());
        let transcription = self.answer(window).await?;
        let mut last = None;
        let mut ordinal = 0;
        for segment in &transcription.segments {
            let span = Span::new(
                window.time(segment.start),
                window.time(segment.end.max(segment.start)),
            );
            ordinal = if last == Some(span) { ordinal + 1 } else { 0 };
            last = Some(span);
            let transcript =
                transcript(segment, &transcription, window, self.settings.options.task);
            let (parents, held) = window.behind(span);
            let draft = PacketDraft::new(Payload::Transcript(Arc::new(transcript)), span)
                .by(self.settings.model.tag());
            out.emit(draft.from_records(parents).holding(held).ordinal(ordinal));
        }
        if self.settings.options.remember {
            *self.said.lock() = transcription
                .segments
                .iter()
                .map(|segment| segment.text.as_str())
                .collect::<Vec<_>>()
                .join(" ");
        }
        Ok(())
    }

    async fn answer(&self, window: &Window) -> Result<Transcription> {
        let Settings {
            model,
            options,
            cache,
            deps,
            ..
        } = &*self.settings;
        let mut options = options.clone();
        let said = self.said.lock().clone();
        options.prompt = [options.prompt.as_str(), said.as_str()]
            .join(" ")
            .trim()
            .to_owned();
        let request = TranscriptionRequest {
            samples: Arc::clone(&window.samples),
            options,
        };
        if !cache {
            return model.ask(request, self.requester.clone()).await;
        }
        let key = key(model.tag(), model.device(), &request);
        let compute = || async { pack(&model.ask(request, self.requester.clone()).await?) };
        let (value, _) = deps
            .cache
            .get_or_compute(&key, deps.cache_ttl, compute)
            .await?;
        unpack(&value)
            .ok_or_else(|| Error::bug("the cache gave a transcription that does not parse"))
    }
}

fn transcript(segment: &Segment, of: &Transcription, window: &Window, task: Task) -> Transcript {
    let word = |word: &crate::models::whisper::Word| SpokenWord {
        text: word.text.clone(),
        span: Span::new(
            window.time(word.start),
            window.time(word.end.max(word.start)),
        ),
        probability: word.probability,
    };
    Transcript {
        text: segment.text.clone(),
        language: of.language.clone(),
        language_probability: of.language_probability,
        task: if task == Task::Translate {
            SpeechTask::Translate
        } else {
            SpeechTask::Transcribe
        },
        words: segment.words.iter().map(word).collect(),
        average_log_probability: segment.log_probability,
        no_speech_probability: segment.no_speech,
    }
}

/// A transcription as the cache keeps it: JSON.
fn pack(transcription: &Transcription) -> Result<Bytes> {
    let packed = serde_json::to_vec(transcription);
    Ok(packed
        .map_err(|error| Error::bug("a transcription cannot be written as JSON").because(error))?
        .into())
}

fn unpack(value: &[u8]) -> Option<Transcription> {
    serde_json::from_slice(value).ok()
}
