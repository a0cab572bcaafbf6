//! `transcribe`: what is said in a stream, phrase by phrase, with the times of its words. A voice
//! detector in front keeps silence from the model. Answers are cached by content.

mod windows;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::cache::Key;
use crate::config::Params;
use crate::config::shape::{Default, Field, Type, Value};
use crate::inference::{Heard, Requester, SpeechModel, VadModel};
use crate::models::silero_vad::SpansSettings;
use crate::models::whisper::{Options, Request, Segment, Task, Transcription};
use crate::packet::{
    Nanos, Payload, PayloadKind, SAMPLE_RATE, Span, SpeechTask, SpokenWord, Transcript,
};
use crate::stage::{
    Build, Context, Deps, Emitter, Flush, Input, Joins, Lookahead, OpenTransform, PacketDraft,
    StageKind, Transform,
};
use crate::{Error, Result};
use windows::{Gathered, Limits, Question, Window};

/// Seconds at the end of a window that a detector cut which are not worth a pass of their own: no
/// phrase begins there.
const LEAST: f32 = 1.0;

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
    lookahead,
    build: Build::Windowed(build),
};

const PARAMS: &[Field] = &[
    Field {
        name: "model",
        ty: Type::Model(&["WhisperForConditionalGeneration"]),
        default: Default::Required,
        doc: "The model that writes down what is said.",
    },
    Field {
        name: "vad",
        ty: Type::Model(&["SileroVad"]),
        default: Default::Absent,
        doc: "The model that hears where somebody speaks. Without one all sound is written down, \
              in windows of `max_length`.",
    },
    Field {
        name: "task",
        ty: Type::Choice(&["transcribe", "translate"]),
        default: Default::Is("transcribe"),
        doc: "`transcribe` writes in the language that is spoken, `translate` in English.",
    },
    Field {
        name: "language",
        ty: Type::Text,
        default: Default::Is("auto"),
        doc: "The language that is spoken, as the model's code (`en`, `de`); `auto` finds it in \
              each window.",
    },
    Field {
        name: "words",
        ty: Type::Bool,
        default: Default::Is("true"),
        doc: "Whether records carry the words with their times.",
    },
    Field {
        name: "max_length",
        ty: Type::Duration,
        default: Default::Is("30s"),
        doc: "The longest window, at most what the model hears at once (30s). Shorter ones are \
              said sooner, and cost as much each.",
    },
    Field {
        name: "pause",
        ty: Type::Duration,
        default: Default::Is("2s"),
        doc: "With a `vad`: silence that is longer ends a window.",
    },
    Field {
        name: "max_gap",
        ty: Type::Duration,
        default: Default::Is("100ms"),
        doc: "Sound that is missing for longer than this ends a window.",
    },
    Field {
        name: "threshold",
        ty: Type::Float(0.05, 0.95),
        default: Default::Is("0.5"),
        doc: "With a `vad`: a probability that begins speech; 0.15 below it speech ends.",
    },
    Field {
        name: "min_speech",
        ty: Type::Duration,
        default: Default::Is("250ms"),
        doc: "With a `vad`: what is shorter is no speech.",
    },
    Field {
        name: "min_silence",
        ty: Type::Duration,
        default: Default::Is("100ms"),
        doc: "With a `vad`: silence that is shorter belongs to the speech around it.",
    },
    Field {
        name: "speech_pad",
        ty: Type::Duration,
        default: Default::Is("200ms"),
        doc: "With a `vad`: sound kept before and after speech.",
    },
    Field {
        name: "temperatures",
        ty: Type::List(&Type::Float(0.0, 10.0)),
        default: Default::Is("[0, 0.2, 0.4, 0.6, 0.8, 1]"),
        doc: "A text that fails a threshold is written anew at the next temperature; 0 takes the \
              likeliest token each time.",
    },
    Field {
        name: "compression_ratio_threshold",
        ty: Type::Float(0.0, 1000.0),
        default: Default::Is("1.35"),
        doc: "A text whose tokens compress by more repeats itself, and fails.",
    },
    Field {
        name: "logprob_threshold",
        ty: Type::Float(-1000.0, 0.0),
        default: Default::Is("-1.0"),
        doc: "A text whose tokens' mean log probability lies below fails.",
    },
    Field {
        name: "no_speech_threshold",
        ty: Type::Float(0.0, 1.0),
        default: Default::Is("0.6"),
        doc: "A text that fails by its log probability is left out where nobody speaks with a \
              probability above this.",
    },
    Field {
        name: "prompt",
        ty: Type::Text,
        default: Default::Is("\"\""),
        doc: "What the model reads as said before: names and terms that will come, in the \
              spelling they are to have.",
    },
    Field {
        name: "condition_on_previous_text",
        ty: Type::Bool,
        default: Default::Is("false"),
        doc: "Whether the model reads what it wrote before: steadier names, but mistakes go on. A \
              stream's windows then wait for each other.",
    },
    Field {
        name: "seed",
        ty: Type::Int(0, i64::MAX),
        default: Default::Is("0"),
        doc: "What draws begin with at temperatures above 0.",
    },
    Field {
        name: "cache",
        ty: Type::Bool,
        default: Default::Is("true"),
        doc: "Whether answers are looked up and kept by content.",
    },
];

fn lookahead(params: &Params) -> Lookahead {
    Lookahead {
        longest: params.duration("max_length") + params.duration("pause"),
        frames: 1,
    }
}

fn samples(length: Duration) -> u64 {
    (length.as_nanos() * u128::from(SAMPLE_RATE) / 1_000_000_000) as u64
}

fn options(params: &Params, cut_at_silence: bool) -> Options {
    let language = params.text("language");
    let number = |value: &Value| {
        if let Value::Float(number) = value {
            Some(*number as f32)
        } else {
            None
        }
    };
    Options {
        task: if &**params.text("task") == "translate" {
            Task::Translate
        } else {
            Task::Transcribe
        },
        language: (&**language != "auto").then(|| language.to_string()),
        words: params.bool("words"),
        temperatures: params
            .list("temperatures")
            .iter()
            .filter_map(number)
            .collect(),
        compression_ratio: Some(params.float("compression_ratio_threshold") as f32),
        log_probability: Some(params.float("logprob_threshold") as f32),
        no_speech: Some(params.float("no_speech_threshold") as f32),
        remember: params.bool("condition_on_previous_text"),
        prompt: params.text("prompt").to_string(),
        least: if cut_at_silence { LEAST } else { 0. },
        seed: params.int("seed").unsigned_abs(),
    }
}

fn limits(params: &Params, detects: bool) -> Limits {
    let longest = samples(params.duration("max_length"));
    let speech = SpansSettings {
        threshold: params.float("threshold") as f32,
        min_speech: samples(params.duration("min_speech")),
        min_silence: samples(params.duration("min_silence")),
        pad: samples(params.duration("speech_pad")),
        longest: Some(longest),
    };
    Limits {
        longest,
        pause: samples(params.duration("pause")),
        gap: u64::try_from(params.duration("max_gap").as_nanos()).unwrap_or(u64::MAX),
        speech: detects.then_some(speech),
    }
}

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
    options: Options,
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
        let request = Request {
            samples: Arc::clone(&window.samples),
            options,
        };
        if !cache {
            return model.ask(request, self.requester.clone()).await;
        }
        let key = self.key(&request);
        let compute = || async { pack(&model.ask(request, self.requester.clone()).await?) };
        let (value, _) = deps
            .cache
            .get_or_compute(&key, deps.cache_ttl, compute)
            .await?;
        unpack(&value)
            .ok_or_else(|| Error::bug("the cache gave a transcription that does not parse"))
    }

    /// Content, weights, precision, device and options: what the answer depends on.
    fn key(&self, request: &Request) -> Key {
        let (tag, options) = (self.settings.model.tag(), format!("{:?}", request.options));
        let samples: Vec<u8> = request
            .samples
            .iter()
            .flat_map(|sample| sample.to_le_bytes())
            .collect();
        let key = Key::builder("transcribe")
            .part(&tag.revision)
            .part(&tag.precision)
            .part(self.settings.model.device());
        key.part(options).part(samples).finish()
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
