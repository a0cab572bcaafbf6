//! Frames become JPEG pictures, and pictures a contact sheet.

use bytes::Bytes;
use image::codecs::jpeg::JpegEncoder;
use image::flat::{FlatSamples, SampleLayout};
use image::imageops::{self, FilterType};
use image::{ExtendedColorType, ImageFormat, ImageReader, Rgb, RgbImage};

use crate::error::{Error, Result};
use crate::packet::{Frame, PixelFormat};

/// The largest contact sheet, in pixels a side: JPEG's own limit.
const LONGEST: u32 = 65_535;

/// `frame` as a JPEG picture of `quality` 1 to 100. Reads the rows where they lie.
pub fn jpeg(frame: &Frame, quality: u8) -> Result<Bytes> {
    let PixelFormat::Rgb8 = frame.format;
    let mut out = Vec::with_capacity(frame.width as usize * frame.height as usize / 4);
    let mut encoder = JpegEncoder::new_with_quality(&mut out, quality.clamp(1, 100));
    let layout = SampleLayout {
        channels: 3,
        channel_stride: 1,
        width: frame.width,
        width_stride: 3,
        height: frame.height,
        height_stride: frame.stride as usize,
    };
    let samples = FlatSamples { samples: frame.pixels.as_ref(), layout, color_hint: None };
    let view = samples.as_view::<Rgb<u8>>().map_err(|error| {
        Error::bug(format!("a frame of {}x{}, stride {}, in {} bytes", frame.width, frame.height, frame.stride, frame.pixels.len()))
            .because(error)
    })?;
    encoder.encode_image(&view).map_err(|error| unwritable(frame.width, frame.height, error))?;
    Ok(out.into())
}

/// JPEG pictures side by side in rows of `columns`, each fitted into a cell of `cell` pixels without changing its shape, on black.
pub fn contact_sheet(pictures: &[Bytes], columns: u32, cell: (u32, u32)) -> Result<Bytes> {
    let columns = columns.min(pictures.len() as u32);
    let rows = (pictures.len() as u32).checked_div(columns).map(|rows| rows + u32::from(!(pictures.len() as u32).is_multiple_of(columns)));
    let size = rows.and_then(|rows| Some((columns.checked_mul(cell.0)?, rows.checked_mul(cell.1)?)));
    let Some((width, height)) = size.filter(|(width, height)| (1..=LONGEST).contains(width) && (1..=LONGEST).contains(height)) else {
        return Err(Error::config(format!(
            "a contact sheet of {} pictures in cells of {}x{} cannot be drawn",
            pictures.len(),
            cell.0,
            cell.1
        ))
        .hint(format!("it needs a picture, a column, and at most {LONGEST} pixels a side")));
    };
    let mut sheet = RgbImage::new(width, height);
    for (index, picture) in pictures.iter().enumerate() {
        let index = index as u32;
        let thumbnail = ImageReader::with_format(std::io::Cursor::new(picture), ImageFormat::Jpeg)
            .decode()
            .map_err(|error| Error::external(format!("picture {index} of the contact sheet is no JPEG")).because(error))?
            .resize(cell.0, cell.1, FilterType::Triangle)
            .into_rgb8();
        let x = index % columns * cell.0 + (cell.0 - thumbnail.width()) / 2;
        let y = index / columns * cell.1 + (cell.1 - thumbnail.height()) / 2;
        imageops::replace(&mut sheet, &thumbnail, i64::from(x), i64::from(y));
    }
    let mut out = Vec::new();
    JpegEncoder::new_with_quality(&mut out, 85)
        .encode(&sheet, width, height, ExtendedColorType::Rgb8)
        .map_err(|error| unwritable(width, height, error))?;
    Ok(out.into())
}

fn unwritable(width: u32, height: u32, error: image::ImageError) -> Error {
    Error::config(format!("a picture of {width}x{height} cannot be written as JPEG")).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Left half red, right half blue, with rows padded by `padding` bytes of white.
    fn frame(width: u32, height: u32, padding: u32) -> Frame {
        let stride = width * 3 + padding;
        let mut pixels = vec![255; (stride * height) as usize];
        for y in 0..height {
            for x in 0..width {
                let at = (y * stride + x * 3) as usize;
                pixels[at..at + 3].copy_from_slice(if x < width / 2 { &[255, 0, 0] } else { &[0, 0, 255] });
            }
        }
        Frame { view: "v".into(), index: 0, width, height, stride, format: PixelFormat::Rgb8, pixels: pixels.into() }
    }

    fn decode(jpeg: &[u8]) -> RgbImage {
        image::load_from_memory_with_format(jpeg, ImageFormat::Jpeg).expect("a JPEG").into_rgb8()
    }

    #[test]
    fn jpeg_honours_the_stride() {
        let picture = decode(&jpeg(&frame(30, 16, 6), 90).expect("encoded"));
        assert_eq!(picture.dimensions(), (30, 16));
        for y in 0..16 {
            assert!(picture.get_pixel(2, y)[0] > 200 && picture.get_pixel(2, y)[1] < 60, "row {y} is not red at the left");
            assert!(picture.get_pixel(27, y)[2] > 200 && picture.get_pixel(27, y)[1] < 60, "row {y} is not blue at the right");
        }
        let mut short = frame(30, 16, 6);
        short.pixels.truncate(500);
        assert!(jpeg(&short, 90).is_err());
    }

    #[test]
    fn contact_sheet_places_pictures_in_rows() {
        let picture = jpeg(&frame(32, 16, 0), 90).expect("encoded");
        let sheet = decode(&contact_sheet(&[picture.clone(), picture.clone(), picture.clone()], 2, (64, 64)).expect("drawn"));
        assert_eq!(sheet.dimensions(), (128, 128));
        assert!(sheet.get_pixel(96, 32)[0] > 120 || sheet.get_pixel(80, 32)[0] > 120, "the second picture is not in the first row");
        assert!(sheet.get_pixel(16, 96)[0] > 200, "the third picture is not in the second row");
        assert!(sheet.get_pixel(96, 96).0.iter().all(|value| *value < 20), "the fourth cell is not black");
        assert!(contact_sheet(&[], 2, (64, 64)).is_err());
        assert!(contact_sheet(&[picture], 0, (64, 64)).is_err());
    }
}
