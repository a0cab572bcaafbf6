//! Encoders of pictures as a worker's model: a frame becomes its vector, and texts vectors of the
//! same space where the network knows texts.

use std::sync::Arc;

use tch::Tensor;

use super::{Encoded, grey, in_groups, rows, shape};
use crate::error::{Error, Result};
use crate::inference::Model;
use crate::models::picture_encoder::{PictureEncoder, Scoring};
use crate::models::{ModelFolder, networks};
use crate::packet::Frame;
use crate::tensor::{Device, Precision, frames_to_tensor};

/// A network that makes vectors of pictures.
pub(in crate::inference) struct FrameEncoder(Box<dyn PictureEncoder>);

/// What it is asked.
pub(in crate::inference) enum EncoderInput {
    /// A frame, in a window of one.
    Frames(Vec<Arc<Frame>>),
    /// Texts.
    Texts(Vec<String>),
}

/// What it answers.
#[derive(Debug)]
pub(in crate::inference) enum EncoderOutput {
    /// Of a frame.
    Frame(Encoded),
    /// Of texts: a vector of length 1 each, and how they are scored.
    Texts(Vec<Vec<f32>>, Scoring),
}

impl FrameEncoder {
    /// The network of a folder, whichever of the encoders of frames it is.
    pub fn open(folder: &ModelFolder, device: Device, precision: Precision) -> Result<Self> {
        let spec = networks::frame_encoder(folder)?;
        (spec.load)(folder, device, precision).map(Self)
    }
}

impl Model for FrameEncoder {
    type Item = EncoderInput;
    type Answer = EncoderOutput;

    fn run(
        &mut self,
        items: &[&EncoderInput],
        _cancelled: &dyn Fn(usize) -> bool,
    ) -> Result<Vec<Result<EncoderOutput>>> {
        let frames: Vec<&Vec<Arc<Frame>>> = items
            .iter()
            .filter_map(|item| {
                if let EncoderInput::Frames(frames) = item {
                    Some(frames)
                } else {
                    None
                }
            })
            .collect();
        let encoded = in_groups(
            &frames,
            |frame| frame.len(),
            |group, _| {
                let frames: Vec<&Frame> = group
                    .iter()
                    .flat_map(|item| item.iter())
                    .map(Arc::as_ref)
                    .collect();
                let features = self
                    .0
                    .encode(&frames_to_tensor(&frames, self.0.device())?)?;
                let vectors = rows(&features.embedding)?;
                let Some(probabilities) = features.probabilities else {
                    return Ok(vectors
                        .into_iter()
                        .map(|vector| Encoded {
                            vector,
                            probabilities: Vec::new(),
                        })
                        .collect());
                };
                let both = vectors.into_iter().zip(rows(&probabilities)?);
                Ok(both
                    .map(|(vector, probabilities)| Encoded {
                        vector,
                        probabilities,
                    })
                    .collect())
            },
        )?;
        let mut encoded = encoded.into_iter();
        let answer = |item: &&EncoderInput| match item {
            EncoderInput::Frames(_) => encoded
                .next()
                .unwrap_or_else(|| Err(Error::bug("a frame is missing from its batch")))
                .map(EncoderOutput::Frame),
            EncoderInput::Texts(texts) => {
                let texts = self.0.texts(texts)?;
                Ok(EncoderOutput::Texts(rows(&texts.vectors)?, texts.scoring))
            }
        };
        Ok(items.iter().map(answer).collect())
    }

    fn warm_up(&mut self) -> Result<()> {
        let [height, width] = self.0.size();
        let frame = Tensor::f_zeros([1, height, width, 3], (tch::Kind::Uint8, self.0.device()))?;
        self.0.encode(&frame).map(drop)
    }

    fn sample(&self) -> Option<Self::Item> {
        let [height, width] = self.0.size();
        Some(EncoderInput::Frames(grey(1, width as u32, height as u32)))
    }

    fn shape(item: &Self::Item) -> String {
        match item {
            EncoderInput::Frames(frames) => shape(frames),
            EncoderInput::Texts(texts) => format!("{} texts", texts.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::inference::ZeroShot;
    use crate::packet::PixelFormat;

    fn golden(name: &str) -> std::path::PathBuf {
        std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden")
            .join(name)
    }

    fn open(name: &str) -> FrameEncoder {
        FrameEncoder::open(
            &ModelFolder::open(golden(name)).unwrap(),
            Device::Cpu,
            Precision::F32,
        )
        .unwrap()
    }

    /// Stripes.
    fn frame(width: u32, height: u32) -> EncoderInput {
        let pixels: Vec<u8> = (0..width * height * 3)
            .map(|at| (at * 7 % 251) as u8)
            .collect();
        let frame = Frame {
            view: "frames".into(),
            index: 0,
            width,
            height,
            stride: width * 3,
            format: PixelFormat::Rgb8,
            pixels: pixels.into(),
        };
        EncoderInput::Frames(vec![Arc::new(frame)])
    }

    fn vector(outputs: &Result<EncoderOutput>) -> &[f32] {
        match outputs {
            Ok(EncoderOutput::Frame(encoded)) => &encoded.vector,
            other => panic!("no frame: {other:?}"),
        }
    }

    #[test]
    fn frames_of_all_sizes_and_texts_are_answered_in_one_batch_in_their_order() {
        let mut model = open("clip-tiny");
        model.warm_up().unwrap();
        let texts = ["a photo of a cat", "a photo of a street"]
            .map(str::to_owned)
            .to_vec();
        let items = [
            frame(28, 28),
            EncoderInput::Texts(texts),
            frame(61, 37),
            frame(28, 28),
        ];
        let outputs = model
            .run(&items.iter().collect::<Vec<_>>(), &|_| false)
            .unwrap();
        for (at, item) in items.iter().enumerate().filter(|(at, _)| *at != 1) {
            let alone = model.run(&[item], &|_| false).unwrap();
            let apart = vector(&outputs[at])
                .iter()
                .zip(vector(&alone[0]))
                .map(|(a, b)| (a - b).abs())
                .fold(0., f32::max);
            assert!(apart < 1e-5, "{at}: {apart}");
            assert!(
                (vector(&outputs[at]).iter().map(|v| v * v).sum::<f32>() - 1.).abs() < 1e-5,
                "its length is 1"
            );
        }
        let Ok(EncoderOutput::Texts(vectors, scoring)) = &outputs[1] else {
            panic!("{:?}", outputs[1])
        };
        let labels = ZeroShot::new(
            ["cat", "street"].map(Arc::from).into(),
            vectors.clone(),
            *scoring,
        );
        let scores = labels.scores(vector(&outputs[0]));
        assert!(
            (scores.iter().sum::<f32>() - 1.).abs() < 1e-5 && scores[0] != scores[1],
            "{scores:?}"
        );
    }

    #[test]
    fn texts_for_a_network_of_pictures_alone_fail_and_frames_beside_them_do_not() {
        let folder = tempfile::tempdir().unwrap();
        for file in [
            "config.json",
            "model.safetensors",
            "preprocessor_config.json",
        ] {
            std::fs::copy(golden("siglip-tiny").join(file), folder.path().join(file)).unwrap();
        }
        let model = FrameEncoder::open(
            &ModelFolder::open(folder.path()).unwrap(),
            Device::Cpu,
            Precision::F32,
        );
        let items = [EncoderInput::Texts(vec!["a cat".to_owned()]), frame(28, 28)];
        let outputs = model
            .unwrap()
            .run(&items.iter().collect::<Vec<_>>(), &|_| false)
            .unwrap();
        let error = outputs[0].as_ref().unwrap_err();
        assert_eq!(
            (error.kind(), error.message().contains("no tokenizer.json")),
            (Kind::Config, true),
            "{error}"
        );
        assert_eq!(vector(&outputs[1]).len(), 32);
    }

    #[test]
    fn classes_are_known_without_the_weights() {
        let folder = tempfile::tempdir().unwrap();
        let write = |config: &str| {
            std::fs::write(folder.path().join("config.json"), config).unwrap();
            std::fs::write(folder.path().join("model.safetensors"), "").unwrap();
            let folder = ModelFolder::open(folder.path()).unwrap();
            let spec = networks::frame_encoder(&folder).unwrap();
            (spec.class_names)(&folder)
                .unwrap()
                .map(|names| names.len())
        };
        assert_eq!(write(r#"{"architectures": ["CLIPModel"]}"#), None);
        assert_eq!(write(r#"{"architectures": ["Dinov2Model"]}"#), None);
        assert_eq!(
            write(
                r#"{"architectures": ["Dinov2ForImageClassification"], "id2label": {"0": "a", "1": "b", "2": "c"}}"#
            ),
            Some(3)
        );
    }
}
