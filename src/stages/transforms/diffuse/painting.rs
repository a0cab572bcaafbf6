//! Asking a model for a picture, encoding it, and putting it where its record says it lies. What
//! was painted before is not painted again.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::cache::{Key, Object, ObjectStore};
use crate::inference::{FromFrame, Latents, PaintModel, Painted, PictureRequest, Requester};
use crate::media::{self, PictureEncoding};
use crate::packet::Picture;
use crate::stage::{Context, Deps};
use crate::{Error, Result};

/// A model that paints, with the way of its pictures into the object store.
pub(super) struct Painter {
    model: PaintModel,
    encoding: PictureEncoding,
    cache: bool,
    objects: ObjectStore,
    deps: Arc<Deps>,
}

/// A picture in the object store.
pub(super) struct Painting {
    /// Its record, but for its role.
    pub picture: Picture,
    /// Its latents.
    pub latents: Latents,
}

/// What the cache keeps of a picture, before its latents.
#[derive(Serialize, Deserialize)]
struct CachedPicture {
    uri: String,
    width: u32,
    height: u32,
    latents: [u32; 3],
}

impl Painter {
    /// From the keys `model` and `cache`.
    pub fn new(context: &Context<'_>, encoding: PictureEncoding) -> Result<Self> {
        let deps = Arc::clone(context.deps);
        let model = deps.models.painter(context.params.text("model"))?;
        Ok(Self {
            model,
            encoding,
            cache: context.params.bool("cache"),
            objects: deps.objects()?.clone(),
            deps,
        })
    }

    /// Its model.
    pub fn model(&self) -> &PaintModel {
        &self.model
    }

    /// The picture for `request`: the one painted before, while the store has it, or a new one.
    pub async fn paint(&self, request: PictureRequest, requester: &Requester) -> Result<Painting> {
        if !self.cache {
            return self
                .store(self.model.ask(request, requester.clone()).await?)
                .await;
        }
        let key = self.key(&request);
        let fresh = Mutex::new(None);
        let compute = || async {
            let painting = self
                .store(self.model.ask(request.clone(), requester.clone()).await?)
                .await?;
            let value = pack(&painting)?;
            *fresh.lock() = Some(painting);
            Ok(value)
        };
        let (value, _) = self
            .deps
            .cache
            .get_or_compute(&key, self.deps.cache_ttl, compute)
            .await?;
        if let Some(painting) = fresh.into_inner() {
            return Ok(painting);
        }
        let (cached, latents) = unpack(&value)?;
        if let Ok(data) = self.objects.get(&cached.uri).await {
            // Put there again, so that it lives as long as one painted now.
            let object = self.put(data.clone()).await?;
            return Ok(self.painting(object, data, (cached.width, cached.height), latents));
        }
        let painting = self
            .store(self.model.ask(request, requester.clone()).await?)
            .await?;
        self.deps
            .cache
            .put(&key, pack(&painting)?, self.deps.cache_ttl);
        Ok(painting)
    }

    async fn store(&self, painted: Painted) -> Result<Painting> {
        let Painted { frame, latents } = painted;
        let (size, encoding) = ((frame.width, frame.height), self.encoding);
        let data =
            tokio::task::spawn_blocking(move || media::encode_picture(&frame, encoding)).await;
        let data =
            data.map_err(|error| Error::bug(format!("encoding a picture ended: {error}")))??;
        Ok(self.painting(self.put(data.clone()).await?, data, size, latents))
    }

    async fn put(&self, data: Bytes) -> Result<Object> {
        self.objects
            .put(data, self.encoding.media_type(), self.deps.objects_ttl)
            .await
    }

    fn painting(
        &self,
        object: Object,
        data: Bytes,
        (width, height): (u32, u32),
        latents: Latents,
    ) -> Painting {
        let picture = Picture {
            role: String::new(),
            uri: object.uri,
            sha256: object.sha256,
            media_type: self.encoding.media_type().to_owned(),
            width,
            height,
            expires_at: object.expires_at,
            inline: self.objects.is_inline(object.bytes),
            data,
            flicker: None,
        };
        Painting { picture, latents }
    }

    /// Everything that the picture depends on.
    fn key(&self, request: &PictureRequest) -> Key {
        let PictureRequest {
            prompt,
            negative_prompt,
            size,
            steps,
            guidance,
            seed,
            from,
        } = request;
        let tag = self.model.tag();
        let mut key = Key::builder("diffuse")
            .part(&tag.revision)
            .part(&tag.precision)
            .part(self.model.device());
        key = key
            .part(self.encoding.to_string())
            .part(prompt)
            .part(negative_prompt.as_deref().unwrap_or("\0"));
        key = key
            .part(format!("{size:?}"))
            .number(u64::from(*steps))
            .number(guidance.to_bits())
            .number(*seed);
        if let Some(FromFrame {
            frame,
            strength,
            previous,
        }) = from
        {
            let shape = [frame.width, frame.height, frame.stride]
                .map(u32::to_le_bytes)
                .concat();
            key = key
                .number(strength.to_bits())
                .part(shape)
                .part(&frame.pixels);
            if let Some((latents, part)) = previous {
                key = key
                    .number(part.to_bits())
                    .part(format!("{:?}", latents.shape))
                    .part(&latents.values);
            }
        }
        key.finish()
    }
}

/// A line of JSON, then the latents.
fn pack(painting: &Painting) -> Result<Bytes> {
    let Picture {
        uri, width, height, ..
    } = &painting.picture;
    let cached = CachedPicture {
        uri: uri.clone(),
        width: *width,
        height: *height,
        latents: painting.latents.shape,
    };
    let mut value = serde_json::to_vec(&cached)
        .map_err(|error| Error::bug("a picture's place does not serialise").because(error))?;
    value.push(b'\n');
    value.extend_from_slice(&painting.latents.values);
    Ok(value.into())
}

fn unpack(value: &Bytes) -> Result<(CachedPicture, Latents)> {
    let broken = || Error::bug("the cache gave a picture that does not parse");
    let end = value
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or_else(broken)?;
    let cached: CachedPicture =
        serde_json::from_slice(&value[..end]).map_err(|error| broken().because(error))?;
    let latents = Latents {
        shape: cached.latents,
        values: value.slice(end + 1..),
    };
    let size: u64 = latents.shape.iter().map(|side| u64::from(*side)).product();
    if latents.values.len() as u64 == 4 * size {
        Ok((cached, latents))
    } else {
        Err(broken())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_survives_the_cache() {
        let latents = Latents {
            shape: [4, 1, 2],
            values: Bytes::from_static(b"\n2345678901234567890123456789012"),
        };
        let picture = Picture {
            role: "thumbnail".into(),
            uri: "file:///x/y.jpg".into(),
            sha256: String::new(),
            media_type: "image/jpeg".into(),
            width: 16,
            height: 8,
            expires_at: None,
            data: Bytes::new(),
            inline: false,
            flicker: None,
        };
        let value = pack(&Painting {
            picture,
            latents: latents.clone(),
        })
        .expect("it packs");
        let (cached, found) = unpack(&value).expect("it parses");
        assert_eq!(
            (&*cached.uri, cached.width, cached.height, found),
            ("file:///x/y.jpg", 16, 8, latents)
        );
        assert!(
            unpack(&value.slice(..value.len() - 1)).is_err()
                && unpack(&Bytes::from_static(b"{}")).is_err()
        );
    }
}
