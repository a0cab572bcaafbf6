//! Pictures as a network wants them, by its preprocessor_config.json: scaled, cropped, and by which
//! mean and deviation they are normalised. The reference is transformers' image processors; on a
//! CPU the bytes are those of its torchvision backend, and PIL's to a level.

use serde_json::Value;
use tch::{Device, Kind, Tensor};

use super::config::Config;
use super::folder::ModelFolder;
use crate::error::{Error, Result};

/// What makes a picture of any size one that a network reads.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageProcessor {
    /// How pictures are scaled; none takes them as they come.
    pub resize: Option<Resize>,
    /// Rows and columns of what is cut out of the middle then; none keeps all.
    pub crop: Option<[i64; 2]>,
    /// Interpolation by cubics, or linear.
    pub cubic: bool,
    /// Mean of each channel, of bytes.
    pub mean: [f64; 3],
    /// Deviation of each channel, of bytes.
    pub std: [f64; 3],
}

/// How pictures are scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resize {
    /// To this shorter side; the other follows.
    Shortest(i64),
    /// To these rows and columns.
    Exact([i64; 2]),
}

impl ImageProcessor {
    /// OpenAI's for CLIP: pictures of `side` x `side`.
    pub fn clip(side: i64) -> Self {
        let (mean, std) = (
            [0.481_454_66, 0.457_827_5, 0.408_210_73],
            [0.268_629_54, 0.261_302_58, 0.275_777_11],
        );
        Self {
            resize: Some(Resize::Shortest(side)),
            crop: Some([side, side]),
            cubic: true,
            mean: mean.map(byte),
            std: std.map(byte),
        }
    }

    /// SigLIP's: all of a picture in `side` x `side`, in -1..1.
    pub fn siglip(side: i64) -> Self {
        Self {
            resize: Some(Resize::Exact([side, side])),
            crop: None,
            cubic: true,
            mean: [127.5; 3],
            std: [127.5; 3],
        }
    }

    /// DINOv2's: the middle 224 x 224 of 256, by ImageNet's mean and deviation.
    pub fn dinov2() -> Self {
        let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
        Self {
            resize: Some(Resize::Shortest(256)),
            crop: Some([224, 224]),
            cubic: true,
            mean: mean.map(byte),
            std: std.map(byte),
        }
    }

    /// The folder's preprocessor_config.json, or `default` where it has none.
    ///
    /// # Errors
    /// Model, where a field is not what it must be.
    pub fn load(folder: &ModelFolder, default: Self) -> Result<Self> {
        match folder.file("preprocessor_config.json") {
            Some(path) => Self::read(&Config::read(&path)?, &default),
            None => Ok(default),
        }
    }

    /// From `size`, `crop_size`, `resample`, `image_mean`, `image_std`, `rescale_factor` and what
    /// of it is done (`do_resize` and so on); what is missing is `default`'s.
    ///
    /// # Errors
    /// Model, where a field is not what it must be, or the pictures that come out would differ in
    /// size.
    pub fn read(config: &Config, default: &Self) -> Result<Self> {
        let done = |key: &str, default: bool| config.boolean_or(key, default);
        let resize = match config.field("size") {
            _ if !done("do_resize", default.resize.is_some())? => None,
            Some(size) => Some(resize(config, size)?),
            None => default.resize,
        };
        let crop = match config.field("crop_size") {
            _ if !done("do_center_crop", default.crop.is_some())? => None,
            Some(size) => Some(sides(size).ok_or_else(|| {
                config.error(format_args!(
                    "`crop_size` must be a number or `height` and `width`, it is {size}"
                ))
            })?),
            None => default.crop,
        };
        let cubic = match config.integer_or("resample", if default.cubic { 3 } else { 2 })? {
            3 => true,
            2 => false,
            other => {
                return Err(config.error(format_args!(
                    "`resample` must be 2 (bilinear) or 3 (bicubic), it is {other}"
                )));
            }
        };
        let level = if done("do_rescale", true)? {
            1. / config.number_or("rescale_factor", 1. / 255.)?
        } else {
            1.
        };
        let normal = done("do_normalize", true)?;
        let normal = |key: &str, default: [f64; 3], plain: f64| -> Result<[f64; 3]> {
            let read = if normal {
                channels(config, key)?
            } else {
                Some([plain; 3])
            };
            Ok(read.map_or(default, |read| read.map(|value| value * level)))
        };
        let (mean, std) = (
            normal("image_mean", default.mean, 0.)?,
            normal("image_std", default.std, 1.)?,
        );
        if !level.is_finite() || std.iter().any(|&value| value <= 0.) {
            return Err(config.error("`image_std` must be above 0, and `rescale_factor` too"));
        }
        let read = Self {
            resize,
            crop,
            cubic,
            mean,
            std,
        };
        read.size().map(|_| ()).ok_or_else(|| {
            config.error(
                "pictures of one size must come out: set `crop_size`, or `size` with both sides",
            )
        })?;
        Ok(read)
    }

    /// Rows and columns of the pictures that come out; none where that hangs on what goes in.
    pub fn size(&self) -> Option<[i64; 2]> {
        match (self.crop, self.resize) {
            (Some(crop), _) => Some(crop),
            (None, Some(Resize::Exact(size))) => Some(size),
            _ => None,
        }
    }

    /// Bytes `[n, h, w, 3]` scaled and cropped to bytes of [`size`](Self::size). Those that have it
    /// already are left as they are.
    ///
    /// # Errors
    /// Model, where the input has another shape or is smaller than what would be cut out of it;
    /// overload, where memory is short.
    pub fn fit(&self, frames: &Tensor) -> Result<Tensor> {
        let found = check(frames)?;
        if self.size() == Some(found) {
            return Ok(frames.shallow_clone());
        }
        let target = match self.resize {
            None => found,
            Some(Resize::Exact(size)) => size,
            Some(Resize::Shortest(short)) => {
                let long = |long: i64, shorter: i64| short * long / shorter;
                if found[0] <= found[1] {
                    [short, long(found[1], found[0])]
                } else {
                    [long(found[0], found[1]), short]
                }
            }
        };
        let mut planes = scaled(&frames.f_permute([0, 3, 1, 2])?, target, self.cubic)?;
        if let Some([rows, columns]) = self.crop {
            if rows > target[0] || columns > target[1] {
                let [h, w] = target;
                return Err(Error::model(format!(
                    "{rows}x{columns} pixels (rows x columns) cannot be cut out of {h}x{w}"
                ))
                .hint("preprocessor_config.json scales pictures to less than it crops"));
            }
            planes = planes.f_narrow(2, (target[0] - rows) / 2, rows)?.f_narrow(
                3,
                (target[1] - columns) / 2,
                columns,
            )?;
        }
        Ok(planes.f_permute([0, 2, 3, 1])?.f_contiguous()?)
    }
}

/// Of a value of 0..1, the byte.
fn byte(value: f64) -> f64 {
    value * 255.
}

/// Rows and columns of bytes `[n, h, w, 3]`; refuses what is something else.
pub(super) fn check(frames: &Tensor) -> Result<[i64; 2]> {
    match frames.size().as_slice() {
        &[n, h, w, 3] if n > 0 && h > 0 && w > 0 && frames.kind() == Kind::Uint8 => Ok([h, w]),
        size => Err(Error::model(format!(
            "frames must be bytes [n, height, width, 3], got {:?} of {size:?}",
            frames.kind()
        ))),
    }
}

/// Bytes `[n, 3, h, w]` at another size, antialiased.
fn scaled(planes: &Tensor, size: [i64; 2], cubic: bool) -> Result<Tensor> {
    if planes.size()[2..] == size {
        return Ok(planes.shallow_clone());
    }
    if planes.device() == Device::Cpu {
        // libtorch has a kernel for bytes here, ten times as fast as the one for numbers.
        return interpolated(planes, size, cubic);
    }
    scaled_as_numbers(planes, size, cubic)
}

/// The same where there is no kernel for bytes: columns first, then rows, each rounded to bytes as
/// it does.
fn scaled_as_numbers(planes: &Tensor, [rows, columns]: [i64; 2], cubic: bool) -> Result<Tensor> {
    let mut x = planes.f_to_kind(Kind::Float)?;
    for size in [[x.size()[2], columns], [rows, columns]] {
        x = interpolated(&x, size, cubic)?
            .f_round_()?
            .f_clamp_(0, 255)?;
    }
    Ok(x.f_to_kind(Kind::Uint8)?)
}

fn interpolated(planes: &Tensor, size: [i64; 2], cubic: bool) -> Result<Tensor> {
    Ok(match cubic {
        true => planes.f_internal_upsample_bicubic2d_aa(size, false, None, None)?,
        false => planes.f_internal_upsample_bilinear2d_aa(size, false, None, None)?,
    })
}

fn resize(config: &Config, size: &Value) -> Result<Resize> {
    let shortest = size
        .get("shortest_edge")
        .unwrap_or(size)
        .as_i64()
        .filter(|&side| side > 0);
    let square = config.boolean_or("use_square_size", false)?;
    match (shortest, sides(size)) {
        (Some(side), _) if square => Ok(Resize::Exact([side, side])),
        (Some(side), _) => Ok(Resize::Shortest(side)),
        (None, Some(size)) => Ok(Resize::Exact(size)),
        (None, None) => Err(config.error(format_args!(
            "`size` must be a number, `shortest_edge`, or `height` and `width`, it is {size}"
        ))),
    }
}

/// Rows and columns: a number for both, or `height` and `width`.
fn sides(size: &Value) -> Option<[i64; 2]> {
    let side = |key: &str| {
        size.get(key)
            .unwrap_or(size)
            .as_i64()
            .filter(|&side| side > 0)
    };
    Some([side("height")?, side("width")?])
}

fn channels(config: &Config, key: &str) -> Result<Option<[f64; 3]>> {
    let Some(field) = config.field(key) else {
        return Ok(None);
    };
    let numbers: Option<Vec<f64>> = field
        .as_array()
        .and_then(|list| list.iter().map(Value::as_f64).collect());
    let three = numbers.and_then(|numbers| <[f64; 3]>::try_from(numbers).ok());
    three
        .map(Some)
        .ok_or_else(|| config.error(format_args!("`{key}` must be three numbers, it is {field}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::golden::{goldens, noise};
    use serde_json::json;

    fn read(value: Value) -> Result<ImageProcessor> {
        ImageProcessor::read(&Config::of(value), &ImageProcessor::clip(224))
    }

    /// `tests/golden/pictures.py`: transformers' processors on the same bytes, with both of their
    /// backends.
    #[test]
    fn pictures_are_those_of_transformers() {
        let goldens = goldens("pictures.safetensors");
        let cubic = ImageProcessor {
            resize: Some(Resize::Shortest(30)),
            crop: Some([24, 28]),
            ..ImageProcessor::clip(24)
        };
        let linear = ImageProcessor {
            resize: Some(Resize::Exact([20, 26])),
            cubic: false,
            ..ImageProcessor::siglip(24)
        };
        for (name, preprocess) in [("clip", cubic), ("siglip", linear)] {
            for (shape, size) in [("wide", [45, 83]), ("high", [61, 40]), ("small", [15, 17])] {
                let found = preprocess
                    .fit(&noise(shape, &[2, size[0], size[1], 3]))
                    .unwrap();
                let torchvision = &goldens[&format!("{name}.{shape}.torchvision")];
                assert!(
                    found.equal(torchvision),
                    "{name} {shape}: not torchvision's bytes"
                );
                let apart = (found.to_kind(Kind::Int)
                    - goldens[&format!("{name}.{shape}.pil")].to_kind(Kind::Int))
                .abs();
                assert!(
                    apart.max().int64_value(&[]) <= 1,
                    "{name} {shape}: {} levels from PIL's",
                    apart.max()
                );
            }
        }
    }

    #[test]
    fn numbers_scale_as_bytes_do() {
        for (cubic, size) in [
            (true, [30, 55]),
            (false, [30, 55]),
            (true, [90, 100]),
            (false, [45, 20]),
        ] {
            let planes = noise("planes", &[1, 3, 45, 83]);
            let (bytes, numbers) = (
                scaled(&planes, size, cubic).unwrap(),
                scaled_as_numbers(&planes, size, cubic).unwrap(),
            );
            let apart = (bytes.to_kind(Kind::Int) - numbers.to_kind(Kind::Int))
                .abs()
                .max();
            assert!(
                apart.int64_value(&[]) <= 1,
                "{size:?} by cubics {cubic}: {} levels",
                apart.int64_value(&[])
            );
        }
    }

    #[test]
    fn frames_of_the_right_size_are_left_alone() {
        let frames = noise("fits", &[2, 224, 224, 3]);
        assert_eq!(
            ImageProcessor::clip(224).fit(&frames).unwrap().data_ptr(),
            frames.data_ptr()
        );
        assert_eq!(
            ImageProcessor::dinov2().fit(&frames).unwrap().data_ptr(),
            frames.data_ptr()
        );
        for wrong in [
            frames.to_kind(Kind::Float),
            frames.get(0),
            frames.narrow(3, 0, 2),
            frames.narrow(0, 0, 0),
        ] {
            assert_eq!(
                ImageProcessor::clip(224).fit(&wrong).unwrap_err().kind(),
                crate::error::Kind::Model
            );
        }
    }

    #[test]
    fn configs_of_every_age_are_read() {
        assert_eq!(read(json!({})).unwrap(), ImageProcessor::clip(224));
        let old = json!({"size": 336, "crop_size": 336, "resample": 3, "do_resize": true, "do_center_crop": true});
        assert_eq!(read(old).unwrap(), ImageProcessor::clip(336));
        let new = json!({"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 200}, "resample": 2});
        let read_new = read(new).unwrap();
        assert_eq!(
            (read_new.resize, read_new.crop, read_new.cubic),
            (Some(Resize::Shortest(256)), Some([224, 200]), false)
        );
        let siglip = json!({"size": {"height": 384, "width": 384}, "do_center_crop": false, "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5], "rescale_factor": 1. / 255.});
        assert_eq!(read(siglip).unwrap(), ImageProcessor::siglip(384));
        let plain = read(json!({"do_normalize": false})).unwrap();
        assert_eq!((plain.mean, plain.std), ([0.; 3], [255.; 3]));
    }

    #[test]
    fn configs_that_make_no_sense_are_refused() {
        for config in [
            json!({"size": "large"}),
            json!({"crop_size": {"height": 3}}),
            json!({"do_center_crop": false}),
            json!({"resample": 1}),
            json!({"image_std": [0.5, 0.0, 0.5]}),
            json!({"image_mean": [0.5]}),
            json!({"rescale_factor": 0}),
        ] {
            assert_eq!(
                read(config.clone()).unwrap_err().kind(),
                crate::error::Kind::Model,
                "{config}"
            );
        }
        let narrow = ImageProcessor {
            resize: Some(Resize::Shortest(20)),
            ..ImageProcessor::clip(24)
        };
        assert_eq!(
            narrow
                .fit(&noise("narrow", &[1, 40, 40, 3]))
                .unwrap_err()
                .kind(),
            crate::error::Kind::Model
        );
    }
}
