//! What is remembered from frame to frame of a stream that is painted: what the last painted frame
//! looked like, its latents, and how much the paintings flicker.

use std::sync::Arc;

use super::painting::Painting;
use crate::inference::{FromFrame, Latents};
use crate::media;
use crate::models::diffusion::similarity::{Flicker, GLANCE, LOOK, Luma};
use crate::packet::Frame;
use crate::tensor::{Device, Kind, Tensor, frames_to_tensor, guard, resize};
use crate::{Error, Result};

/// The memory of a stretch of frames.
#[derive(Default)]
pub(super) struct Style {
    /// The last frame that was let through.
    seen: Option<Luma>,
    latents: Option<Latents>,
    flicker: Flicker,
}

impl Style {
    /// Whether a frame is less similar than `most` to the last one that was; then it takes that
    /// one's place.
    pub async fn is_new(&mut self, frame: &Arc<Frame>, most: f64) -> Result<bool> {
        let (frame, seen) = (Arc::clone(frame), self.seen.take());
        let (seen, new) = blocking(move || {
            let luma = Luma::of(&tensor(&frame)?, GLANCE)?;
            // A view that has changed its size is a new picture.
            let similar = |seen: &Luma| {
                luma.similarity(seen)
                    .is_ok_and(|similarity| similarity >= most)
            };
            Ok(match seen {
                Some(seen) if similar(&seen) => (seen, false),
                _ => (luma, true),
            })
        })
        .await?;
        self.seen = Some(seen);
        Ok(new)
    }

    /// How a frame is painted after those before it: `strength` of it becomes noise, and the last
    /// painted one has the part `previous` in its latents.
    pub fn follow(&self, frame: &Arc<Frame>, strength: f64, previous: f64) -> FromFrame {
        let before = self.latents.as_ref().filter(|_| previous > 0.0);
        FromFrame {
            frame: Arc::clone(frame),
            strength,
            previous: before.map(|latents| (latents.clone(), previous)),
        }
    }

    /// Remembers what was made of a frame: as it is seen, so after its encoding.
    pub async fn painted(&mut self, frame: &Arc<Frame>, painting: &Painting) -> Result<()> {
        self.latents = Some(painting.latents.clone());
        let (frame, data, mut flicker) = (
            Arc::clone(frame),
            painting.picture.data.clone(),
            std::mem::take(&mut self.flicker),
        );
        self.flicker = blocking(move || {
            let painted = tensor(&media::decode_picture(&data)?)?;
            let size = painted.size();
            let source = scaled(&tensor(&frame)?, size[0], size[1])?;
            flicker.push(Luma::of(&source, LOOK)?, Luma::of(&painted, LOOK)?)?;
            Ok(flicker)
        })
        .await?;
        Ok(())
    }

    /// The flicker of all that was painted, in levels of luma; none of a single picture.
    pub fn flicker(&mut self) -> Option<f32> {
        self.flicker.take().map(|flicker| flicker as f32)
    }

    /// The flicker from the picture before to the last one.
    pub fn flicker_since(&mut self) -> Option<f32> {
        self.flicker.since().map(|flicker| flicker as f32)
    }
}

/// Work with tensors and pixels, away from the threads that move packets.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(move || {
        let _frozen = guard();
        work()
    });
    done.await
        .map_err(|error| Error::bug(format!("comparing frames ended: {error}")))?
}

/// Bytes `[h, w, 3]`.
fn tensor(frame: &Frame) -> Result<Tensor> {
    Ok(frames_to_tensor(&[frame], Device::Cpu)?.f_squeeze_dim(0)?)
}

/// The frame at the size of what was painted of it.
fn scaled(frame: &Tensor, height: i64, width: i64) -> Result<Tensor> {
    if frame.size()[..2] == [height, width] {
        return Ok(frame.shallow_clone());
    }
    let planes = resize(
        &frame
            .f_permute([2, 0, 1])?
            .f_unsqueeze(0)?
            .f_to_kind(Kind::Float)?,
        height,
        width,
    )?;
    Ok(planes
        .f_squeeze_dim(0)?
        .f_permute([1, 2, 0])?
        .f_round()?
        .f_to_kind(Kind::Uint8)?)
}
