//! Each network as a worker's model: items become batches, batches become answers.

mod diffusion;
mod frames;
mod scripts;
pub(super) mod speech;
pub(super) mod text;

pub(super) use self::diffusion::DiffusionNetwork;
pub use self::diffusion::{FromFrame, Latents, Painted, PictureRequest};
pub(super) use self::frames::{EncoderInput, EncoderOutput, FrameEncoder};
pub(super) use self::scripts::{ScriptInput, ScriptModule};

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tch::Tensor;

use super::Model;
use crate::error::{Error, Result};
use crate::models::opus_encoder::OpusEncoder;
use crate::models::resnet::SIZE;
use crate::models::scenes::WINDOW;
use crate::models::transnetv2::{HEIGHT, TransNetV2, WIDTH};
use crate::packet::{Frame, PixelFormat};
use crate::tensor::{Device, frames_to_tensor};

/// Frames of the clip that batches of clips are measured with: the default of `encode`'s `window`.
const CLIP: usize = 30;

/// Tokens of the text that batches of texts are measured with.
const WRITTEN: u32 = 16;

/// What an encoder answers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Encoded {
    /// The vector.
    pub vector: Vec<f32>,
    /// The probability of every class; empty where the model has none.
    pub probabilities: Vec<f32>,
}

impl Encoded {
    /// As a cache keeps it: the vector's length as a little-endian u32, then all numbers as f32.
    pub fn to_bytes(&self) -> Bytes {
        let numbers = self
            .vector
            .iter()
            .chain(&self.probabilities)
            .flat_map(|v| v.to_le_bytes());
        (self.vector.len() as u32)
            .to_le_bytes()
            .into_iter()
            .chain(numbers)
            .collect()
    }

    /// From what [`to_bytes`](Self::to_bytes) made; None from anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (length, numbers) = bytes.split_first_chunk::<4>()?;
        let mut vector: Vec<f32> = numbers
            .chunks_exact(4)
            .map(|v| f32::from_le_bytes([v[0], v[1], v[2], v[3]]))
            .collect();
        let length = u32::from_le_bytes(*length) as usize;
        (length <= vector.len()).then(|| {
            let probabilities = vector.split_off(length);
            Self {
                vector,
                probabilities,
            }
        })
    }
}

/// TransNetV2: a window of frames in, the probability of a cut at each out.
pub(super) struct ShotDetector(pub TransNetV2);

impl Model for ShotDetector {
    type Item = Vec<Arc<Frame>>;
    type Answer = Vec<f32>;

    fn run(
        &mut self,
        items: &[&Vec<Arc<Frame>>],
        _cancelled: &dyn Fn(usize) -> bool,
    ) -> Result<Vec<Result<Vec<f32>>>> {
        if let Some(wrong) = items
            .iter()
            .flat_map(|window| window.iter())
            .find(|frame| i64::from(frame.width) != WIDTH || i64::from(frame.height) != HEIGHT)
        {
            return Err(Error::model(format!(
                "shots wants frames of {WIDTH}x{HEIGHT}, got {}x{}",
                wrong.width, wrong.height
            ))
            .hint("give the stage a view with `size: 48x27`"));
        }
        let frames: Vec<&Frame> = items
            .iter()
            .flat_map(|window| window.iter())
            .map(Arc::as_ref)
            .collect();
        let batch = frames_to_tensor(&frames, self.0.device())?;
        let windows = batch.f_view([items.len() as i64, WINDOW as i64, HEIGHT, WIDTH, 3])?;
        Ok(self
            .0
            .predict(&windows)?
            .into_iter()
            .map(|predictions| Ok(predictions.single))
            .collect())
    }

    fn warm_up(&mut self) -> Result<()> {
        let window = Tensor::f_zeros(
            [1, WINDOW as i64, HEIGHT, WIDTH, 3],
            (tch::Kind::Uint8, self.0.device()),
        )?;
        self.0.predict(&window).map(drop)
    }

    fn sample(&self) -> Option<Self::Item> {
        Some(grey(WINDOW, WIDTH as u32, HEIGHT as u32))
    }

    fn shape(item: &Self::Item) -> String {
        shape(item)
    }
}

/// The Opus encoder: a window of frames in, its vector out.
pub(super) struct ClipEncoder(pub OpusEncoder);

impl Model for ClipEncoder {
    type Item = Vec<Arc<Frame>>;
    type Answer = Encoded;

    fn run(
        &mut self,
        items: &[&Vec<Arc<Frame>>],
        _cancelled: &dyn Fn(usize) -> bool,
    ) -> Result<Vec<Result<Encoded>>> {
        in_groups(
            items,
            |clip| clip.len(),
            |group, length| {
                let frames: Vec<&Frame> = group
                    .iter()
                    .flat_map(|item| item.iter())
                    .map(Arc::as_ref)
                    .collect();
                let batch = frames_to_tensor(&frames, self.0.device())?;
                let size = batch.size();
                let clips =
                    batch.f_view([group.len() as i64, length as i64, size[1], size[2], 3])?;
                let vectors = rows(&self.0.forward(&clips)?)?;
                Ok(vectors
                    .into_iter()
                    .map(|vector| Encoded {
                        vector,
                        probabilities: Vec::new(),
                    })
                    .collect())
            },
        )
    }

    fn warm_up(&mut self) -> Result<()> {
        let clip = Tensor::f_zeros([1, 2, SIZE, SIZE, 3], (tch::Kind::Uint8, self.0.device()))?;
        self.0.forward(&clip).map(drop)
    }

    fn sample(&self) -> Option<Self::Item> {
        Some(grey(CLIP, SIZE as u32, SIZE as u32))
    }

    fn shape(item: &Self::Item) -> String {
        shape(item)
    }
}

/// A window of grey frames.
fn grey(frames: usize, width: u32, height: u32) -> Vec<Arc<Frame>> {
    let format = PixelFormat::Rgb8;
    let stride = width * format.bytes_per_pixel() as u32;
    let pixels = Bytes::from(vec![128; (stride * height) as usize]);
    let frame = |index| Frame {
        view: "sample".into(),
        index,
        width,
        height,
        stride,
        format,
        pixels: pixels.clone(),
    };
    (0..frames as u64)
        .map(|index| Arc::new(frame(index)))
        .collect()
}

fn shape(frames: &[Arc<Frame>]) -> String {
    let (width, height) = frames
        .first()
        .map_or((0, 0), |frame| (frame.width, frame.height));
    format!("{} frames of {width}x{height}", frames.len())
}

/// Runs items of equal shape together: equal picture sizes, and equal `length`.
fn in_groups(
    items: &[&Vec<Arc<Frame>>],
    length: impl Fn(&Vec<Arc<Frame>>) -> usize,
    mut run: impl FnMut(&[&Vec<Arc<Frame>>], usize) -> Result<Vec<Encoded>>,
) -> Result<Vec<Result<Encoded>>> {
    let mut groups: BTreeMap<(usize, u32, u32), Vec<usize>> = BTreeMap::new();
    for (at, item) in items.iter().enumerate() {
        let (width, height) = item
            .first()
            .map_or((0, 0), |frame| (frame.width, frame.height));
        groups
            .entry((length(item), width, height))
            .or_default()
            .push(at);
    }
    let mut answers: Vec<Result<Encoded>> = items
        .iter()
        .map(|_| Err(Error::bug("an item was left out of its batch")))
        .collect();
    for ((length, ..), places) in groups {
        let group: Vec<&Vec<Arc<Frame>>> = places.iter().map(|&at| items[at]).collect();
        for (at, encoded) in places.into_iter().zip(run(&group, length)?) {
            answers[at] = Ok(encoded);
        }
    }
    Ok(answers)
}

fn rows(tensor: &Tensor) -> Result<Vec<Vec<f32>>> {
    Ok(Vec::try_from(
        tensor
            .f_to_device(Device::Cpu)?
            .f_to_kind(tch::Kind::Float)?,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoding_survives_the_cache() {
        let encoded = Encoded {
            vector: vec![1.5, -2.0],
            probabilities: vec![0.25, 0.75, 0.0],
        };
        assert_eq!(
            Encoded::from_bytes(&encoded.to_bytes()).expect("it parses"),
            encoded
        );
        assert!(Encoded::from_bytes(&[9, 0, 0, 0, 1, 2, 3, 4]).is_none());
        assert!(Encoded::from_bytes(&[1]).is_none());
    }
}
