//! Big pictures in overlapping tiles, so that memory does not grow with the picture, as diffusers'
//! autoencoders take them apart and blend them: the two classes in two ways.

use tch::{Kind, Tensor};

use crate::error::{Error, Result};

/// What a tile goes through.
pub(super) type Each<'a> = &'a dyn Fn(&Tensor) -> Result<Tensor>;

/// Tiles of AutoencoderKL: those above and to the left fade into the next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fading {
    /// Side of a tile.
    pub(super) tile: i64,
    /// From the start of a tile to that of the next.
    pub(super) stride: i64,
    /// Rows and columns that fade, in what comes out.
    pub(super) blend: i64,
    /// Rows and columns that are kept of what comes out of a tile.
    pub(super) keep: i64,
}

impl Fading {
    /// Tiles of `tile` pixels, each becoming one of `out`, that overlap by a quarter.
    pub(super) fn new(tile: i64, out: i64) -> Self {
        let blend = (out as f64 * 0.25) as i64;
        Self {
            tile,
            stride: (tile as f64 * 0.75) as i64,
            blend,
            keep: out - blend,
        }
    }

    /// Whether a picture `[n, c, h, w]` is larger than a tile.
    pub(super) fn divides(self, x: &Tensor) -> Result<bool> {
        let (_, _, height, width) = x.size4()?;
        Ok(height > self.tile || width > self.tile)
    }

    /// `[n, c, h, w]` through `each`, tile by tile.
    pub(super) fn run(self, x: &Tensor, each: Each<'_>) -> Result<Tensor> {
        let mut rows = Vec::new();
        let mut above: Vec<Tensor> = Vec::new();
        for band in starts(x, 2, self.tile, self.stride)? {
            let mut row: Vec<Tensor> = Vec::new();
            for tile in starts(&band, 3, self.tile, self.stride)? {
                let tile = each(&tile)?;
                if let Some(above) = above.get(row.len()) {
                    fade(above, &tile, 2, self.blend)?;
                }
                if let Some(left) = row.last() {
                    fade(left, &tile, 3, self.blend)?;
                }
                row.push(tile);
            }
            let kept: Vec<Tensor> = row
                .iter()
                .map(|tile| start_of(&start_of(tile, 2, self.keep)?, 3, self.keep))
                .collect::<Result<_>>()?;
            rows.push(Tensor::f_cat(&kept, 3)?);
            above = row;
        }
        Ok(Tensor::f_cat(&rows, 2)?)
    }
}

/// The parts of `x` along `dim` that tiles see, the last ones shorter.
fn starts(x: &Tensor, dim: i64, tile: i64, stride: i64) -> Result<Vec<Tensor>> {
    let size = x.size()[dim as usize];
    (0..size)
        .step_by(stride.max(1) as usize)
        .map(|at| Ok(x.f_narrow(dim, at, tile.min(size - at))?))
        .collect()
}

fn start_of(x: &Tensor, dim: i64, length: i64) -> Result<Tensor> {
    Ok(x.f_narrow(dim, 0, length.min(x.size()[dim as usize]))?)
}

/// The end of `from` fades into the start of `into`, in its place.
fn fade(from: &Tensor, into: &Tensor, dim: i64, extent: i64) -> Result<()> {
    let (before, after) = (from.size()[dim as usize], into.size()[dim as usize]);
    let extent = extent.min(before).min(after);
    if extent == 0 {
        return Ok(());
    }
    let weights = ramp(into, extent, extent as f64, dim)?;
    let mut start = into.f_narrow(dim, 0, extent)?;
    let blended = from
        .f_narrow(dim, before - extent, extent)?
        .f_lerp_tensor(&start, &weights)?;
    Ok(start.f_copy_(&blended)?)
}

/// `0, 1, ... length - 1` over `divisor`, at most 1, along `dim` of a picture like `like`.
fn ramp(like: &Tensor, length: i64, divisor: f64, dim: i64) -> Result<Tensor> {
    let values = Tensor::f_arange(length, (Kind::Float, like.device()))?
        .f_div_scalar_(divisor)?
        .f_clamp_(0., 1.)?;
    let mut shape = [1; 4];
    shape[dim as usize] = length;
    Ok(values.f_to_kind(like.kind())?.f_view(shape)?)
}

/// Tiles of AutoencoderTiny: each is laid over those before it, its upper and left border rising
/// from 0 to 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Overlaying {
    /// Side of a tile.
    pub(super) tile: i64,
    /// Side of what comes out of it.
    pub(super) out: i64,
}

impl Overlaying {
    /// Of a tile, and of what comes out, this part is the border.
    const BORDER: i64 = 8;

    /// `[n, c, h, w]` through `each`, tile by tile.
    pub(super) fn run(self, x: &Tensor, each: Each<'_>) -> Result<Tensor> {
        let (batch, _, height, width) = x.size4()?;
        let stride = self.tile - self.tile / Self::BORDER;
        let place = |at: i64| at * self.out / self.tile;
        if [height, width]
            .iter()
            .any(|&size| place(size) * self.tile != size * self.out)
        {
            return Err(Error::model(format!(
                "the sides of a picture of {width}x{height} must be multiples of {}",
                self.tile / self.out
            )));
        }
        let mut whole: Option<Tensor> = None;
        for top in (0..height).step_by(stride as usize) {
            for left in (0..width).step_by(stride as usize) {
                let tile = x.f_narrow(2, top, self.tile.min(height - top))?.f_narrow(
                    3,
                    left,
                    self.tile.min(width - left),
                )?;
                let tile = each(&tile)?;
                let (_, channels, rows, columns) = tile.size4()?;
                if whole.is_none() {
                    whole = Some(tile.f_new_zeros(
                        [batch, channels, place(height), place(width)],
                        (tile.kind(), tile.device()),
                    )?);
                }
                let Some(whole) = &whole else { continue };
                let mut under =
                    whole
                        .f_narrow(2, place(top), rows)?
                        .f_narrow(3, place(left), columns)?;
                let mut over = tile;
                for (dim, at, length) in [(2, top, rows), (3, left, columns)] {
                    if at > 0 {
                        let weights =
                            ramp(&over, length, (self.out / Self::BORDER - 1) as f64, dim)?;
                        over = under.f_lerp_tensor(&over, &weights)?;
                    }
                }
                under.f_copy_(&over)?;
            }
        }
        whole.ok_or_else(|| Error::model("a picture without pixels"))
    }
}
