//! The log-mel spectrogram that Whisper reads, as transformers' `WhisperFeatureExtractor` computes
//! it: 25 ms windows every 10 ms, mel bands after Slaney's Auditory Toolbox, the loudest 8 decades.

use super::config::{HOP, SAMPLE_RATE};
use crate::error::{Error, Result};
use crate::tensor::{Device, Kind, Tensor};

/// Samples of a window of the Fourier transform.
const WINDOW: i64 = 400;
/// Its frequencies.
const BINS: usize = WINDOW as usize / 2 + 1;

/// Turns samples into a spectrogram.
#[derive(Debug)]
pub struct Mel {
    /// `[bands, bins]`.
    filters: Tensor,
    window: Tensor,
}

impl Mel {
    /// Of so many bands, computed on `device`.
    ///
    /// # Errors
    /// Overload, where memory is short.
    pub fn build(bands: i64, device: Device) -> Result<Self> {
        let filters = Tensor::f_from_slice(&filters(bands as usize))?
            .f_view([bands, BINS as i64])?
            .f_to(device)?;
        Ok(Self {
            filters,
            window: Tensor::f_hann_window(WINDOW, (Kind::Float, device))?,
        })
    }

    /// A spectrogram `[bands, samples / 160]`, f32.
    ///
    /// # Errors
    /// Model, where there are too few samples for a window; overload, where memory is short.
    pub fn forward(&self, samples: &[f32]) -> Result<Tensor> {
        if samples.len() <= WINDOW as usize / 2 {
            return Err(Error::model(format!(
                "{} samples are too few for a spectrogram",
                samples.len()
            )));
        }
        let samples = Tensor::f_from_slice(samples)?
            .f_to(self.filters.device())?
            .f_unsqueeze(0)?;
        // Frames are centred: the sound is mirrored at its ends by half a window.
        let samples = samples
            .f_reflection_pad1d([WINDOW / 2, WINDOW / 2])?
            .f_squeeze()?;
        let spectrum = samples.f_stft(
            WINDOW,
            HOP as i64,
            WINDOW,
            Some(&self.window),
            false,
            true,
            true,
            false,
        )?;
        let frames = spectrum.size2()?.1 - 1;
        let power = spectrum.f_narrow(1, 0, frames)?.f_abs()?.f_square_()?;
        let mel = self
            .filters
            .f_matmul(&power)?
            .f_clamp_min(1e-10)?
            .f_log10_()?;
        let floor = mel.f_max()?.f_sub_scalar(8.)?;
        Ok(mel
            .f_maximum(&floor)?
            .f_add_scalar_(4.)?
            .f_div_scalar_(4.)?)
    }
}

/// Triangles over the frequencies of the transform, each of the area that its width asks for:
/// `[bands, bins]`.
fn filters(bands: usize) -> Vec<f32> {
    let highest = SAMPLE_RATE as f64 / 2.;
    let top = mel(highest);
    let edges: Vec<f64> = (0..bands + 2)
        .map(|edge| hertz(top * edge as f64 / (bands + 1) as f64))
        .collect();
    let mut filters = Vec::with_capacity(bands * BINS);
    for edge in edges.windows(3) {
        let [left, middle, right] = [edge[0], edge[1], edge[2]];
        for bin in 0..BINS {
            let frequency = highest * bin as f64 / (BINS - 1) as f64;
            let height = ((frequency - left) / (middle - left))
                .min((right - frequency) / (right - middle))
                .max(0.);
            filters.push((height * 2. / (right - left)) as f32);
        }
    }
    filters
}

/// Linear below 1000 Hz, logarithmic above.
fn mel(hertz: f64) -> f64 {
    if hertz < 1000. {
        3. * hertz / 200.
    } else {
        15. + (hertz / 1000.).ln() * 27. / 6.4_f64.ln()
    }
}

fn hertz(mel: f64) -> f64 {
    if mel < 15. {
        200. * mel / 3.
    } else {
        1000. * ((mel - 15.) * 6.4_f64.ln() / 27.).exp()
    }
}
