//! `keyframe`: one JPEG for each segment, from the frame of a view that lies nearest to a place
//! within it.

use std::sync::Arc;

use async_trait::async_trait;

use crate::cache::ObjectStore;
use crate::config::shape::{Default, Field, Type};
use crate::media;
use crate::packet::{Frame, Payload, PayloadKind, Picture};
use crate::stage::{
    Build, Context, Deps, Emitter, Endpoint, Input, Joins, Lookahead, PacketDraft, StageKind,
    Transform,
};
use crate::{Error, Result};

/// The kind.
pub const KIND: StageKind = StageKind {
    name: "keyframe",
    doc: "One JPEG for each segment, from the collected frame nearest to `at`. Needs `join: { \
          per: SEGMENTS, collect: [SOURCE.VIEW] }`.",
    accepts: &[PayloadKind::Segment, PayloadKind::Frame],
    emits: &[PayloadKind::Picture],
    params: &[
        Field {
            name: "at",
            ty: Type::Float(0.0, 1.0),
            default: Default::Is("0.5"),
            doc: "Where in the segment: 0 is its first frame, 0.5 its middle, 1 its last.",
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
            default: Default::Is("keyframe"),
            doc: "What the picture is for, as its record says.",
        },
    ],
    joins: Joins::Always(PayloadKind::Segment),
    endpoint: Endpoint::Other,
    lookahead: Lookahead::none,
    build: Build::Stateless(build),
};

fn build(context: &Context<'_>) -> Result<Arc<dyn Transform>> {
    let params = context.params;
    Ok(Arc::new(Keyframe {
        at: params.float("at"),
        quality: u8::try_from(params.int("quality")).unwrap_or(u8::MAX),
        role: params.text("role").to_string(),
        objects: context.deps.objects()?.clone(),
        deps: Arc::clone(context.deps),
    }))
}

struct Keyframe {
    at: f64,
    quality: u8,
    role: String,
    objects: ObjectStore,
    deps: Arc<Deps>,
}

#[async_trait]
impl Transform for Keyframe {
    async fn process(&self, input: Input<'_>, out: &mut Emitter) -> Result<()> {
        let span = input.head.span;
        let wanted = span.start + (span.len() as f64 * self.at) as u64;
        let frames = input
            .collected
            .iter()
            .filter_map(|(head, payload)| match payload {
                Payload::Frame(frame) => Some((head, frame)),
                _ => None,
            });
        // A segment shorter than the pace of the view has no frame of its own: nothing to show.
        let Some((head, frame)) = frames.min_by_key(|(head, _)| head.span.start.abs_diff(wanted))
        else {
            return Ok(());
        };
        let parents = vec![input.id(), head.id(PayloadKind::Frame)];
        let picture = self.picture(frame.clone()).await?;
        out.emit(PacketDraft::new(Payload::Picture(Arc::new(picture)), span).from_records(parents));
        Ok(())
    }
}

impl Keyframe {
    async fn picture(&self, frame: Arc<Frame>) -> Result<Picture> {
        let (width, height, quality) = (frame.width, frame.height, self.quality);
        let data = tokio::task::spawn_blocking(move || media::encode_jpeg(&frame, quality))
            .await
            .map_err(|error| Error::bug(format!("the JPEG encoder ended: {error}")))??;
        let object = self
            .objects
            .put(data.clone(), "image/jpeg", self.deps.objects_ttl)
            .await?;
        Ok(Picture {
            role: self.role.clone(),
            uri: object.uri,
            sha256: object.sha256,
            media_type: "image/jpeg".to_owned(),
            width,
            height,
            expires_at: object.expires_at,
            inline: self.objects.is_inline(object.bytes),
            data,
            flicker: None,
        })
    }
}
