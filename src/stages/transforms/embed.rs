//! `embed`: vectors for what is written, in the space of a model's pictures, so that frames can be
//! searched by captions and the reverse.

use std::sync::Arc;

use async_trait::async_trait;

use super::vectors::{CACHE, DTYPE, Form, Made, kept};
use crate::cache::Key;
use crate::config::shape::{Default, Field, Type};
use crate::inference::{EncodeModel, Encoded, Requester};
use crate::models::networks;
use crate::packet::{Payload, PayloadKind};
use crate::stage::{
    Build, Context, Deps, Emitter, Endpoint, Input, Joins, Lookahead, PacketDraft, StageKind,
    Transform,
};
use crate::{Error, Result};

/// The kind.
pub const KIND: StageKind = StageKind {
    name: "embed",
    doc: "A vector of length 1 for each caption or transcript, in the space of the vectors that \
          `encode` makes of frames by the same model: what is written and what is seen can be \
          searched together.",
    accepts: &[PayloadKind::Caption, PayloadKind::Transcript],
    emits: &[PayloadKind::Embedding],
    params: &[
        Field {
            name: "model",
            ty: Type::Model(networks::TEXT_ENCODERS),
            default: Default::Required,
            doc: "The encoder of texts and pictures. The end of a text that is longer than it \
                  reads is left off.",
        },
        Field {
            name: "template",
            ty: Type::Text,
            default: Default::Is("\"{}\""),
            doc: "The text that each caption or transcript is put into, at `{}`.",
        },
        DTYPE,
        CACHE,
    ],
    joins: Joins::AsWritten,
    endpoint: Endpoint::Other,
    lookahead: Lookahead::none,
    build: Build::Stateless(build),
};

fn build(context: &Context<'_>) -> Result<Arc<dyn Transform>> {
    let params = context.params;
    let template = params.text("template").to_string();
    if !template.contains("{}") {
        return Err(
            Error::config(format!("the template {template:?} has no place for a text"))
                .hint("write `{}` where it goes"),
        );
    }
    let (model, form) = (
        context.deps.models.encoder(params.text("model"))?,
        Form::without_labels(params),
    );
    Ok(Arc::new(Embed {
        model,
        template,
        form,
        cache: params.bool("cache"),
        deps: Arc::clone(context.deps),
    }))
}

struct Embed {
    model: EncodeModel,
    template: String,
    form: Form,
    cache: bool,
    deps: Arc<Deps>,
}

#[async_trait]
impl Transform for Embed {
    async fn process(&self, input: Input<'_>, out: &mut Emitter) -> Result<()> {
        let (id, span) = (input.id(), input.head.span);
        let text = match &input.payload {
            Payload::Caption(caption) => &caption.text,
            Payload::Transcript(transcript) => &transcript.text,
            _ => return Err(Error::bug("embed takes captions and transcripts")),
        };
        let text = self.template.replace("{}", text);
        let stream = &input.head.channel.stream;
        let requester = Requester {
            stream: Arc::clone(&stream.id),
            live: stream.live,
            deadline: None,
        };
        let Encoded { vector, .. } = self.answer(text, requester).await?;
        let embedding = self.form.embedding(
            Made {
                vector,
                unit: true,
                frames: 0,
                scores: None,
            },
            self.model.tag(),
        );
        out.emit(
            PacketDraft::new(Payload::Embedding(Arc::new(embedding)), span)
                .by(self.model.tag())
                .from_records(vec![id]),
        );
        Ok(())
    }
}

impl Embed {
    async fn answer(&self, text: String, requester: Requester) -> Result<Encoded> {
        let tag = self.model.tag();
        let key = Key::builder("embed")
            .part(&tag.revision)
            .part(&tag.precision)
            .part(self.model.device())
            .part(&text)
            .finish();
        let ask = async {
            let vector = self
                .model
                .texts(vec![text], requester)
                .await?
                .pop()
                .ok_or_else(|| Error::bug("a text without an answer"))?;
            Ok(Encoded {
                vector,
                probabilities: Vec::new(),
            })
        };
        if self.cache {
            kept(&self.deps, &key, ask).await
        } else {
            ask.await
        }
    }
}
