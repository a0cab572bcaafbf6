//! `caption`: texts about segments, frames or vectors, by a language model from tags, speech and a
//! prompt template, or by a captioner of pictures or videos.

mod languages;
mod prompt;
mod subject;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use self::prompt::{Prompt, PromptContext, mean_tags};
use self::subject::Subject;
use crate::cache::Key;
use crate::config::Params;
use crate::config::shape::{Default, Field, Type};
use crate::inference::{Captioner, Requester};
use crate::models::text::{
    self, BeamSearchConfig, EarlyStopping, Generation, GenerationConfig, Penalties, SamplingConfig,
};
use crate::packet::{Caption, Finish, Payload, PayloadKind};
use crate::stage::{
    Build, Context, Deps, Emitter, Input, Joins, Lookahead, PacketDraft, StageKind, Transform,
};
use crate::{Error, Result};

/// What a language model is asked where the file says nothing.
const PROMPT: &str = "CaptionStage one short caption for a video shot that shows {tags}.";

/// The kind.
pub const KIND: StageKind = StageKind {
    name: "caption",
    doc: "Captions. A language model writes one for each segment, from what a `join` collects for \
          it: tags, the mean probabilities of the vectors' classes; what was said; captions of \
          pictures. BLIP captions each frame, or of each segment the collected frame nearest to \
          its middle. OpusCaptionDecoder writes over each vector of the Opus encoder, or over all \
          that are collected for a segment.",
    accepts: &[
        PayloadKind::Segment,
        PayloadKind::Frame,
        PayloadKind::Embedding,
        PayloadKind::Transcript,
        PayloadKind::Caption,
    ],
    emits: &[PayloadKind::Caption],
    params: PARAMS,
    joins: Joins::ByModel(&[
        ("LlamaForCausalLM", Joins::Per(PayloadKind::Segment)),
        ("MistralForCausalLM", Joins::Per(PayloadKind::Segment)),
        ("Qwen2ForCausalLM", Joins::Per(PayloadKind::Segment)),
        ("Qwen3ForCausalLM", Joins::Per(PayloadKind::Segment)),
        ("GPT2LMHeadModel", Joins::Per(PayloadKind::Segment)),
        (
            "BlipForConditionalGeneration",
            Joins::Either {
                alone: PayloadKind::Frame,
                per: PayloadKind::Segment,
            },
        ),
        (
            "OpusCaptionDecoder",
            Joins::Either {
                alone: PayloadKind::Embedding,
                per: PayloadKind::Segment,
            },
        ),
    ]),
    lookahead: Lookahead::none,
    build: Build::Stateless(build),
};

const PARAMS: &[Field] = &[
    Field {
        name: "model",
        ty: Type::Model(&[
            "LlamaForCausalLM",
            "MistralForCausalLM",
            "Qwen2ForCausalLM",
            "Qwen3ForCausalLM",
            "GPT2LMHeadModel",
            "BlipForConditionalGeneration",
            "OpusCaptionDecoder",
        ]),
        default: Default::Required,
        doc: "The language model, or the captioner of pictures or videos. A language model that \
              can think before it answers (Qwen3) is told not to.",
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

fn build(context: &Context<'_>) -> Result<Arc<dyn Transform>> {
    let params = context.params;
    let captioner = context.deps.models.captioner(params.text("model"))?;
    let asked = if matches!(captioner, Captioner::Text(_)) {
        PROMPT
    } else {
        ""
    };
    let system = params.opt_text("system").map(ToString::to_string);
    if system.is_some() && !matches!(captioner, Captioner::Text(_)) {
        return Err(
            Error::config("only a language model takes a system message").hint("take `system` out"),
        );
    }
    let writing = writing(params);
    writing.check()?;
    Ok(Arc::new(CaptionStage {
        captioner,
        prompt: Prompt::parse(params.opt_text("prompt").map_or(asked, |prompt| prompt))?,
        system,
        writing,
        tags: params.int("tags").unsigned_abs() as usize,
        min_score: params.float("min_score") as f32,
        language: params.text("language").to_string(),
        platform: params.text("platform").to_string(),
        cache: params.bool("cache"),
        deps: Arc::clone(context.deps),
    }))
}

/// How the parameters say that texts are written.
fn writing(params: &Params) -> GenerationConfig {
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

struct CaptionStage {
    captioner: Captioner,
    prompt: Prompt,
    system: Option<String>,
    writing: GenerationConfig,
    tags: usize,
    min_score: f32,
    language: String,
    platform: String,
    cache: bool,
    deps: Arc<Deps>,
}

/// A caption as the cache keeps it.
#[derive(Serialize, Deserialize)]
struct CachedCaption {
    text: String,
    tokens: u32,
    stopped: bool,
}

#[async_trait]
impl Transform for CaptionStage {
    async fn process(&self, input: Input<'_>, out: &mut Emitter) -> Result<()> {
        let tags = mean_tags(&input, self.tags, self.min_score);
        let context = PromptContext {
            input: &input,
            tags: &tags,
            language: &self.language,
            platform: &self.platform,
        };
        let text = self.prompt.fill(&context);
        let Some((subject, parents)) =
            Subject::of(&self.captioner, &input, text, self.system.as_deref())?
        else {
            return Ok(());
        };
        let stream = &input.head.channel.stream;
        let requester = Requester {
            stream: Arc::clone(&stream.id),
            live: stream.live,
            deadline: None,
        };
        for (variant, cached) in (0..).zip(self.answer(subject, requester).await?) {
            let caption = Caption {
                text: cached.text,
                language: self.language.clone(),
                platform: self.platform.clone(),
                tags: tags.clone(),
                tokens: cached.tokens,
                finish: if cached.stopped {
                    Finish::Stop
                } else {
                    Finish::Length
                },
                partial: input.partial,
                variant,
            };
            let draft = PacketDraft::new(Payload::Caption(Arc::new(caption)), input.head.span)
                .ordinal(variant);
            out.emit(draft.by(self.captioner.tag()).from_records(parents.clone()));
        }
        Ok(())
    }
}

impl CaptionStage {
    async fn answer(&self, subject: Subject, requester: Requester) -> Result<Vec<CachedCaption>> {
        let key = self.cache.then(|| self.key(&subject));
        let compute = || async {
            pack(
                subject
                    .ask(&self.captioner, &self.writing, requester)
                    .await?,
            )
        };
        let value = match key {
            Some(key) => {
                self.deps
                    .cache
                    .get_or_compute(&key, self.deps.cache_ttl, compute)
                    .await?
                    .0
            }
            None => compute().await?,
        };
        serde_json::from_slice(&value)
            .map_err(|error| Error::bug("the cache gave captions that do not parse").because(error))
    }

    /// Everything that the texts depend on.
    fn key(&self, subject: &Subject) -> Key {
        let tag = self.captioner.tag();
        let key = Key::builder("caption")
            .part(&tag.revision)
            .part(&tag.precision)
            .part(self.captioner.device());
        let GenerationConfig {
            max_tokens,
            stop,
            variants,
            sampling,
            penalties,
            search,
        } = &self.writing;
        let numbers = [
            sampling.temperature,
            sampling.top_p,
            penalties.repetition,
            search.length_penalty,
        ];
        let key = numbers.into_iter().fold(subject.key(key), |key, number| {
            key.part(number.to_le_bytes())
        });
        let counts = [
            *max_tokens,
            *variants,
            sampling.top_k,
            penalties.ngram,
            penalties.min_tokens,
            search.beams,
            search.early as u32,
        ];
        let key = counts
            .into_iter()
            .fold(key, |key, count| key.number(u64::from(count)))
            .number(sampling.seed);
        let key = key.part(&self.language).part(&self.platform);
        stop.iter().fold(key, |key, stop| key.part(stop)).finish()
    }
}

fn pack(texts: Vec<Generation>) -> Result<Bytes> {
    let cached = |text: Generation| CachedCaption {
        text: text.text.trim().to_owned(),
        tokens: text.tokens.len() as u32,
        stopped: text.finish == text::Finish::Stop,
    };
    let cached: Vec<CachedCaption> = texts.into_iter().map(cached).collect();
    serde_json::to_vec(&cached)
        .map(Bytes::from)
        .map_err(|error| Error::bug("a caption does not serialise").because(error))
}
