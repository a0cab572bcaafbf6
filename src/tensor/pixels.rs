//! Frames as tensors: one copy from the decoder's mapped memory into the batch, then arithmetic on
//! the model's device.

use tch::{Device, Kind, Tensor};

use super::Precision;
use crate::error::{Error, Result};
use crate::packet::Frame;

/// A batch `[n, height, width, 3]` of bytes on `device`. Each frame's pixels are copied once,
/// straight from its buffer into the batch; padding at the end of rows is left behind. (A GPU takes
/// one further copy, of the whole batch, across the bus.)
///
/// # Errors
/// Model, where there are no frames, their sizes differ, or a buffer is shorter than its size and
/// stride say.
pub fn frames_to_tensor(frames: &[&Frame], device: Device) -> Result<Tensor> {
    let first = frames
        .first()
        .ok_or_else(|| Error::model("a batch of no frames"))?;
    let (width, height) = (first.width as usize, first.height as usize);
    if width == 0 || height == 0 {
        return Err(Error::model(format!("frame of {width}x{height} pixels")));
    }
    for frame in frames {
        check(frame, first)?;
    }
    let channels = first.format.bytes_per_pixel();
    let size = [
        frames.len() as i64,
        height as i64,
        width as i64,
        channels as i64,
    ];
    let mut batch = Tensor::f_empty(size, (Kind::Uint8, Device::Cpu))?;
    fill(&mut batch, frames, width * channels);
    Ok(if device == Device::Cpu {
        batch
    } else {
        batch.f_to_device(device)?
    })
}

fn check(frame: &Frame, first: &Frame) -> Result<()> {
    if (frame.width, frame.height, frame.format) != (first.width, first.height, first.format) {
        let (a, b) = ((first.width, first.height), (frame.width, frame.height));
        return Err(Error::model(format!(
            "frames of {}x{} and {}x{} pixels in one batch",
            a.0, a.1, b.0, b.1
        ))
        .hint("give the stages that share a model views of one size"));
    }
    let row = frame.width as usize * frame.format.bytes_per_pixel();
    let stride = frame.stride as usize;
    let needed = stride * (frame.height as usize - 1) + row;
    if stride < row || frame.pixels.len() < needed {
        return Err(Error::model(format!(
            "frame {} of view {}: {} bytes and a stride of {stride} cannot hold {}x{} pixels",
            frame.index,
            frame.view,
            frame.pixels.len(),
            frame.width,
            frame.height
        )));
    }
    Ok(())
}

/// Copies checked frames of `row` bytes a row into a contiguous batch of exactly their size.
#[allow(unsafe_code)]
fn fill(batch: &mut Tensor, frames: &[&Frame], row: usize) {
    let mut target = batch.data_ptr().cast::<u8>();
    let end = target.wrapping_add(batch.numel());
    for frame in frames {
        let (stride, height) = (frame.stride as usize, frame.height as usize);
        // Rows without padding are one run of memory.
        let (runs, run) = if stride == row {
            (1, row * height)
        } else {
            (height, row)
        };
        for index in 0..runs {
            let source = &frame.pixels[index * stride..index * stride + run];
            // SAFETY: the batch was just made contiguous on the CPU with frames.len() * height *
            // row bytes, nobody else has it, and every frame writes exactly height * row of them;
            // `source` is a checked slice of other memory.
            unsafe {
                std::ptr::copy_nonoverlapping(source.as_ptr(), target, run);
                target = target.add(run);
            }
        }
    }
    debug_assert_eq!(target, end);
}

/// A batch of bytes `[n, height, width, 3]` as `[n, 3, height, width]` of `precision`, laid out
/// channels-last, each channel scaled to 0..1, less `mean`, over `std`.
///
/// # Errors
/// Model, where the batch has another shape.
pub fn normalise(
    batch: &Tensor,
    mean: [f64; 3],
    std: [f64; 3],
    precision: Precision,
) -> Result<Tensor> {
    let size = batch.size();
    if size.len() != 4 || size[3] != 3 || batch.kind() != Kind::Uint8 {
        return Err(Error::model(format!(
            "frames must be bytes [n, height, width, 3], got {:?} of {:?}",
            batch.kind(),
            size
        )));
    }
    // byte / 255 / std - mean / std, with both constants rounded once from f64.
    let row = |value: &dyn Fn(usize) -> f64| {
        let values: Vec<f32> = (0..3).map(|channel| value(channel) as f32).collect();
        Tensor::f_from_slice(&values).and_then(|row| row.f_to_device(batch.device()))
    };
    let scale = row(&|channel| 1. / (255. * std[channel]))?;
    let shift = row(&|channel| -mean[channel] / std[channel])?;
    let scaled = batch
        .f_to_kind(Kind::Float)?
        .f_mul_(&scale)?
        .f_add_(&shift)?;
    Ok(scaled
        .f_to_kind(precision.kind())?
        .f_permute([0, 3, 1, 2])?)
}

/// `[n, c, h, w]` at `height` x `width` by bilinear interpolation (half-pixel centres, not
/// antialiased); unchanged where it fits. Views are scaled by GStreamer: this is for pictures that
/// come another way.
///
/// # Errors
/// Model, where it is not a batch of pictures of floating point.
pub fn resize(pictures: &Tensor, height: i64, width: i64) -> Result<Tensor> {
    let size = pictures.size();
    if size.len() == 4 && size[2..] == [height, width] {
        return Ok(pictures.shallow_clone());
    }
    Ok(pictures.f_upsample_bilinear2d([height, width], false, None, None)?)
}

/// The same values `[n, c, h, w]`, with the channels of a pixel side by side in memory: what
/// convolutions on this memory want.
///
/// # Errors
/// Model, where it has not four dimensions.
pub fn channels_last(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor
        .f_permute([0, 2, 3, 1])?
        .f_contiguous()?
        .f_permute([0, 3, 1, 2])?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::PixelFormat;
    use bytes::Bytes;

    /// Pixels count up from `first`, rows are padded with 255; the last row ends with its pixels.
    fn frame(width: u32, height: u32, padding: u32, first: u8) -> Frame {
        let mut pixels = Vec::new();
        for row in 0..height {
            pixels
                .extend((0..width * 3).map(|at| first.wrapping_add((row * width * 3 + at) as u8)));
            if row + 1 < height {
                pixels.extend(std::iter::repeat_n(255, padding as usize));
            }
        }
        let view = "frames".into();
        Frame {
            view,
            index: 0,
            width,
            height,
            stride: width * 3 + padding,
            format: PixelFormat::Rgb8,
            pixels: Bytes::from(pixels),
        }
    }

    fn bytes_of(tensor: &Tensor) -> Vec<u8> {
        Vec::<u8>::try_from(tensor.contiguous().view(-1)).unwrap()
    }

    #[test]
    fn padding_of_rows_is_left_behind() {
        let (padded, plain) = (frame(3, 2, 5, 0), frame(3, 2, 0, 100));
        let batch = frames_to_tensor(&[&padded, &plain], Device::Cpu).unwrap();
        assert_eq!(batch.size(), [2, 2, 3, 3]);
        assert_eq!(
            bytes_of(&batch),
            (0..18).chain(100..118).collect::<Vec<u8>>()
        );
    }

    #[test]
    fn frames_that_do_not_fit_are_refused() {
        assert!(frames_to_tensor(&[], Device::Cpu).is_err());
        let (a, b) = (frame(3, 2, 0, 0), frame(2, 3, 0, 0));
        assert!(
            frames_to_tensor(&[&a, &b], Device::Cpu)
                .unwrap_err()
                .message()
                .contains("3x2 and 2x3")
        );
        let short = Frame {
            pixels: a.pixels.slice(..17),
            ..a.clone()
        };
        assert!(frames_to_tensor(&[&short], Device::Cpu).is_err());
        let narrow = Frame {
            stride: 8,
            ..a.clone()
        };
        assert!(frames_to_tensor(&[&narrow], Device::Cpu).is_err());
        let flat = Frame { height: 0, ..a };
        assert!(frames_to_tensor(&[&flat], Device::Cpu).is_err());
    }

    #[test]
    fn normalised_frames_are_channels_last() {
        let batch = frames_to_tensor(&[&frame(2, 2, 0, 0)], Device::Cpu).unwrap();
        let (mean, std) = ([0.1, 0.2, 0.3], [0.5, 1.0, 2.0]);
        let out = normalise(&batch, mean, std, Precision::F32).unwrap();
        assert_eq!(out.size(), [1, 3, 2, 2]);
        assert_eq!(out.stride()[1], 1);
        let blue = out.double_value(&[0, 2, 1, 0]);
        assert!((blue - (8. / 255. - 0.3) / 2.).abs() < 1e-7, "{blue}");
        assert_eq!(
            normalise(&batch, mean, std, Precision::BF16)
                .unwrap()
                .kind(),
            Kind::BFloat16
        );
        assert!(normalise(&out, mean, std, Precision::F32).is_err());
    }

    #[test]
    fn resizing_keeps_what_fits_and_interpolates_the_rest() {
        let picture = Tensor::from_slice(&[0f32, 1., 2., 3.]).view([1, 1, 2, 2]);
        assert_eq!(
            resize(&picture, 2, 2).unwrap().data_ptr(),
            picture.data_ptr()
        );
        let wide = resize(&picture, 2, 4).unwrap();
        assert_eq!(
            Vec::<f32>::try_from(wide.get(0).get(0).get(0)).unwrap(),
            [0., 0.25, 0.75, 1.]
        );
    }

    #[test]
    fn channels_last_moves_memory_not_values() {
        let planes = Tensor::arange(24, (Kind::Float, Device::Cpu)).view([1, 2, 3, 4]);
        let pixels = channels_last(&planes).unwrap();
        assert_eq!(pixels.stride(), [24, 1, 8, 2]);
        assert!(pixels.equal(&planes));
    }
}
