//! The keys of `with:` for `caption`, and how they say that texts are written.

use crate::config::Params;
use crate::config::shape::{Default, Field, Type};
use crate::models::networks;
use crate::models::text::{
    BeamSearchConfig, EarlyStopping, GenerationConfig, Penalties, SamplingConfig,
};

/// What a language model is asked where the file says nothing.
pub(super) const PROMPT: &str =
    "CaptionStage one short caption for a video shot that shows {tags}.";

pub(super) const PARAMS: &[Field] = &[
    Field {
        name: "model",
        ty: Type::Model(networks::CAPTIONERS),
        default: Default::Required,
        doc: "The language model, or the captioner of pictures or videos. A language model that \
              can think before it answers (Qwen3) is asked not to.",
    },
    Field {
        name: "prompt",
        ty: Type::Text,
        default: Default::Absent,
        doc: "What a language model is asked, `CaptionStage one short caption for a video shot that \
              shows {tags}.` when left out; what the captions of a captioner begin with, nothing \
              when left out. `{tags}`, `{said}` (the collected transcripts), `{caption}` (the \
              collected captions), `{start}`, `{duration}` (seconds), `{language}` (in English \
              words), `{platform}`, `{stream}` and `{labels.NAME}` are filled in.",
    },
    Field {
        name: "system",
        ty: Type::Text,
        default: Default::Absent,
        doc: "The system message of a language model; the model's own default when left out.",
    },
    Field {
        name: "tags",
        ty: Type::Int(0, 100),
        default: Default::Is("5"),
        doc: "Tags that the prompt and the record carry, best first.",
    },
    Field {
        name: "min_score",
        ty: Type::Float(0.0, 1.0),
        default: Default::Is("0.02"),
        doc: "Tags below this mean probability are left out.",
    },
    Field {
        name: "language",
        ty: Type::Text,
        default: Default::Is("en"),
        doc: "BCP 47 tag of the language asked for; part of the record. Only what the prompt says \
              of it reaches the model.",
    },
    Field {
        name: "platform",
        ty: Type::Text,
        default: Default::Is("\"\""),
        doc: "What the caption is for, such as a platform's name; part of the record. Only what \
              the prompt says of it reaches the model.",
    },
    Field {
        name: "max_tokens",
        ty: Type::Int(1, 4096),
        default: Default::Is("40"),
        doc: "Most tokens of a caption.",
    },
    Field {
        name: "min_tokens",
        ty: Type::Int(0, 4096),
        default: Default::Is("0"),
        doc: "A caption does not end before so many tokens.",
    },
    Field {
        name: "temperature",
        ty: Type::Float(0.0, 10.0),
        default: Default::Is("0"),
        doc: "0 takes the most probable token each time; higher varies more.",
    },
    Field {
        name: "top_p",
        ty: Type::Float(0.0, 1.0),
        default: Default::Is("1.0"),
        doc: "Tokens are drawn from the most probable ones that together reach this.",
    },
    Field {
        name: "top_k",
        ty: Type::Int(0, 100_000),
        default: Default::Is("0"),
        doc: "Tokens are drawn from this many most probable ones; 0 for all.",
    },
    Field {
        name: "repetition_penalty",
        ty: Type::Float(0.1, 10.0),
        default: Default::Is("1.0"),
        doc: "Above 1, tokens already there become less probable.",
    },
    Field {
        name: "no_repeat_ngram",
        ty: Type::Int(0, 100),
        default: Default::Is("0"),
        doc: "No sequence of so many tokens comes twice, the prompt's included; 0 for any.",
    },
    Field {
        name: "seed",
        ty: Type::Int(0, i64::MAX),
        default: Default::Is("0"),
        doc: "Seed of the drawing; equal seeds and prompts give equal captions.",
    },
    Field {
        name: "beams",
        ty: Type::Int(1, 64),
        default: Default::Is("1"),
        doc: "Texts that are searched side by side for the most probable one; 1 for no search. \
              Needs a `temperature` of 0.",
    },
    Field {
        name: "length_penalty",
        ty: Type::Float(-10.0, 10.0),
        default: Default::Is("1.0"),
        doc: "With `beams`: a text's log-probability is divided by its length to this power, so \
              that above 0 longer ones win, below 0 shorter ones.",
    },
    Field {
        name: "early_stopping",
        ty: Type::Choice(&["false", "true", "never"]),
        default: Default::Is("false"),
        doc: "With `beams`, when a search with enough ended texts stops: `false` when the best \
              open one would not be better if it ended now, `true` at once, `never` when no open \
              one can become better.",
    },
    Field {
        name: "variants",
        ty: Type::Int(1, 64),
        default: Default::Is("1"),
        doc: "Captions for each segment or frame, each a record of its own: as many draws (with a \
              `temperature`), or the best of `beams`.",
    },
    Field {
        name: "stop",
        ty: Type::List(&Type::Text),
        default: Default::Absent,
        doc: "Texts that end a caption and are left out of it.",
    },
    Field {
        name: "cache",
        ty: Type::Bool,
        default: Default::Is("true"),
        doc: "Whether captions are looked up and kept by what they are about.",
    },
];

/// How the parameters say that texts are written.
pub(super) fn writing(params: &Params) -> GenerationConfig {
    let whole = |name: &str| u32::try_from(params.int(name)).unwrap_or(u32::MAX);
    let number = |name: &str| params.float(name) as f32;
    let early = match &**params.text("early_stopping") {
        "true" => EarlyStopping::First,
        "never" => EarlyStopping::Never,
        _ => EarlyStopping::Heuristic,
    };
    GenerationConfig {
        max_tokens: whole("max_tokens"),
        stop: params
            .opt_list("stop")
            .unwrap_or_default()
            .iter()
            .filter_map(|stop| Some(stop.as_text()?.to_string()))
            .collect(),
        variants: whole("variants"),
        sampling: SamplingConfig {
            temperature: number("temperature"),
            top_p: number("top_p"),
            top_k: whole("top_k"),
            seed: params.int("seed").unsigned_abs(),
        },
        penalties: Penalties {
            repetition: number("repetition_penalty"),
            ngram: whole("no_repeat_ngram"),
            min_tokens: whole("min_tokens"),
        },
        search: BeamSearchConfig {
            beams: whole("beams"),
            length_penalty: number("length_penalty"),
            early,
        },
    }
}
