//! Frames become JPEG, PNG or WebP pictures, and pictures become frames again.

use std::borrow::Cow;
use std::fmt;
use std::io::Cursor;

use bytes::Bytes;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::codecs::webp::WebPEncoder;
use image::flat::{FlatSamples, SampleLayout};
use image::{ExtendedColorType, ImageEncoder, ImageReader, Rgb};

use crate::error::{Error, Result};
use crate::packet::{Frame, PixelFormat};

/// How a picture is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PictureEncoding {
    /// JPEG, of a quality of 1 to 100.
    Jpeg(u8),
    /// PNG, which loses nothing.
    Png,
    /// WebP in its lossless kind, smaller than PNG.
    WebP,
}

impl PictureEncoding {
    /// The IANA media type.
    pub(crate) const fn media_type(self) -> &'static str {
        match self {
            PictureEncoding::Jpeg(_) => "image/jpeg",
            PictureEncoding::Png => "image/png",
            PictureEncoding::WebP => "image/webp",
        }
    }
}

/// As part of a cache's key: `jpeg 90`, `png`, `webp`.
impl fmt::Display for PictureEncoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PictureEncoding::Jpeg(quality) => write!(f, "jpeg {quality}"),
            PictureEncoding::Png => f.write_str("png"),
            PictureEncoding::WebP => f.write_str("webp"),
        }
    }
}

/// `frame` as a JPEG picture of `quality` 1 to 100. Reads the rows where they lie.
///
/// # Errors
/// As [`encode_picture`].
pub(crate) fn encode_jpeg(frame: &Frame, quality: u8) -> Result<Bytes> {
    encode_picture(frame, PictureEncoding::Jpeg(quality))
}

/// `frame` as a picture. Reads the rows where they lie, but copies them for PNG and WebP where they
/// are padded.
///
/// # Errors
/// `bug` where the pixels are fewer than the frame's size says, `config` where the encoding does not
/// take a picture of this size.
pub(crate) fn encode_picture(frame: &Frame, encoding: PictureEncoding) -> Result<Bytes> {
    let PixelFormat::Rgb8 = frame.format;
    let (width, height) = (frame.width, frame.height);
    let mut out = Vec::with_capacity(width as usize * height as usize / 4);
    let layout = SampleLayout {
        channels: 3,
        channel_stride: 1,
        width,
        width_stride: 3,
        height,
        height_stride: frame.stride as usize,
    };
    let samples = FlatSamples {
        samples: frame.pixels.as_ref(),
        layout,
        color_hint: None,
    };
    let view = samples.as_view::<Rgb<u8>>().map_err(|error| {
        Error::bug(format!(
            "a frame of {width}x{height}, stride {}, in {} bytes",
            frame.stride,
            frame.pixels.len()
        ))
        .because(error)
    })?;
    let color = ExtendedColorType::Rgb8;
    let written = match encoding {
        PictureEncoding::Jpeg(quality) => {
            JpegEncoder::new_with_quality(&mut out, quality.clamp(1, 100)).encode_image(&view)
        }
        PictureEncoding::Png => {
            PngEncoder::new(&mut out).write_image(&whole_rows(frame), width, height, color)
        }
        PictureEncoding::WebP => WebPEncoder::new_lossless(&mut out).write_image(
            &whole_rows(frame),
            width,
            height,
            color,
        ),
    };
    written.map_err(|error| unencodable(width, height, error))?;
    Ok(out.into())
}

/// The pixels without padding; the frame's size was checked.
fn whole_rows(frame: &Frame) -> Cow<'_, [u8]> {
    let (row, stride) = (frame.width as usize * 3, frame.stride as usize);
    if row == stride {
        return Cow::Borrowed(&frame.pixels[..row * frame.height as usize]);
    }
    frame
        .pixels
        .chunks(stride)
        .take(frame.height as usize)
        .flat_map(|padded| &padded[..row])
        .copied()
        .collect()
}

/// An encoded JPEG, PNG or WebP picture as a frame of no view.
///
/// # Errors
/// `external` where it is none of these, or damaged.
pub(crate) fn decode_picture(picture: &[u8]) -> Result<Frame> {
    let unreadable =
        |error: image::ImageError| Error::external("a picture cannot be decoded").because(error);
    let reader = ImageReader::new(Cursor::new(picture)).with_guessed_format();
    let reader =
        reader.map_err(|error| Error::external("a picture cannot be read").because(error))?;
    let pixels = reader.decode().map_err(unreadable)?.into_rgb8();
    let (width, height) = pixels.dimensions();
    let pixels = pixels.into_raw().into();
    Ok(Frame {
        view: "".into(),
        index: 0,
        width,
        height,
        stride: width * 3,
        format: PixelFormat::Rgb8,
        pixels,
    })
}

/// The error for a picture that no encoder takes, because of its size above all.
pub(super) fn unencodable(width: u32, height: u32, error: image::ImageError) -> Error {
    Error::config(format!("a picture of {width}x{height} cannot be encoded")).because(error)
}

#[cfg(test)]
mod tests {
    use image::{ImageFormat, RgbImage};

    use super::*;

    /// Left half red, right half blue, with rows padded by `padding` bytes of white.
    fn frame(width: u32, height: u32, padding: u32) -> Frame {
        let stride = width * 3 + padding;
        let mut pixels = vec![255; (stride * height) as usize];
        for y in 0..height {
            for x in 0..width {
                let at = (y * stride + x * 3) as usize;
                pixels[at..at + 3].copy_from_slice(if x < width / 2 {
                    &[255, 0, 0]
                } else {
                    &[0, 0, 255]
                });
            }
        }
        Frame {
            view: "v".into(),
            index: 0,
            width,
            height,
            stride,
            format: PixelFormat::Rgb8,
            pixels: pixels.into(),
        }
    }

    fn decode_jpeg(jpeg: &[u8]) -> RgbImage {
        image::load_from_memory_with_format(jpeg, ImageFormat::Jpeg)
            .expect("a JPEG")
            .into_rgb8()
    }

    #[test]
    fn jpeg_honours_the_stride() {
        let picture = decode_jpeg(&encode_jpeg(&frame(30, 16, 6), 90).expect("encoded"));
        assert_eq!(picture.dimensions(), (30, 16));
        for y in 0..16 {
            assert!(
                picture.get_pixel(2, y)[0] > 200 && picture.get_pixel(2, y)[1] < 60,
                "row {y} is not red at the left"
            );
            assert!(
                picture.get_pixel(27, y)[2] > 200 && picture.get_pixel(27, y)[1] < 60,
                "row {y} is not blue at the right"
            );
        }
        let mut short = frame(30, 16, 6);
        short.pixels.truncate(500);
        assert!(encode_jpeg(&short, 90).is_err());
    }

    #[test]
    fn lossless_pictures_come_back_byte_by_byte() {
        let (padded, plain) = (frame(30, 16, 6), frame(30, 16, 0));
        for encoding in [PictureEncoding::Png, PictureEncoding::WebP] {
            let picture = encode_picture(&padded, encoding).expect("encoded");
            let found = decode_picture(&picture).expect("decoded");
            assert_eq!(
                (found.width, found.height, found.stride),
                (30, 16, 90),
                "{encoding:?}"
            );
            assert_eq!(found.pixels, plain.pixels, "{encoding:?}");
            let format = image::guess_format(&picture).expect("known");
            assert_eq!(format.to_mime_type(), encoding.media_type());
            let mut short = padded.clone();
            short.pixels.truncate(500);
            assert!(encode_picture(&short, encoding).is_err(), "{encoding:?}");
        }
        assert!(decode_picture(b"no picture").is_err());
    }
}
