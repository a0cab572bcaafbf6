//! `encode`: vectors for frames, with a model's classes or with labels of one's own, or for windows
//! of frames (the Opus encoder). Answers are cached by content, so equal pictures are computed
//! once.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::vectors::{CACHE, DTYPE, Form, Made, NORMALIZE, TOP, kept, key, texts};
use crate::config::Params;
use crate::config::shape::{Default, Field, Type};
use crate::inference::{EncodeModel, Encoded, Requester, ZeroShot};
use crate::models::networks;
use crate::packet::{Embedding, Frame, Payload, PayloadKind, RecordId, Scores, Span};
use crate::stage::{
    Build, Context, Deps, Emitter, Endpoint, Flush, Held, Input, Joins, Lookahead, OpenTransform,
    PacketDraft, StageKind, Transform,
};
use crate::{Error, Result};

/// The kind.
pub const KIND: StageKind = StageKind {
    name: "encode",
    doc: "A vector for each frame, with labels where the model has classes or is given `labels`, \
          or for each window of frames, as the model's architecture has it.",
    accepts: &[PayloadKind::Frame],
    emits: &[PayloadKind::Embedding],
    params: &[
        Field {
            name: "model",
            ty: Type::Model(networks::ENCODERS),
            default: Default::Required,
            doc: "The encoder. OpusEncoder gives a vector a window, the others a vector a frame; \
                  those for image classification also give labels.",
        },
        Field {
            name: "labels",
            ty: Type::ModelSpecific(networks::TEXT_ENCODERS, &Type::List(&Type::Text)),
            default: Default::Absent,
            doc: "Words or phrases that are looked for in each frame, whether the model was \
                  trained for them or not. A CLIPModel shares a score of 1 out among them, a \
                  SiglipModel judges each for itself.",
        },
        Field {
            name: "template",
            ty: Type::Text,
            default: Default::Is("a photo of {}"),
            doc: "The text that each label is put into, at `{}`.",
        },
        TOP,
        DTYPE,
        NORMALIZE,
        Field {
            name: "window",
            ty: Type::Int(1, 1024),
            default: Default::Is("30"),
            doc: "Frames in a window; for models of windows.",
        },
        Field {
            name: "hop",
            ty: Type::Int(1, 1024),
            default: Default::Is("30"),
            doc: "Frames from one window's start to the next; for models of windows.",
        },
        Field {
            name: "tail",
            ty: Type::Choice(&["emit", "drop"]),
            default: Default::Is("emit"),
            doc: "What becomes of a window that the end of the stream or a gap cuts short.",
        },
        CACHE,
    ],
    joins: Joins::AsWritten,
    endpoint: Endpoint::Other,
    lookahead,
    build: Build::Windowed(build),
};

fn lookahead(params: &Params) -> Lookahead {
    Lookahead {
        longest: std::time::Duration::ZERO,
        frames: u32::try_from(params.int("window")).unwrap_or(0),
    }
}

fn build(context: &Context<'_>) -> Result<OpenTransform> {
    let params = context.params;
    let model = context.deps.models.encoder(params.text("model"))?;
    let (window, hop) = if model.is_windowed() {
        (params.int("window"), params.int("hop"))
    } else {
        (1, 1)
    };
    let labels = params
        .opt_list("labels")
        .map(|labels| look_for(&model, texts(labels), params.text("template")))
        .transpose()?;
    let settings = Arc::new(Settings {
        model,
        labels,
        form: Form::of(params),
        window: window.unsigned_abs() as usize,
        hop: hop.unsigned_abs() as usize,
        tail: &**params.text("tail") == "emit",
        cache: params.bool("cache"),
        deps: Arc::clone(context.deps),
    });
    Ok(Box::new(move |stream| {
        let requester = Requester {
            stream: Arc::clone(&stream.id),
            live: stream.live,
            deadline: None,
        };
        Arc::new(Encode {
            settings: Arc::clone(&settings),
            requester,
            window: Mutex::default(),
        })
    }))
}

/// The labels' vectors, computed once. Nothing flows yet, so that waiting for the model's own
/// thread keeps nobody waiting.
fn look_for(model: &EncodeModel, labels: Arc<[Arc<str>]>, template: &str) -> Result<ZeroShot> {
    futures::executor::block_on(model.zero_shot(labels, template, Requester::new("labels", false)))
}

struct Settings {
    model: EncodeModel,
    labels: Option<ZeroShot>,
    form: Form,
    window: usize,
    hop: usize,
    tail: bool,
    cache: bool,
    deps: Arc<Deps>,
}

struct Encode {
    settings: Arc<Settings>,
    requester: Requester,
    window: Mutex<Open>,
}

/// The window that is being filled.
#[derive(Default)]
struct Open {
    frames: VecDeque<WindowFrame>,
    /// Frames to leave out before the next window begins.
    skip: usize,
}

struct WindowFrame {
    frame: Arc<Frame>,
    span: Span,
    id: RecordId,
    held: Held,
}

/// A window that is complete.
struct Full {
    frames: Vec<Arc<Frame>>,
    span: Span,
    parents: Vec<RecordId>,
    held: Vec<Held>,
}

impl Open {
    fn push(&mut self, frame: WindowFrame, settings: &Settings) -> Option<Full> {
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        self.frames.push_back(frame);
        if self.frames.len() < settings.window {
            return None;
        }
        let full = self.full();
        self.frames.drain(..settings.hop.min(settings.window));
        self.skip = settings.hop.saturating_sub(settings.window);
        full
    }

    fn full(&self) -> Option<Full> {
        let span = Span::new(
            self.frames.front()?.span.start,
            self.frames.back()?.span.end,
        );
        Some(Full {
            frames: self
                .frames
                .iter()
                .map(|frame| Arc::clone(&frame.frame))
                .collect(),
            span,
            parents: self.frames.iter().map(|frame| frame.id).collect(),
            held: self.frames.iter().map(|frame| frame.held.split()).collect(),
        })
    }
}

#[async_trait]
impl Transform for Encode {
    async fn process(&self, input: Input<'_>, out: &mut Emitter) -> Result<()> {
        let (id, span, held) = (input.id(), input.head.span, input.hold());
        let Payload::Frame(frame) = input.payload else {
            return Err(Error::bug("encode takes frames"));
        };
        let full = self.window.lock().push(
            WindowFrame {
                frame,
                span,
                id,
                held,
            },
            &self.settings,
        );
        match full {
            Some(full) => self.encode(full, out).await,
            None => Ok(()),
        }
    }

    async fn flush(&self, _why: Flush, out: &mut Emitter) -> Result<()> {
        let rest = {
            let mut open = self.window.lock();
            // Frames that an earlier window already has need no window of their own.
            let fresh = open.frames.len() > self.settings.window.saturating_sub(self.settings.hop);
            let rest = if self.settings.tail && fresh {
                open.full()
            } else {
                None
            };
            *open = Open::default();
            rest
        };
        match rest {
            Some(full) => self.encode(full, out).await,
            None => Ok(()),
        }
    }

    fn watermark(&self, incoming: u64) -> u64 {
        self.window
            .lock()
            .frames
            .front()
            .map_or(incoming, |frame| frame.span.start.min(incoming))
    }
}

impl Encode {
    async fn encode(&self, full: Full, out: &mut Emitter) -> Result<()> {
        out.risk(&full.held);
        let count = full.frames.len() as u32;
        let encoded = self.answer(full.frames).await?;
        let embedding = self.settings.embedding(encoded, count);
        let draft = PacketDraft::new(Payload::Embedding(Arc::new(embedding)), full.span)
            .by(self.settings.model.tag());
        out.emit(draft.from_records(full.parents).holding(full.held));
        Ok(())
    }

    async fn answer(&self, frames: Vec<Arc<Frame>>) -> Result<Encoded> {
        let settings = &self.settings;
        if !settings.cache {
            return settings.model.ask(frames, self.requester.clone()).await;
        }
        // Labels are no part of it: they are compared with the vector when it is there, so that
        // stages with other labels share it.
        let key = key(
            "encode",
            settings.model.tag(),
            settings.model.device(),
            &frames,
        )
        .finish();
        kept(
            &settings.deps,
            &key,
            settings.model.ask(frames, self.requester.clone()),
        )
        .await
    }
}

impl Settings {
    fn embedding(&self, encoded: Encoded, frames: u32) -> Embedding {
        let Encoded {
            vector,
            probabilities,
        } = encoded;
        let scores = match (&self.labels, self.model.labels()) {
            (Some(labels), _) => Some(Scores {
                names: Arc::clone(labels.names()),
                values: labels.scores(&vector),
            }),
            (None, Some(names)) if !probabilities.is_empty() => Some(Scores {
                names: Arc::clone(names),
                values: probabilities,
            }),
            _ => None,
        };
        self.form.embedding(
            Made {
                vector,
                unit: self.model.is_unit(),
                frames,
                scores,
            },
            self.model.tag(),
        )
    }
}
