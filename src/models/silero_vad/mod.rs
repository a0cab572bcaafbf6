//! Silero VAD 6 at 16 kHz, which says of every 32 ms of sound how likely somebody speaks: a
//! short-time Fourier transform by convolution, four convolutions, an LSTM that remembers. After
//! the network that the package silero-vad 6.2.3 runs.

mod spans;

pub use spans::{Spans, SpansSettings};

use crate::error::{Error, Result};
use crate::models::layers::{Conv1d, ConvConfig};
use crate::models::network_spec::{Load, NetworkSpec, NetworkTask};
use crate::models::{ModelFolder, Weights};
use crate::tensor::{Device, Precision, Tensor, guard};

/// Its entry in the table of networks.
pub const NETWORK: NetworkSpec = NetworkSpec {
    classes: &[("SileroVad", NetworkTask::DetectSpeech)],
    load: Load::Checked(|folder, device, _| SileroVad::load(folder, device).map(drop)),
};

/// Samples that one probability is about: 32 ms.
pub const CHUNK: usize = 512;
/// Samples before a chunk that are heard with it.
const CONTEXT: usize = 64;
/// Frequencies of the transform.
const BINS: i64 = 129;
/// Samples from one of its windows to the next; half of it is mirrored at the end.
const STRIDE: i64 = 128;
/// Width of the LSTM.
const WIDTH: i64 = 128;

/// The network. It is small and decides, so it computes in f32.
#[derive(Debug)]
pub struct SileroVad {
    transform: Tensor,
    convolutions: [Conv1d; 4],
    /// Of the input and of what is remembered, then their biases.
    lstm: [Tensor; 4],
    head: Tensor,
    bias: Tensor,
    device: Device,
}

/// What it remembers of a stream's sound so far; by default nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct VadState {
    context: Vec<f32>,
    hidden: Vec<f32>,
    cell: Vec<f32>,
}

impl Default for VadState {
    fn default() -> Self {
        Self {
            context: vec![0.; CONTEXT],
            hidden: vec![0.; WIDTH as usize],
            cell: vec![0.; WIDTH as usize],
        }
    }
}

impl SileroVad {
    /// Reads a model folder.
    ///
    /// # Errors
    /// Config, where the folder is another network's; model, where the weights do not fit;
    /// external, where they cannot be read.
    pub fn load(folder: &ModelFolder, device: Device) -> Result<Self> {
        NETWORK.expect(folder)?;
        Self::build(folder.weights(device, Precision::F32)?)
    }

    fn build(weights: Weights) -> Result<Self> {
        let _frozen = guard();
        let root = weights.root();
        let convolution = |name: &str, input, output, stride| {
            Conv1d::load(
                &(&root / name),
                ConvConfig {
                    input,
                    output,
                    kernel: 3,
                    stride,
                },
            )
        };
        let lstm = &root / "lstm_cell";
        let network = Self {
            transform: (&root / "stft_conv").take("weight", &[2 * BINS, 1, 2 * STRIDE])?,
            convolutions: [
                convolution("conv1", BINS, 128, 1)?,
                convolution("conv2", 128, 64, 2)?,
                convolution("conv3", 64, 64, 2)?,
                convolution("conv4", 64, WIDTH, 1)?,
            ],
            lstm: [
                lstm.take("weight_ih", &[4 * WIDTH, WIDTH])?,
                lstm.take("weight_hh", &[4 * WIDTH, WIDTH])?,
                lstm.take("bias_ih", &[4 * WIDTH])?,
                lstm.take("bias_hh", &[4 * WIDTH])?,
            ],
            head: (&root / "final_conv")
                .take("weight", &[1, WIDTH, 1])?
                .f_view([1, WIDTH])?,
            bias: (&root / "final_conv").take("bias", &[1])?,
            device: weights.device(),
        };
        weights.finish()?;
        Ok(network)
    }

    /// Hears on in several streams, each by as many samples, whole chunks of them: the probability
    /// of speech in every chunk, and what is remembered from then on.
    ///
    /// # Errors
    /// Bug, where the numbers of samples do not fit; overload, where memory is short.
    pub fn forward(&self, streams: &[(&[f32], &VadState)]) -> Result<Vec<(Vec<f32>, VadState)>> {
        let _frozen = guard();
        let length = streams.first().map_or(0, |(samples, _)| samples.len());
        if !length.is_multiple_of(CHUNK)
            || streams.iter().any(|(samples, _)| samples.len() != length)
        {
            return Err(Error::bug(format!(
                "streams go on by equal numbers of {CHUNK} samples, not by {length}"
            )));
        }
        if length == 0 {
            return Ok(streams
                .iter()
                .map(|(_, memory)| (Vec::new(), (*memory).clone()))
                .collect());
        }
        let (rows, chunks) = (streams.len() as i64, (length / CHUNK) as i64);
        let samples: Vec<f32> = streams
            .iter()
            .flat_map(|(samples, memory)| memory.context.iter().chain(*samples).copied())
            .collect();
        let samples = Tensor::f_from_slice(&samples)?
            .f_view([rows, -1])?
            .f_to(self.device)?;
        let heard = samples
            .f_unfold(1, (CONTEXT + CHUNK) as i64, CHUNK as i64)?
            .f_reshape([rows * chunks, -1])?;
        let features = self.features(&heard)?.f_view([rows, chunks, WIDTH])?;
        let state = [
            self.state(streams, |memory| &memory.hidden)?,
            self.state(streams, |memory| &memory.cell)?,
        ];
        let (out, hidden, cell) =
            features.f_lstm(&state, &self.lstm, true, 1, 0., false, false, true)?;
        let speech = out
            .f_relu()?
            .f_linear(&self.head, Some(&self.bias))?
            .f_sigmoid()?
            .f_view([rows, chunks])?;
        let numbers = |tensor: &Tensor| -> Result<Vec<Vec<f32>>> {
            Ok(Vec::try_from(
                tensor.f_view([rows, -1])?.f_to(Device::Cpu)?,
            )?)
        };
        let states = numbers(&hidden)?.into_iter().zip(numbers(&cell)?);
        let memory = |(samples, (hidden, cell)): (&[f32], _)| VadState {
            context: samples[length - CONTEXT..].to_vec(),
            hidden,
            cell,
        };
        let memories = streams
            .iter()
            .map(|(samples, _)| *samples)
            .zip(states)
            .map(memory);
        Ok(numbers(&speech)?.into_iter().zip(memories).collect())
    }

    /// A part of what the streams remember: `[1, streams, width]`.
    fn state(
        &self,
        streams: &[(&[f32], &VadState)],
        part: fn(&VadState) -> &Vec<f32>,
    ) -> Result<Tensor> {
        let values: Vec<f32> = streams
            .iter()
            .flat_map(|(_, memory)| part(memory).iter().copied())
            .collect();
        Ok(Tensor::f_from_slice(&values)?
            .f_view([1, streams.len() as i64, WIDTH])?
            .f_to(self.device)?)
    }

    /// `[n, context + chunk]` to `[n, width]`.
    fn features(&self, heard: &Tensor) -> Result<Tensor> {
        let heard = heard.f_reflection_pad1d([0, STRIDE / 2])?.f_unsqueeze(1)?;
        let waves = heard.f_conv1d(&self.transform, None::<&Tensor>, STRIDE, 0, 1, 1)?;
        let part = |from: i64| -> Result<Tensor> { Ok(waves.f_narrow(1, from, BINS)?.f_square()?) };
        let mut x = part(0)?.f_add_(&part(BINS)?)?.f_sqrt_()?;
        for convolution in &self.convolutions {
            x = convolution.forward(&x)?.f_relu_()?;
        }
        Ok(x.f_squeeze_dim(-1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::golden::{goldens, trained};
    use crate::models::whisper::tests::film;

    fn network() -> SileroVad {
        SileroVad::load(&trained("silero-vad"), Device::Cpu).unwrap()
    }

    #[test]
    fn probabilities_are_those_of_the_package() {
        let (network, mut samples) = (network(), film());
        let expected: Vec<f32> =
            Vec::try_from(&goldens("silero.safetensors")["probabilities"]).unwrap();
        samples.resize(expected.len() * CHUNK, 0.);
        let (mut memory, mut found) = (VadState::default(), Vec::new());
        // A stream comes in pieces of any length.
        for piece in samples.chunks(33 * CHUNK) {
            let (probabilities, remembered) =
                network.forward(&[(piece, &memory)]).unwrap().remove(0);
            found.extend(probabilities);
            memory = remembered;
        }
        assert_eq!(found.len(), expected.len());
        let apart = found
            .iter()
            .zip(&expected)
            .map(|(found, expected)| (found - expected).abs())
            .fold(0., f32::max);
        assert!(apart < 1e-4, "{apart}");
        let speech = expected
            .iter()
            .filter(|&&probability| probability > 0.5)
            .count();
        assert!(
            speech > expected.len() / 3 && speech < expected.len(),
            "the film speaks, not always"
        );
    }

    #[test]
    fn streams_do_not_hear_each_other() {
        let network = network();
        let streams = [1., 2.].map(|factor| {
            (0..3 * CHUNK)
                .map(|n| (n as f32 * 0.05 * factor).sin() * 0.3)
                .collect::<Vec<_>>()
        });
        let fresh = VadState::default();
        let warm = network
            .forward(&[(&streams[0], &fresh)])
            .unwrap()
            .remove(0)
            .1;
        let alone = [(&streams[0], &warm), (&streams[1], &fresh)]
            .map(|(s, memory)| network.forward(&[(s, memory)]).unwrap().remove(0));
        let both = network
            .forward(&[(&streams[0], &warm), (&streams[1], &fresh)])
            .unwrap();
        for ((found, memory), (expected, remembered)) in both.iter().zip(&alone) {
            assert!(
                found
                    .iter()
                    .zip(expected)
                    .all(|(found, expected)| (found - expected).abs() < 1e-5),
                "{found:?} is not {expected:?}"
            );
            assert!(
                memory
                    .hidden
                    .iter()
                    .zip(&remembered.hidden)
                    .all(|(found, expected)| (found - expected).abs() < 1e-4)
            );
        }
    }

    #[test]
    fn pieces_are_whole_chunks() {
        let network = network();
        let memory = VadState::default();
        assert!(network.forward(&[(&[0.; 500], &memory)]).is_err());
        assert!(
            network
                .forward(&[(&[0.; 512], &memory), (&[0.; 1024], &memory)])
                .is_err()
        );
        assert_eq!(
            network.forward(&[(&[], &memory)]).unwrap(),
            [(vec![], memory)]
        );
    }
}
