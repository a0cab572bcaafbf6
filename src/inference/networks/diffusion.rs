//! A diffusion pipeline as a worker's model: prompts and frames in, pictures out. What goes
//! together is painted in one batch.

use std::sync::Arc;

use bytes::Bytes;
use tch::{Kind, Tensor};

use super::Model;
use crate::error::{Error, Result};
use crate::models::diffusion::pipeline::{
    DiffusionRequest, GeneratedPicture, Pipeline, Source, Start,
};
use crate::packet::{Frame, PixelFormat};
use crate::tensor::{Device, frames_to_tensor};

/// A picture that is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct PictureRequest {
    /// What it shows.
    pub prompt: String,
    /// What it does not show; none is what the family was trained with.
    pub negative_prompt: Option<String>,
    /// Width and height, multiples of 8 for the models that there are. None is the frame's own
    /// size, cut down to such multiples, or without a frame the size that the model was trained on.
    pub size: Option<(u32, u32)>,
    /// Steps from noise to a picture.
    pub steps: u32,
    /// How much more the prompt counts than the negative prompt; 1 or less costs half, and is what
    /// turbo models want.
    pub guidance: f64,
    /// What its noise begins from.
    pub seed: u64,
    /// The frame that it is made from; none for noise alone.
    pub from: Option<FromFrame>,
}

/// What a picture is made from.
#[derive(Debug, Clone)]
pub struct FromFrame {
    /// The frame.
    pub frame: Arc<Frame>,
    /// Above 0, at most 1: how much of it becomes noise.
    pub strength: f64,
    /// The latents of the picture before, and the part that they have in this one's. They are
    /// passed over where they are of another size.
    pub previous: Option<(Latents, f64)>,
}

impl PartialEq for FromFrame {
    fn eq(&self, other: &Self) -> bool {
        let pixels = |from: &Self| {
            (
                from.frame.width,
                from.frame.height,
                from.frame.stride,
                from.frame.pixels.clone(),
            )
        };
        pixels(self) == pixels(other)
            && self.strength == other.strength
            && self.previous == other.previous
    }
}

/// A picture in the numbers that it was painted in.
#[derive(Debug, Clone, PartialEq)]
pub struct Latents {
    /// Channels, rows, columns.
    pub shape: [u32; 3],
    /// f32, little-endian.
    pub values: Bytes,
}

/// A picture that was painted.
#[derive(Debug, Clone)]
pub struct Painted {
    /// Its pixels, as a frame of no view.
    pub frame: Arc<Frame>,
    /// Its latents, for the picture after it.
    pub latents: Latents,
}

/// A pipeline of the Stable Diffusion family.
pub(in crate::inference) struct DiffusionNetwork(pub Pipeline);

impl Model for DiffusionNetwork {
    type Item = PictureRequest;
    type Answer = Painted;

    fn run(
        &mut self,
        items: &[&PictureRequest],
        cancelled: &dyn Fn(usize) -> bool,
    ) -> Result<Vec<Result<Painted>>> {
        // A frame that cannot be read must not fail its neighbours.
        let requests: Vec<Result<DiffusionRequest>> =
            items.iter().map(|item| self.request(item)).collect();
        let good: Vec<usize> = (0..items.len())
            .filter(|&at| requests[at].is_ok())
            .collect();
        let asked: Vec<&DiffusionRequest> = requests
            .iter()
            .filter_map(|request| request.as_ref().ok())
            .collect();
        let mut painted = self
            .0
            .generate(&asked, &|at| cancelled(good[at]))?
            .into_iter();
        let answer = |request: Result<DiffusionRequest>| {
            let painting = request.and_then(|_| {
                painted
                    .next()
                    .ok_or_else(|| Error::bug("a picture is missing from its batch"))?
            });
            painting.and_then(|painting| Painted::of(&painting))
        };
        Ok(requests.into_iter().map(answer).collect())
    }

    fn warm_up(&mut self) -> Result<()> {
        let side = 8 * self.0.factor() as u32;
        let item = PictureRequest {
            size: Some((side, side)),
            steps: 1,
            ..self.own()
        };
        self.run(&[&item], &|_| false)?
            .into_iter()
            .try_for_each(|answer| answer.map(drop))
    }

    fn sample(&self) -> Option<PictureRequest> {
        Some(self.own())
    }

    fn shape(item: &PictureRequest) -> String {
        let (width, height) = item
            .size
            .or(item
                .from
                .as_ref()
                .map(|from| (from.frame.width, from.frame.height)))
            .unwrap_or_default();
        let questions = if item.guidance > 1. {
            "guided"
        } else {
            "unguided"
        };
        format!(
            "{width}x{height}, {} {questions} steps from {}",
            item.steps,
            if item.from.is_some() {
                "a frame"
            } else {
                "noise"
            }
        )
    }

    fn out_of_memory(&mut self) {
        self.0.clear_prompt_cache();
    }
}

impl DiffusionNetwork {
    /// A picture of the size that the model was trained on.
    fn own(&self) -> PictureRequest {
        let side = self.0.size() as u32;
        let prompt = "a harbour with boats under a grey sky".to_owned();
        PictureRequest {
            prompt,
            negative_prompt: None,
            size: Some((side, side)),
            steps: 4,
            guidance: 7.5,
            seed: 0,
            from: None,
        }
    }

    fn request(&self, item: &PictureRequest) -> Result<DiffusionRequest> {
        let factor = self.0.factor();
        let cut = |side: u32| i64::from(side) / factor * factor;
        let own = || match &item.from {
            Some(from) => (cut(from.frame.width), cut(from.frame.height)),
            None => (self.0.size(), self.0.size()),
        };
        let (width, height) = item
            .size
            .map_or_else(own, |(width, height)| (i64::from(width), i64::from(height)));
        let start = match &item.from {
            None => Start::Noise,
            Some(from) => {
                let pixels = frames_to_tensor(&[&from.frame], Device::Cpu)?.f_squeeze_dim(0)?;
                let rows = [height, width].map(|side| (side / factor) as u32);
                let previous = from
                    .previous
                    .as_ref()
                    .filter(|(latents, _)| latents.shape[1..] == rows);
                let previous = previous
                    .map(|(latents, part)| latents.tensor().map(|tensor| (tensor, *part)))
                    .transpose()?;
                Start::Picture(Source {
                    pixels,
                    strength: from.strength,
                    previous,
                })
            }
        };
        let (prompt, negative_prompt) = (item.prompt.clone(), item.negative_prompt.clone());
        Ok(DiffusionRequest {
            prompt,
            negative_prompt,
            width,
            height,
            steps: item.steps as usize,
            guidance: item.guidance,
            seed: item.seed,
            start,
        })
    }
}

impl Painted {
    fn of(painting: &GeneratedPicture) -> Result<Self> {
        let (height, width, _) = painting.pixels.size3()?;
        let (width, height) = (width as u32, height as u32);
        let (format, pixels) = (PixelFormat::Rgb8, bytes_of(&painting.pixels, 1)?);
        let frame = Frame {
            view: "painted".into(),
            index: 0,
            width,
            height,
            stride: width * 3,
            format,
            pixels,
        };
        let (channels, rows, columns) = painting.latents.size3()?;
        let shape = [channels, rows, columns].map(|size| size as u32);
        Ok(Self {
            frame: Arc::new(frame),
            latents: Latents {
                shape,
                values: bytes_of(&painting.latents, 4)?,
            },
        })
    }
}

impl Latents {
    fn tensor(&self) -> Result<Tensor> {
        Ok(Tensor::f_from_data_size(
            &self.values,
            &self.shape.map(i64::from),
            Kind::Float,
        )?)
    }
}

/// The memory of a tensor whose numbers have `width` bytes.
fn bytes_of(tensor: &Tensor, width: usize) -> Result<Bytes> {
    let tensor = tensor.f_contiguous()?;
    let mut bytes = vec![0; tensor.numel() * width];
    tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::ModelFolder;
    use crate::models::diffusion::pipeline::DiffusionOptions;
    use crate::tensor::Precision;
    use std::path::Path;

    fn painter() -> DiffusionNetwork {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sd-tiny");
        let pipeline = Pipeline::load(
            &ModelFolder::open(folder).unwrap(),
            Device::Cpu,
            Precision::F32,
            DiffusionOptions::default(),
        );
        DiffusionNetwork(pipeline.unwrap())
    }

    fn frame(width: u32, height: u32, level: u8) -> Arc<Frame> {
        let stride = width * 3 + 2;
        let pixels = vec![level; (stride * height) as usize].into();
        Arc::new(Frame {
            view: "v".into(),
            index: 0,
            width,
            height,
            stride,
            format: PixelFormat::Rgb8,
            pixels,
        })
    }

    fn from(frame: Arc<Frame>, previous: Option<(Latents, f64)>) -> PictureRequest {
        let from = Some(FromFrame {
            frame,
            strength: 0.5,
            previous,
        });
        PictureRequest {
            prompt: "a cat".into(),
            negative_prompt: None,
            size: None,
            steps: 2,
            guidance: 1.,
            seed: 3,
            from,
        }
    }

    #[test]
    fn sizes_are_the_frames_or_the_models_own() {
        let mut painter = painter();
        painter.warm_up().unwrap();
        let items = [
            from(frame(21, 12, 90), None),
            PictureRequest {
                from: None,
                ..from(frame(2, 2, 0), None)
            },
            painter.sample().unwrap(),
        ];
        let painted = painter
            .run(&items.iter().collect::<Vec<_>>(), &|_| false)
            .unwrap();
        let sizes: Vec<_> = painted
            .iter()
            .map(|painted| painted.as_ref().unwrap())
            .map(|one| (one.frame.width, one.frame.height))
            .collect();
        assert_eq!(sizes, [(20, 12), (16, 16), (16, 16)]);
        let first = painted[0].as_ref().unwrap();
        assert_eq!(
            (
                first.latents.shape,
                first.latents.values.len(),
                first.frame.pixels.len()
            ),
            ([4, 6, 10], 960, 720)
        );
    }

    #[test]
    fn one_that_cannot_be_painted_spoils_no_other() {
        let mut painter = painter();
        let short = Arc::new(Frame {
            pixels: Bytes::from_static(&[0; 9]),
            ..(*frame(16, 16, 0)).clone()
        });
        let items = [
            from(short, None),
            from(frame(16, 16, 9), None),
            PictureRequest {
                steps: 0,
                ..from(frame(16, 16, 9), None)
            },
        ];
        let painted = painter
            .run(&items.iter().collect::<Vec<_>>(), &|_| false)
            .unwrap();
        assert_eq!(
            painted.iter().map(Result::is_ok).collect::<Vec<_>>(),
            [false, true, false]
        );
    }

    #[test]
    fn latents_of_another_size_are_passed_over() {
        let mut painter = painter();
        let mut paint = |item: PictureRequest| {
            painter
                .run(&[&item], &|_| false)
                .unwrap()
                .remove(0)
                .unwrap()
        };
        let (large, small) = (
            paint(from(frame(24, 16, 200), None)).latents,
            paint(from(frame(16, 16, 200), None)).latents,
        );
        let alone = paint(from(frame(16, 16, 40), None));
        assert_eq!(
            paint(from(frame(16, 16, 40), Some((large, 0.5)))).latents,
            alone.latents
        );
        assert_ne!(
            paint(from(frame(16, 16, 40), Some((small, 0.5)))).latents,
            alone.latents
        );
    }
}
