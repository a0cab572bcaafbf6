//! Many pictures on one: what a film's key frames look like at a glance.

use std::io::Cursor;

use bytes::Bytes;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::{self, FilterType};
use image::{ExtendedColorType, ImageReader, RgbImage};

use super::picture::unencodable;
use crate::error::{Error, Result};

/// The largest contact sheet, in pixels a side: JPEG's own limit.
const LONGEST: u32 = 65_535;

/// JPEG, PNG or WebP pictures side by side in rows of `columns`, each fitted into a cell of `cell`
/// pixels without changing its shape, on black; as a JPEG.
///
/// # Errors
/// `config` without a picture or column, or where the sheet would be larger than a JPEG can be;
/// `external` for a picture that cannot be decoded.
pub(crate) fn contact_sheet(pictures: &[Bytes], columns: u32, cell: (u32, u32)) -> Result<Bytes> {
    let columns = columns.min(pictures.len() as u32);
    let rows = (pictures.len() as u32)
        .checked_div(columns)
        .map(|rows| rows + u32::from(!(pictures.len() as u32).is_multiple_of(columns)));
    let size =
        rows.and_then(|rows| Some((columns.checked_mul(cell.0)?, rows.checked_mul(cell.1)?)));
    let Some((width, height)) = size
        .filter(|(width, height)| (1..=LONGEST).contains(width) && (1..=LONGEST).contains(height))
    else {
        return Err(Error::config(format!(
            "a contact sheet of {} pictures in cells of {}x{} cannot be drawn",
            pictures.len(),
            cell.0,
            cell.1
        ))
        .hint(format!(
            "it needs a picture, a column, and at most {LONGEST} pixels a side"
        )));
    };
    let mut sheet = RgbImage::new(width, height);
    for (index, picture) in pictures.iter().enumerate() {
        let index = index as u32;
        let reader = ImageReader::new(Cursor::new(picture)).with_guessed_format();
        let decoded = reader
            .map_err(image::ImageError::from)
            .and_then(ImageReader::decode);
        let thumbnail = decoded
            .map_err(|error| {
                Error::external(format!(
                    "picture {index} of the contact sheet cannot be decoded"
                ))
                .because(error)
            })?
            .resize(cell.0, cell.1, FilterType::Triangle)
            .into_rgb8();
        let x = index % columns * cell.0 + (cell.0 - thumbnail.width()) / 2;
        let y = index / columns * cell.1 + (cell.1 - thumbnail.height()) / 2;
        imageops::replace(&mut sheet, &thumbnail, i64::from(x), i64::from(y));
    }
    let mut out = Vec::new();
    JpegEncoder::new_with_quality(&mut out, 85)
        .encode(&sheet, width, height, ExtendedColorType::Rgb8)
        .map_err(|error| unencodable(width, height, error))?;
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::encode_jpeg;
    use crate::packet::{Frame, PixelFormat};

    /// Left half red, right half blue.
    fn frame(width: u32, height: u32) -> Frame {
        let mut pixels = Vec::new();
        for _ in 0..height {
            for x in 0..width {
                let is_left = x < width / 2;
                pixels.extend(if is_left { [255, 0, 0] } else { [0, 0, 255] });
            }
        }
        Frame {
            view: "v".into(),
            index: 0,
            width,
            height,
            stride: width * 3,
            format: PixelFormat::Rgb8,
            pixels: pixels.into(),
        }
    }

    #[test]
    fn contact_sheet_places_pictures_in_rows() {
        let picture = encode_jpeg(&frame(32, 16), 90).expect("encoded");
        let sheet = image::load_from_memory(
            &contact_sheet(
                &[picture.clone(), picture.clone(), picture.clone()],
                2,
                (64, 64),
            )
            .expect("drawn"),
        )
        .expect("a JPEG")
        .into_rgb8();
        assert_eq!(sheet.dimensions(), (128, 128));
        assert!(
            sheet.get_pixel(96, 32)[0] > 120 || sheet.get_pixel(80, 32)[0] > 120,
            "the second picture is not in the first row"
        );
        assert!(
            sheet.get_pixel(16, 96)[0] > 200,
            "the third picture is not in the second row"
        );
        assert!(
            sheet.get_pixel(96, 96).0.iter().all(|value| *value < 20),
            "the fourth cell is not black"
        );
        assert!(contact_sheet(&[], 2, (64, 64)).is_err());
        assert!(contact_sheet(&[picture], 0, (64, 64)).is_err());
    }
}
