//! Each network as a worker's model: items become batches, batches become answers.

pub(super) mod captioner;

use std::collections::BTreeMap;
use std::sync::Arc;

use tch::Tensor;

use super::Model;
use crate::error::{Error, Result};
use crate::models::opus_encoder::OpusEncoder;
use crate::models::resnet::{ResNet, SIZE};
use crate::models::scenes::WINDOW;
use crate::models::transnetv2::{HEIGHT, TransNetV2, WIDTH};
use crate::packet::Frame;
use crate::tensor::{Device, frames_to_tensor};

/// What an encoder answers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Encoded {
    /// The vector.
    pub vector: Vec<f32>,
    /// The probability of every class; empty where the model has none.
    pub probabilities: Vec<f32>,
}

/// TransNetV2: a window of frames in, the probability of a cut at each out.
pub(super) struct Shots(pub TransNetV2);

impl Model for Shots {
    type Item = Vec<Arc<Frame>>;
    type Answer = Vec<f32>;

    fn run(&mut self, items: &[&Vec<Arc<Frame>>], _cancelled: &dyn Fn(usize) -> bool) -> Result<Vec<Result<Vec<f32>>>> {
        if let Some(wrong) =
            items.iter().flat_map(|window| window.iter()).find(|frame| i64::from(frame.width) != WIDTH || i64::from(frame.height) != HEIGHT)
        {
            return Err(Error::model(format!("shots wants frames of {WIDTH}x{HEIGHT}, got {}x{}", wrong.width, wrong.height))
                .hint("give the stage a view with `size: 48x27`"));
        }
        let frames: Vec<&Frame> = items.iter().flat_map(|window| window.iter()).map(Arc::as_ref).collect();
        let batch = frames_to_tensor(&frames, self.0.device())?;
        let windows = batch.f_view([items.len() as i64, WINDOW as i64, HEIGHT, WIDTH, 3])?;
        Ok(self.0.predict(&windows)?.into_iter().map(|predictions| Ok(predictions.single)).collect())
    }

    fn warm_up(&mut self) -> Result<()> {
        let window = Tensor::f_zeros([1, WINDOW as i64, HEIGHT, WIDTH, 3], (tch::Kind::Uint8, self.0.device()))?;
        self.0.predict(&window).map(drop)
    }
}

/// ResNet: a frame in, its vector and class probabilities out.
pub(super) struct Frames(pub ResNet);

impl Model for Frames {
    type Item = Vec<Arc<Frame>>;
    type Answer = Encoded;

    fn run(&mut self, items: &[&Vec<Arc<Frame>>], _cancelled: &dyn Fn(usize) -> bool) -> Result<Vec<Result<Encoded>>> {
        in_groups(
            items,
            |frame| frame.len(),
            |group, _| {
                let frames: Vec<&Frame> = group.iter().flat_map(|item| item.iter()).map(Arc::as_ref).collect();
                let batch = frames_to_tensor(&frames, self.0.device())?;
                let fits = frames.iter().all(|frame| i64::from(frame.width) == SIZE && i64::from(frame.height) == SIZE);
                let features = if fits { self.0.forward(&batch)? } else { self.0.forward_resized(&batch)? };
                let (vectors, probabilities) = (rows(&features.embedding)?, rows(&features.probabilities)?);
                Ok(vectors.into_iter().zip(probabilities).map(|(vector, probabilities)| Encoded { vector, probabilities }).collect())
            },
        )
    }

    fn warm_up(&mut self) -> Result<()> {
        let frame = Tensor::f_zeros([1, SIZE, SIZE, 3], (tch::Kind::Uint8, self.0.device()))?;
        self.0.forward(&frame).map(drop)
    }
}

/// The Opus encoder: a window of frames in, its vector out.
pub(super) struct Clips(pub OpusEncoder);

impl Model for Clips {
    type Item = Vec<Arc<Frame>>;
    type Answer = Encoded;

    fn run(&mut self, items: &[&Vec<Arc<Frame>>], _cancelled: &dyn Fn(usize) -> bool) -> Result<Vec<Result<Encoded>>> {
        in_groups(
            items,
            |clip| clip.len(),
            |group, length| {
                let frames: Vec<&Frame> = group.iter().flat_map(|item| item.iter()).map(Arc::as_ref).collect();
                let batch = frames_to_tensor(&frames, self.0.device())?;
                let size = batch.size();
                let clips = batch.f_view([group.len() as i64, length as i64, size[1], size[2], 3])?;
                let vectors = rows(&self.0.forward(&clips)?)?;
                Ok(vectors.into_iter().map(|vector| Encoded { vector, probabilities: Vec::new() }).collect())
            },
        )
    }

    fn warm_up(&mut self) -> Result<()> {
        let clip = Tensor::f_zeros([1, 2, SIZE, SIZE, 3], (tch::Kind::Uint8, self.0.device()))?;
        self.0.forward(&clip).map(drop)
    }
}

/// Runs items of equal shape together: equal picture sizes, and equal `length`.
fn in_groups(
    items: &[&Vec<Arc<Frame>>],
    length: impl Fn(&Vec<Arc<Frame>>) -> usize,
    mut run: impl FnMut(&[&Vec<Arc<Frame>>], usize) -> Result<Vec<Encoded>>,
) -> Result<Vec<Result<Encoded>>> {
    let mut groups: BTreeMap<(usize, u32, u32), Vec<usize>> = BTreeMap::new();
    for (at, item) in items.iter().enumerate() {
        let (width, height) = item.first().map_or((0, 0), |frame| (frame.width, frame.height));
        groups.entry((length(item), width, height)).or_default().push(at);
    }
    let mut answers: Vec<Result<Encoded>> = items.iter().map(|_| Err(Error::bug("an item was left out of its batch"))).collect();
    for ((length, ..), places) in groups {
        let group: Vec<&Vec<Arc<Frame>>> = places.iter().map(|&at| items[at]).collect();
        for (at, encoded) in places.into_iter().zip(run(&group, length)?) {
            answers[at] = Ok(encoded);
        }
    }
    Ok(answers)
}

fn rows(tensor: &Tensor) -> Result<Vec<Vec<f32>>> {
    Ok(Vec::try_from(tensor.f_to_device(Device::Cpu)?.f_to_kind(tch::Kind::Float)?)?)
}
