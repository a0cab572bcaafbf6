//! `diffuse`: pictures from a diffusion model: a thumbnail for a segment or a caption, or a
//! stream's frames in a style, each painted with the frame before in mind so that the stream does
//! not flicker.

mod painting;
mod params;
mod scene;
mod style;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::try_join_all;
use tokio::sync::Mutex;

use self::painting::{Painter, Painting};
use self::params::{NAMES, PARAMS};
use self::style::Style;
use super::prompt::Prompt;
use crate::inference::{FromFrame, PictureRequest, Requester};
use crate::media::PictureEncoding;
use crate::packet::{Frame, Head, Payload, PayloadKind, Picture, RecordId};
use crate::stage::{
    Build, Context, Emitter, Endpoint, Flush, Input, Joins, Lookahead, OpenTransform, PacketDraft,
    StageKind, Transform,
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
    endpoint: Endpoint::Other,
    lookahead: Lookahead::none,
    build: Build::Windowed(build),
};

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

/// A picture that is to be emitted.
struct NewPicture<'a> {
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
                self.request(
                    input,
                    Some(style.follow(frame, settings.strength, settings.previous)),
                ),
                &self.requester,
            )
            .await?;
        style.painted(frame, &painting).await?;
        let flicker = style.flicker_since();
        drop(style);
        self.emit(
            NewPicture {
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
            let Some((id, payload)) = scene::nearest(input) else {
                return Ok(());
            };
            parents.push(id);
            Some(FromFrame {
                frame: scene::frame_of(payload).await?,
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
            NewPicture {
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
        let (mut style, mut changed) = (Style::default(), Vec::new());
        for (head, payload) in &input.collected {
            let Payload::Frame(frame) = payload else {
                continue;
            };
            if style.is_new(frame, settings.skip_similar).await? {
                changed.push((head, frame));
            }
        }
        let paintings = self.restyle(input, &mut style, &changed).await?;
        let flicker = style.flicker();
        for ((head, _), painting) in changed.into_iter().zip(paintings) {
            let parents = vec![input.id(), head.id(PayloadKind::Frame)];
            self.emit(
                NewPicture {
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

    /// Pictures of these frames in the style: one after another where each follows the picture
    /// before it, else all at once.
    async fn restyle(
        &self,
        input: &Input<'_>,
        style: &mut Style,
        frames: &[(&Arc<Head>, &Arc<Frame>)],
    ) -> Result<Vec<Painting>> {
        let settings = &self.settings;
        let paint = async |request| settings.painter.paint(request, &self.requester).await;
        let mut paintings = Vec::with_capacity(frames.len());
        if settings.previous > 0.0 {
            for (_, frame) in frames {
                let from = style.follow(frame, settings.strength, settings.previous);
                let painting = paint(self.request(input, Some(from))).await?;
                style.painted(frame, &painting).await?;
                paintings.push(painting);
            }
            return Ok(paintings);
        }
        let requests = frames.iter().map(|(_, frame)| {
            let from = style.follow(frame, settings.strength, settings.previous);
            self.request(input, Some(from))
        });
        let requests: Vec<_> = requests.collect();
        paintings = try_join_all(requests.into_iter().map(paint)).await?;
        for ((_, frame), painting) in frames.iter().zip(&paintings) {
            style.painted(frame, painting).await?;
        }
        Ok(paintings)
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
                "caption" => scene::caption(input),
                "tags" => scene::tags(input, self.settings.tags),
                "start" => format!("{:.1}", span.start as f64 / 1e9),
                "duration" => format!("{:.1}", span.len() as f64 / 1e9),
                _ => stream.id.to_string(),
            })
    }

    fn emit(&self, new: NewPicture<'_>, out: &mut Emitter) {
        let role = self
            .settings
            .role
            .clone()
            .unwrap_or_else(|| new.role.to_owned());
        let picture = Picture {
            role,
            flicker: new.flicker,
            ..new.painting.picture
        };
        let draft = PacketDraft::new(Payload::Picture(Arc::new(picture)), new.head.span).by(self
            .settings
            .painter
            .model()
            .tag());
        out.emit(draft.from_records(new.parents));
    }
}
