//! TorchScript modules as a worker's model: a frame in, the declared output out. What is declared
//! travels with the frame, so that stages that share a module may ask for different outputs.

use std::sync::Arc;

use tch::Tensor;

use super::{Encoded, grey, in_groups, rows, shape};
use crate::error::{Error, Result};
use crate::inference::Model;
use crate::models::torchscript::{Declared, TorchScript};
use crate::packet::Frame;
use crate::tensor::frames_to_tensor;

/// A module, and what its config.json declares.
pub(in crate::inference) struct ScriptModule(pub TorchScript, pub Declared);

/// A frame, in a window of one, and what the module takes and gives.
pub(in crate::inference) struct ScriptInput {
    pub frame: Vec<Arc<Frame>>,
    pub declared: Arc<Declared>,
}

impl Model for ScriptModule {
    type Item = ScriptInput;
    type Answer = Encoded;

    fn run(
        &mut self,
        items: &[&ScriptInput],
        _cancelled: &dyn Fn(usize) -> bool,
    ) -> Result<Vec<Result<Encoded>>> {
        let mut answers: Vec<Result<Encoded>> = items
            .iter()
            .map(|_| Err(Error::bug("a frame is missing from its batch")))
            .collect();
        let mut left: Vec<usize> = (0..items.len()).collect();
        while let Some(&first) = left.first() {
            let declared = &items[first].declared;
            let (alike, others): (Vec<usize>, Vec<usize>) = left
                .into_iter()
                .partition(|&at| items[at].declared == *declared);
            let frames: Vec<&Vec<Arc<Frame>>> = alike.iter().map(|&at| &items[at].frame).collect();
            let encoded = in_groups(
                &frames,
                |frame| frame.len(),
                |group, _| {
                    let frames: Vec<&Frame> = group
                        .iter()
                        .flat_map(|item| item.iter())
                        .map(Arc::as_ref)
                        .collect();
                    let given = self
                        .0
                        .forward(&frames_to_tensor(&frames, self.0.device())?, declared)?;
                    Ok(rows(&given)?
                        .into_iter()
                        .map(|vector| Encoded {
                            vector,
                            probabilities: Vec::new(),
                        })
                        .collect())
                },
            )?;
            for (at, answer) in alike.into_iter().zip(encoded) {
                answers[at] = answer;
            }
            left = others;
        }
        Ok(answers)
    }

    fn warm_up(&mut self) -> Result<()> {
        // Where frames are taken as they come, nobody knows yet how.
        let Some([height, width]) = self.1.size else {
            return Ok(());
        };
        let frame = Tensor::f_zeros([1, height, width, 3], (tch::Kind::Uint8, self.0.device()))?;
        self.0.forward(&frame, &self.1).map(drop)
    }

    fn sample(&self) -> Option<Self::Item> {
        let [height, width] = self.1.size?;
        Some(ScriptInput {
            frame: grey(1, width as u32, height as u32),
            declared: Arc::new(self.1.clone()),
        })
    }

    fn shape(item: &Self::Item) -> String {
        shape(&item.frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::ModelFolder;
    use crate::models::torchscript::Output;
    use crate::packet::PixelFormat;
    use crate::tensor::{Device, Precision};

    #[test]
    fn frames_of_all_sizes_and_declarations_are_answered_in_their_order() {
        let path =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/torchscript-named");
        let folder = ModelFolder::open(path).unwrap();
        let own = Declared::read(folder.config()).unwrap();
        let mut model = ScriptModule(
            TorchScript::load(&folder, Device::Cpu, Precision::F32).unwrap(),
            own.clone(),
        );
        model.warm_up().unwrap();
        let grid = Declared {
            output: Output::parse("grid"),
            size: None,
            ..own.clone()
        };
        let call = |declared: &Declared, width: u32, height: u32| {
            let pixels: Vec<u8> = (0..width * height * 3)
                .map(|at| (at * 7 % 251) as u8)
                .collect();
            let (view, format) = ("frames".into(), PixelFormat::Rgb8);
            let frame = Frame {
                view,
                index: 0,
                width,
                height,
                stride: width * 3,
                format,
                pixels: pixels.into(),
            };
            ScriptInput {
                frame: vec![Arc::new(frame)],
                declared: Arc::new(declared.clone()),
            }
        };
        let calls = [
            call(&own, 12, 16),
            call(&grid, 12, 16),
            call(&own, 30, 20),
            call(&grid, 9, 9),
            call(&grid, 12, 16),
        ];
        let answers = model
            .run(&calls.iter().collect::<Vec<_>>(), &|_| false)
            .unwrap();
        let lengths: Vec<usize> = answers
            .iter()
            .map(|answer| answer.as_ref().unwrap().vector.len())
            .collect();
        assert_eq!(lengths, [4, 6 * 7 * 5, 4, 6 * 4 * 4, 6 * 7 * 5]);
        for (call, answer) in calls.iter().zip(&answers) {
            let alone = model.run(&[call], &|_| false).unwrap();
            let pairs = answer
                .as_ref()
                .unwrap()
                .vector
                .iter()
                .zip(&alone[0].as_ref().unwrap().vector);
            assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-5));
        }
    }
}
