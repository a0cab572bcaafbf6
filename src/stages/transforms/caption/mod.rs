//! `caption`: texts about segments, frames or vectors, by a language model from tags, speech and a
//! prompt template, or by a captioner of pictures or videos.

mod languages;
mod params;
mod prompt;
mod subject;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use self::params::{PARAMS, PROMPT, writing};
use self::prompt::{Prompt, PromptContext, mean_tags};
use self::subject::Subject;
use crate::cache::Key;
use crate::inference::{Captioner, Requester};
use crate::models::networks;
use crate::models::text::{self, Generation, GenerationConfig};
use crate::packet::{Caption, Finish, Payload, PayloadKind};
use crate::stage::{
    Build, Context, Deps, Emitter, Endpoint, Input, Joins, Lookahead, PacketDraft, StageKind,
    Transform,
};
use crate::{Error, Result};

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
        (networks::LANGUAGE_MODELS, Joins::Per(PayloadKind::Segment)),
        (
            networks::PICTURE_CAPTIONERS,
            Joins::Either {
                alone: PayloadKind::Frame,
                per: PayloadKind::Segment,
            },
        ),
        (
            networks::CLIP_CAPTIONERS,
            Joins::Either {
                alone: PayloadKind::Embedding,
                per: PayloadKind::Segment,
            },
        ),
    ]),
    endpoint: Endpoint::Other,
    lookahead: Lookahead::none,
    build: Build::Stateless(build),
};

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
