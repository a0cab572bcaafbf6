//! `diffuse`: pictures from a diffusion model: a thumbnail for a segment or a caption, or a
//! stream's frames in a style, each painted with the frame before in mind so that the stream does
//! not flicker.

mod painting;
mod style;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::try_join_all;
use tokio::sync::Mutex;

use self::painting::{Painter, Painting};
use self::style::{Style, blocking};
use super::prompt::Prompt;
use crate::config::shape::{Default, Field, Type};
use crate::inference::{FromFrame, PictureRequest, Requester};
use crate::media::{self, PictureEncoding};
use crate::models::diffusion::pipeline::CLASSES;
use crate::packet::{Frame, Head, Payload, PayloadKind, Picture, RecordId, Scores};
use crate::stage::{
    Build, Context, Emitter, Flush, Input, Joins, Lookahead, OpenTransform, PacketDraft, StageKind,
    Transform,
};
use crate::{Error, Result};

/// The kind.
pub const KIND: StageKind = StageKind {
    name: "diffuse",
    doc: "Paints pictures with a diffusion model of the Stable Diffusion family: a thumbnail for \
          each segment or caption, or frames in a style. Frames are painted as they come; with \
          `mode: frames` and `join: { per: SEGMENTS, collect: [SOURCE.VIEW] }` segment by segment.",
    accepts: &[
        PayloadKind::Frame,
        PayloadKind::Segment,
        PayloadKind::Caption,
        PayloadKind::Embedding,
        PayloadKind::Picture,
    ],
    emits: &[PayloadKind::Picture],
    params: PARAMS,
    joins: Joins::AsWritten,
    lookahead: Lookahead::none,
    build: Build::Windowed(build),
};

const PARAMS: &[Field] = &[
    Field {
        name: "model",
        ty: Type::Model(&CLASSES),
        default: Default::Required,
        doc: "The pipeline: a folder with model_index.json.",
    },
    Field {
        name: "prompt",
        ty: Type::Text,
        default: Default::Is("\"{caption}\""),
        doc: "What a picture shows. `{caption}` and `{tags}` (of what is collected), `{start}`, \
              `{duration}` (seconds), `{stream}` and `{labels.NAME}` are filled in. A thumbnail \
              from noise whose prompt comes out empty is not painted.",
    },
    Field {
        name: "negative_prompt",
        ty: Type::Text,
        default: Default::Absent,
        doc: "What a picture does not show, with a `guidance` above 1; as the model was trained \
              when left out.",
    },
    Field {
        name: "mode",
        ty: Type::Choice(&["thumbnail", "frames"]),
        default: Default::Is("thumbnail"),
        doc: "What is painted for a segment or a caption: one picture, or each frame that is \
              collected for it.",
    },
    Field {
        name: "start",
        ty: Type::Choice(&["noise", "frame"]),
        default: Default::Is("noise"),
        doc: "What a thumbnail is painted from: `noise` and the prompt alone, or the collected \
              frame or picture nearest to the middle.",
    },
    Field {
        name: "size",
        ty: Type::Size,
        default: Default::Is("native"),
        doc: "Width and height, multiples of 8. `native` is the frame's size, cut down to such \
              multiples, or from noise that of the model's training. A view of this size saves \
              scaling.",
    },
    Field {
        name: "steps",
        ty: Type::Int(1, 1000),
        default: Default::Is("20"),
        doc: "Steps from noise to a picture; turbo models want 1 to 4.",
    },
    Field {
        name: "guidance",
        ty: Type::Float(0.0, 100.0),
        default: Default::Is("7.5"),
        doc: "How much more the prompt counts than the negative one. At 1 or less a step costs \
              half as much; turbo models want 0.",
    },
    Field {
        name: "strength",
        ty: Type::Float(0.0, 1.0),
        default: Default::Is("0.6"),
        doc: "How much of a frame becomes noise, above 0; this part of `steps` is done, and must \
              be one at least. Latent consistency models do all steps.",
    },
    Field {
        name: "seed",
        ty: Type::Int(0, u32::MAX as i64),
        default: Default::Is("0"),
        doc: "Seed of the noise, the same for every picture: equal seeds and inputs give equal \
              pictures on the same device.",
    },
    Field {
        name: "previous",
        ty: Type::Float(0.0, 1.0),
        default: Default::Is("0.3"),
        doc: "The part that the frame painted before has in the next frame's latents, against \
              flicker; 0 for none, which lets the frames of a segment be painted at once. Each \
              segment begins afresh.",
    },
    Field {
        name: "skip_similar",
        ty: Type::Float(0.0, 1.0),
        default: Default::Is("0.98"),
        doc: "Frames whose structural similarity to the last painted one reaches this are not \
              painted: they are absorbed, and the picture before stands for them.",
    },
    Field {
        name: "tags",
        ty: Type::Int(0, 100),
        default: Default::Is("5"),
        doc: "Tags in `{tags}`, best first.",
    },
    Field {
        name: "format",
        ty: Type::Choice(&["jpeg", "png", "webp"]),
        default: Default::Is("jpeg"),
        doc: "How pictures are encoded; PNG and WebP without loss.",
    },
    Field {
        name: "quality",
        ty: Type::Int(1, 100),
        default: Default::Is("85"),
        doc: "JPEG quality.",
    },
    Field {
        name: "role",
        ty: Type::Text,
        default: Default::Absent,
        doc: "What the pictures are for, as their records say: `thumbnail`, or `frame` for \
              frames, when left out.",
    },
    Field {
        name: "cache",
        ty: Type::Bool,
        default: Default::Is("true"),
        doc: "Whether pictures are looked up and kept by what they are painted from.",
    },
];

/// What a prompt may ask for.
const NAMES: [&str; 5] = ["caption", "tags", "start", "duration", "stream"];

fn build(context: &Context<'_>) -> Result<OpenTransform> {
    let params = context.params;
    let quality = u8::try_from(params.int("quality")).unwrap_or(u8::MAX);
    let encoding = match &**params.text("format") {
        "png" => PictureEncoding::Png,
        "webp" => PictureEncoding::WebP,
        _ => PictureEncoding::Jpeg(quality),
    };
    let settings = Settings {
        painter: Painter::new(context, encoding)?,
        prompt: Prompt::parse(params.text("prompt"), &NAMES)?,
        request: PictureRequest {
            prompt: String::new(),
            negative_prompt: params.opt_text("negative_prompt").map(ToString::to_string),
            size: params.size("size"),
            steps: u32::try_from(params.int("steps")).unwrap_or(u32::MAX),
            guidance: params.float("guidance"),
            seed: params.int("seed").unsigned_abs(),
            from: None,
        },
        thumbnails: &**params.text("mode") == "thumbnail",
        from_frame: &**params.text("start") == "frame",
        strength: params.float("strength"),
        previous: params.float("previous"),
        skip_similar: params.float("skip_similar"),
        tags: params.int("tags").unsigned_abs() as usize,
        role: params.opt_text("role").map(ToString::to_string),
    };
    settings.check()?;
    let settings = Arc::new(settings);
    Ok(Box::new(move |stream| {
        let requester = Requester {
            stream: Arc::clone(&stream.id),
            live: stream.live,
            deadline: None,
        };
        Arc::new(Diffuse {
            settings: Arc::clone(&settings),
            requester,
            style: Mutex::new(Style::default()),
        })
    }))
}

struct Settings {
    painter: Painter,
    prompt: Prompt,
    request: PictureRequest,
    thumbnails: bool,
    from_frame: bool,
    strength: f64,
    previous: f64,
    skip_similar: f64,
    tags: usize,
    role: Option<String>,
}

impl Settings {
    /// Refuses what no frame could be painted with.
    fn check(&self) -> Result<()> {
        let steps = self
            .painter
            .model()
            .steps_from_frame(self.request.steps, self.strength);
        if steps > 0 && self.strength > 0.0 || (self.thumbnails && !self.from_frame) {
            return Ok(());
        }
        Err(Error::config(format!(
            "{} steps at a strength of {} leave none to do",
            self.request.steps, self.strength
        ))
        .hint("steps times strength must be 1 or more"))
    }
}

/// The roles of pictures whose stage names none.
const THUMBNAIL: &str = "thumbnail";
const FRAME: &str = "frame";

/// A picture on its way out.
struct Made<'a> {
    painting: Painting,
    role: &'static str,
    /// Of what it is about.
    head: &'a Arc<Head>,
    parents: Vec<RecordId>,
    flicker: Option<f32>,
}

struct Diffuse {
    settings: Arc<Settings>,
    requester: Requester,
    /// For frames that come without a join. Who waits for it stands in the order of the frames.
    style: Mutex<Style>,
}

#[async_trait]
impl Transform for Diffuse {
    async fn process(&self, input: Input<'_>, out: &mut Emitter) -> Result<()> {
        match (&input.payload, self.settings.thumbnails) {
            (Payload::Frame(frame), _) => self.frame(&input, frame, out).await,
            (Payload::Segment(_) | Payload::Caption(_), true) => self.thumbnail(&input, out).await,
            (Payload::Segment(_) | Payload::Caption(_), false) => self.segment(&input, out).await,
            (other, _) => Err(Error::config(format!(
                "pictures are painted for segments, captions and frames, not for a {}",
                other.kind().as_str()
            ))
            .hint("join per segments, and collect the rest")),
        }
    }

    async fn flush(&self, _why: Flush, _out: &mut Emitter) -> Result<()> {
        *self.style.lock().await = Style::default();
        Ok(())
    }
}

impl Diffuse {
    /// A frame of the stream, after those before it.
    async fn frame(&self, input: &Input<'_>, frame: &Arc<Frame>, out: &mut Emitter) -> Result<()> {
        let settings = &self.settings;
        let mut style = self.style.lock().await;
        if !style.is_new(frame, settings.skip_similar).await? {
            return Ok(());
        }
        let painting = settings
            .painter
            .paint(
                self.request(input, Some(style.follow(frame, settings))),
                &self.requester,
            )
            .await?;
        style.painted(frame, &painting).await?;
        let flicker = style.flicker_since();
        drop(style);
        self.emit(
            Made {
                painting,
                role: FRAME,
                head: input.head,
                parents: vec![input.id()],
                flicker,
            },
            out,
        );
        Ok(())
    }

    /// One picture for a segment or a caption.
    async fn thumbnail(&self, input: &Input<'_>, out: &mut Emitter) -> Result<()> {
        let settings = &self.settings;
        let mut parents: Vec<RecordId> = vec![input.id()];
        let said =
            |payload: &Payload| matches!(payload, Payload::Caption(_) | Payload::Embedding(_));
        parents.extend(
            input
                .collected
                .iter()
                .filter(|(_, payload)| said(payload))
                .map(|(head, payload)| head.id(payload.kind())),
        );
        let from = if settings.from_frame {
            // A segment shorter than the pace of the view has no frame of its own: nothing to paint
            // from.
            let Some((id, payload)) = nearest(input) else {
                return Ok(());
            };
            parents.push(id);
            Some(FromFrame {
                frame: frame_of(payload).await?,
                strength: settings.strength,
                previous: None,
            })
        } else {
            None
        };
        let request = self.request(input, from);
        if request.from.is_none() && request.prompt.trim().is_empty() {
            return Ok(());
        }
        let painting = settings.painter.paint(request, &self.requester).await?;
        self.emit(
            Made {
                painting,
                role: THUMBNAIL,
                head: input.head,
                parents,
                flicker: None,
            },
            out,
        );
        Ok(())
    }

    /// Every frame of a segment that is not like the one before it; each record has the flicker of
    /// them all.
    async fn segment(&self, input: &Input<'_>, out: &mut Emitter) -> Result<()> {
        let settings = &self.settings;
        let (mut style, mut taken) = (Style::default(), Vec::new());
        for (head, payload) in &input.collected {
            let Payload::Frame(frame) = payload else {
                continue;
            };
            if style.is_new(frame, settings.skip_similar).await? {
                taken.push((head, frame));
            }
        }
        let mut paintings = Vec::with_capacity(taken.len());
        if settings.previous > 0.0 {
            for (_, frame) in &taken {
                let painting = settings
                    .painter
                    .paint(
                        self.request(input, Some(style.follow(frame, settings))),
                        &self.requester,
                    )
                    .await?;
                style.painted(frame, &painting).await?;
                paintings.push(painting);
            }
        } else {
            let requests: Vec<_> = taken
                .iter()
                .map(|(_, frame)| self.request(input, Some(style.follow(frame, settings))))
                .collect();
            paintings = try_join_all(
                requests
                    .into_iter()
                    .map(|request| settings.painter.paint(request, &self.requester)),
            )
            .await?;
            for ((_, frame), painting) in taken.iter().zip(&paintings) {
                style.painted(frame, painting).await?;
            }
        }
        let flicker = style.flicker();
        for ((head, _), painting) in taken.into_iter().zip(paintings) {
            let parents = vec![input.id(), head.id(PayloadKind::Frame)];
            self.emit(
                Made {
                    painting,
                    role: FRAME,
                    head,
                    parents,
                    flicker,
                },
                out,
            );
        }
        Ok(())
    }

    fn request(&self, input: &Input<'_>, from: Option<FromFrame>) -> PictureRequest {
        PictureRequest {
            prompt: self.fill(input),
            from,
            ..self.settings.request.clone()
        }
    }

    fn fill(&self, input: &Input<'_>) -> String {
        let (stream, span) = (&input.head.channel.stream, input.head.span);
        self.settings
            .prompt
            .fill(&stream.labels, |name| match name {
                "caption" => caption(input),
                "tags" => self.tags(input),
                "start" => format!("{:.1}", span.start as f64 / 1e9),
                "duration" => format!("{:.1}", span.len() as f64 / 1e9),
                _ => stream.id.to_string(),
            })
    }

    /// The mean tags of the collected vectors, else those that the caption was written from.
    fn tags(&self, input: &Input<'_>) -> String {
        let scores = input
            .collected
            .iter()
            .filter_map(|(_, payload)| match payload {
                Payload::Embedding(embedding) => embedding.scores.as_deref(),
                _ => None,
            });
        let tags = match Scores::mean(scores) {
            Some(mean) => mean.top(self.settings.tags),
            None => payloads(input)
                .find_map(|payload| {
                    if let Payload::Caption(caption) = payload {
                        Some(caption.tags.clone())
                    } else {
                        None
                    }
                })
                .unwrap_or_default(),
        };
        tags.iter()
            .take(self.settings.tags)
            .map(|tag| &*tag.name)
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn emit(&self, made: Made<'_>, out: &mut Emitter) {
        let role = self
            .settings
            .role
            .clone()
            .unwrap_or_else(|| made.role.to_owned());
        let picture = Picture {
            role,
            flicker: made.flicker,
            ..made.painting.picture
        };
        let draft = PacketDraft::new(Payload::Picture(Arc::new(picture)), made.head.span).by(self
            .settings
            .painter
            .model()
            .tag());
        out.emit(draft.from_records(made.parents));
    }
}

/// The input's own payload and what was collected for it.
fn payloads<'a>(input: &'a Input<'_>) -> impl Iterator<Item = &'a Payload> {
    std::iter::once(&input.payload).chain(input.collected.iter().map(|(_, payload)| payload))
}

/// The captions, one after another.
fn caption(input: &Input<'_>) -> String {
    let texts = payloads(input).filter_map(|payload| {
        if let Payload::Caption(caption) = payload {
            Some(caption.text.trim())
        } else {
            None
        }
    });
    texts
        .filter(|text| !text.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The collected frame or picture nearest to the middle of the span.
fn nearest(input: &Input<'_>) -> Option<(RecordId, Payload)> {
    // A picture is about a whole span, as a keyframe is: its own middle counts.
    let middle = |head: &Head| head.span.start + head.span.len() / 2;
    let seen = input
        .collected
        .iter()
        .filter(|(_, payload)| matches!(payload, Payload::Frame(_) | Payload::Picture(_)));
    let (head, payload) = seen.min_by_key(|(head, _)| middle(head).abs_diff(middle(input.head)))?;
    Some((head.id(payload.kind()), payload.clone()))
}

async fn frame_of(payload: Payload) -> Result<Arc<Frame>> {
    match payload {
        Payload::Frame(frame) => Ok(frame),
        Payload::Picture(picture) => {
            blocking(move || media::decode_picture(&picture.data).map(Arc::new)).await
        }
        other => Err(Error::bug(format!(
            "a {} is no frame",
            other.kind().as_str()
        ))),
    }
}
