//! `caption`: a language model writes one caption for each segment, from the tags of the vectors inside it and a prompt template.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::cache::Key;
use crate::config::shape::{Default, Field, Type};
use crate::inference::{Asker, TextModel};
use crate::models::text::{self, Generation, Request};
use crate::packet::{Caption, Finish, Label, Payload, PayloadKind, Scores};
use crate::stage::{Build, Context, Deps, Draft, Holds, Input, Joins, Out, StageKind, Transform};
use crate::{Error, Result};

use super::prompt::Prompt;

/// The kind.
pub const KIND: StageKind = StageKind {
    name: "caption",
    doc: "One caption for each segment, written by a language model from the segment's tags and a prompt. Tags are the mean probabilities of \
          the collected vectors' classes: `join: { per: SEGMENTS, collect: [VECTORS] }`.",
    accepts: &[PayloadKind::Segment, PayloadKind::Embedding],
    emits: &[PayloadKind::Caption],
    params: &[
        Field { name: "model", ty: Type::Model(&["LlamaForCausalLM"]), default: Default::Required, doc: "The language model." },
        Field {
            name: "prompt",
            ty: Type::Text,
            default: Default::Is("Write one short caption for a video shot that shows {tags}."),
            doc: "What the model is asked. `{tags}`, `{start}`, `{duration}` (seconds), `{language}`, `{platform}`, `{stream}` and `{labels.NAME}` are filled in.",
        },
        Field {
            name: "system",
            ty: Type::Text,
            default: Default::Absent,
            doc: "The system message; the model's own default when left out.",
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
            doc: "BCP 47 tag of the language asked for; part of the record.",
        },
        Field {
            name: "platform",
            ty: Type::Text,
            default: Default::Is("\"\""),
            doc: "What the caption is for, such as a platform's name; part of the record.",
        },
        Field { name: "max_tokens", ty: Type::Int(1, 4096), default: Default::Is("40"), doc: "Most tokens of a caption." },
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
            name: "seed",
            ty: Type::Int(0, i64::MAX),
            default: Default::Is("0"),
            doc: "Seed of the drawing; equal seeds and prompts give equal captions.",
        },
        Field {
            name: "stop",
            ty: Type::List(&Type::Text),
            default: Default::Absent,
            doc: "Texts that end a caption and are left out of it.",
        },
        Field { name: "cache", ty: Type::Bool, default: Default::Is("true"), doc: "Whether captions are looked up and kept by prompt." },
    ],
    joins: Joins::Per(PayloadKind::Segment),
    holds: Holds::nothing,
    build: Build::Transform(build),
};

fn build(context: &Context<'_>) -> Result<Arc<dyn Transform>> {
    let params = context.params;
    let prompt = params.text("prompt");
    let request = Request {
        prompt: String::new(),
        system: params.opt_text("system").map(ToString::to_string),
        max_tokens: u32::try_from(params.int("max_tokens")).unwrap_or(u32::MAX),
        temperature: params.float("temperature") as f32,
        top_p: params.float("top_p") as f32,
        top_k: u32::try_from(params.int("top_k")).unwrap_or(0),
        repetition_penalty: params.float("repetition_penalty") as f32,
        seed: params.int("seed").unsigned_abs(),
        stop: params.opt_list("stop").unwrap_or_default().iter().filter_map(|stop| Some(stop.as_text()?.to_string())).collect(),
    };
    Ok(Arc::new(Write {
        model: context.deps.models.text(params.text("model"))?,
        prompt: Prompt::parse(prompt, &NAMES)?,
        request,
        tags: params.int("tags").unsigned_abs() as usize,
        min_score: params.float("min_score") as f32,
        language: params.text("language").to_string(),
        platform: params.text("platform").to_string(),
        cache: params.bool("cache"),
        deps: Arc::clone(context.deps),
    }))
}

/// What a prompt may ask for.
const NAMES: [&str; 6] = ["tags", "start", "duration", "language", "platform", "stream"];

struct Write {
    model: TextModel,
    prompt: Prompt,
    request: Request,
    tags: usize,
    min_score: f32,
    language: String,
    platform: String,
    cache: bool,
    deps: Arc<Deps>,
}

/// A caption as the cache keeps it.
#[derive(Serialize, Deserialize)]
struct Kept {
    text: String,
    tokens: u32,
    stopped: bool,
}

#[async_trait]
impl Transform for Write {
    async fn process(&self, input: Input<'_>, out: &mut Out) -> Result<()> {
        let Payload::Segment(_) = &input.payload else {
            return Err(Error::config("captions are written for segments").hint("join per segments"));
        };
        let tags = self.mean_tags(&input);
        let request = Request { prompt: self.fill(&input, &tags), ..self.request.clone() };
        let stream = &input.head.channel.stream;
        let asker = Asker { stream: Arc::clone(&stream.id), live: stream.live, deadline: None };
        let kept = self.answer(request, asker).await?;
        let parents = std::iter::once(input.id()).chain(input.collected.iter().map(|(head, payload)| head.id(payload.kind()))).collect();
        let caption = Caption {
            text: kept.text,
            language: self.language.clone(),
            platform: self.platform.clone(),
            tags,
            tokens: kept.tokens,
            finish: if kept.stopped { Finish::Stop } else { Finish::Length },
            partial: input.partial,
        };
        out.emit(Draft::new(Payload::Caption(Arc::new(caption)), input.head.span).by(self.model.tag()).from_records(parents));
        Ok(())
    }
}

impl Write {
    /// The mean probability of each class over the segment's vectors, best first.
    fn mean_tags(&self, input: &Input) -> Vec<Label> {
        let scores = input.collected.iter().filter_map(|(_, payload)| match payload {
            Payload::Embedding(embedding) => embedding.scores.as_deref(),
            _ => None,
        });
        let Some(mean) = Scores::mean(scores) else { return Vec::new() };
        let mut tags = mean.top(self.tags);
        tags.retain(|tag| tag.score >= self.min_score);
        tags
    }

    fn fill(&self, input: &Input, tags: &[Label]) -> String {
        let (head, span) = (&input.head, input.head.span);
        self.prompt.fill(|name| match name {
            "tags" => tags.iter().map(|tag| &*tag.name).collect::<Vec<_>>().join(", "),
            "start" => format!("{:.1}", span.start as f64 / 1e9),
            "duration" => format!("{:.1}", span.len() as f64 / 1e9),
            "language" => self.language.clone(),
            "platform" => self.platform.clone(),
            "stream" => head.channel.stream.id.to_string(),
            label => head.channel.stream.labels.get(label.trim_start_matches("labels.")).cloned().unwrap_or_default(),
        })
    }

    async fn answer(&self, request: Request, asker: Asker) -> Result<Kept> {
        let compute = |request: Request| async { keep(self.model.ask(request, asker).await?) };
        let value = if self.cache {
            let key = self.key(&request);
            self.deps.cache.get_or_compute(&key, self.deps.cache_ttl, || compute(request)).await?.0
        } else {
            compute(request).await?
        };
        serde_json::from_slice(&value).map_err(|error| Error::bug("the cache gave a caption that does not parse").because(error))
    }

    /// Everything that the text depends on.
    fn key(&self, request: &Request) -> Key {
        let tag = self.model.tag();
        let mut key = Key::builder("caption").part(&tag.revision).part(&tag.precision).part(self.model.device());
        key = key.part(&request.prompt).part(request.system.as_deref().unwrap_or("\0")).part(&self.language).part(&self.platform);
        for number in [request.temperature, request.top_p, request.repetition_penalty] {
            key = key.part(number.to_le_bytes());
        }
        key = key.number(u64::from(request.max_tokens)).number(u64::from(request.top_k)).number(request.seed);
        request.stop.iter().fold(key, |key, stop| key.part(stop)).finish()
    }
}

fn keep(generation: Generation) -> Result<Bytes> {
    let kept =
        Kept { text: generation.text.trim().to_owned(), tokens: generation.tokens, stopped: generation.finish == text::Finish::Stop };
    serde_json::to_vec(&kept).map(Bytes::from).map_err(|error| Error::bug("a caption does not serialise").because(error))
}
