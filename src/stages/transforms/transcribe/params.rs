//! The keys of `with:` for `transcribe`, and what they say of the model's options and of windows.

use std::time::Duration;

use super::windows::Limits;
use crate::config::Params;
use crate::config::shape::{Default, Field, Type, Value};
use crate::models::networks;
use crate::models::silero_vad::SpansSettings;
use crate::models::whisper::{Task, TranscriptionOptions};
use crate::packet::SAMPLE_RATE;
use crate::stage::Lookahead;

/// Seconds at the end of a window that a detector cut which are not worth a pass of their own: no
/// phrase begins there.
const LEAST: f32 = 1.0;

pub(super) const PARAMS: &[Field] = &[
    Field {
        name: "model",
        ty: Type::Model(networks::TRANSCRIBERS),
        default: Default::Required,
        doc: "The model that writes down what is said.",
    },
    Field {
        name: "vad",
        ty: Type::Model(networks::SPEECH_DETECTORS),
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
        doc: "A text that fails a threshold is written again at the next temperature; 0 takes the \
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

pub(super) fn lookahead(params: &Params) -> Lookahead {
    Lookahead {
        longest: params.duration("max_length") + params.duration("pause"),
        frames: 1,
    }
}

fn samples(length: Duration) -> u64 {
    (length.as_nanos() * u128::from(SAMPLE_RATE) / 1_000_000_000) as u64
}

pub(super) fn options(params: &Params, cut_at_silence: bool) -> TranscriptionOptions {
    let language = params.text("language");
    let number = |value: &Value| {
        if let Value::Float(number) = value {
            Some(*number as f32)
        } else {
            None
        }
    };
    TranscriptionOptions {
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

pub(super) fn limits(params: &Params, detects: bool) -> Limits {
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
