//! TorchScript modules: any network that was traced or scripted in PyTorch, with what it takes and
//! gives declared beside it. A module holds its own weights and computes as it was saved.

use serde_json::Value;
use tch::{CModule, Device, IValue, Kind, Tensor};

use super::config::Config;
use super::folder::{MODULE, ModelFolder, TORCHSCRIPT};
use super::image_processor::{ImageProcessor, Resize};
use super::network_spec::{Load, NetworkSpec, NetworkTask};
use crate::error::{Error, Result};
use crate::tensor::{Precision, normalise};

/// Its entry in the table of networks.
pub const NETWORK: NetworkSpec = NetworkSpec {
    classes: &[(TORCHSCRIPT, NetworkTask::RunModule)],
    load: Load::Checked(|folder, device, precision| {
        TorchScript::load(folder, device, precision).map(drop)
    }),
};

/// How pixels lie in what a module takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// `[n, 3, h, w]`, as PyTorch's convolutions take them.
    Nchw,
    /// `[n, h, w, 3]`.
    Nhwc,
}

/// Which of a module's outputs is its answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Output {
    /// This one of a tuple or list, from 0; 0 is also a module's only output.
    Index(usize),
    /// That under this key of a dictionary.
    Name(String),
}

impl Output {
    /// A number as it is written, or a name.
    pub fn parse(text: &str) -> Self {
        text.parse()
            .map_or_else(|_| Self::Name(text.to_owned()), Self::Index)
    }
}

/// What a module takes and gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Declared {
    /// Rows and columns of pictures; none takes frames as they come.
    pub size: Option<[i64; 2]>,
    /// What is taken off each channel of 0..1.
    pub mean: [f64; 3],
    /// What each channel is divided by then.
    pub std: [f64; 3],
    /// How pixels lie.
    pub layout: Layout,
    /// The answer.
    pub output: Output,
}

impl Default for Declared {
    fn default() -> Self {
        Self {
            size: None,
            mean: [0.; 3],
            std: [1.; 3],
            layout: Layout::Nchw,
            output: Output::Index(0),
        }
    }
}

impl Declared {
    /// From config.json: `input_size` (a number or `[rows, columns]`), `image_mean`, `image_std`,
    /// `layout` (`nchw` or `nhwc`), `output` (a number or a name); what is missing is the
    /// default's.
    ///
    /// # Errors
    /// Model, where a field is not what it must be.
    pub fn read(config: &Config) -> Result<Self> {
        let default = Self::default();
        let wrong = |key: &str, what: &str| config.error(format_args!("`{key}` must be {what}"));
        let size = match config.field("input_size") {
            None => None,
            Some(size) => Some(
                size.as_i64()
                    .map(|side| [side; 2])
                    .or_else(|| numbers(size))
                    .ok_or_else(|| wrong("input_size", "a number or two, rows and columns"))?,
            ),
        };
        let channels = |key: &str, default: [f64; 3]| match config.field(key) {
            None => Ok(default),
            Some(field) => numbers(field).ok_or_else(|| wrong(key, "three numbers")),
        };
        let output = match config.field("output") {
            None => default.output,
            Some(Value::String(name)) => Output::Name(name.clone()),
            Some(field) => Output::Index(
                field
                    .as_u64()
                    .ok_or_else(|| wrong("output", "a number of 0 or more, or a name"))?
                    as usize,
            ),
        };
        let layout = match config.string_or("layout", "nchw")? {
            "nchw" => Layout::Nchw,
            "nhwc" => Layout::Nhwc,
            _ => return Err(wrong("layout", "nchw or nhwc")),
        };
        let (mean, std) = (
            channels("image_mean", default.mean)?,
            channels("image_std", default.std)?,
        );
        if std.iter().any(|&std| std <= 0.)
            || size.is_some_and(|size| size.iter().any(|&side| side <= 0))
        {
            return Err(config.error("`image_std` and `input_size` must be above 0"));
        }
        Ok(Self {
            size,
            mean,
            std,
            layout,
            output,
        })
    }

    /// Bytes `[n, h, w, 3]` as the module takes them.
    fn pictures(&self, frames: &Tensor, precision: Precision) -> Result<Tensor> {
        let frames = match self.size {
            Some(size) => {
                let resize = Some(Resize::Exact(size));
                ImageProcessor {
                    resize,
                    crop: None,
                    cubic: false,
                    mean: self.mean,
                    std: self.std,
                }
                .fit(frames)?
            }
            None => frames.shallow_clone(),
        };
        let planes = normalise(&frames, self.mean, self.std, precision)?;
        // A module may look at memory as it pleases, so it gets it as its shape says.
        Ok(match self.layout {
            Layout::Nchw => planes.f_contiguous()?,
            Layout::Nhwc => planes.f_permute([0, 2, 3, 1])?.f_contiguous()?,
        })
    }
}

/// A module.
#[derive(Debug)]
pub struct TorchScript {
    module: CModule,
    device: Device,
    precision: Precision,
}

impl TorchScript {
    /// The module of a folder whose architecture is `TorchScript`. `precision` is that of the
    /// pictures it is given; the module must have been saved in it.
    ///
    /// # Errors
    /// Config, where the folder is another network's; model, where model.pt is no module.
    pub fn load(folder: &ModelFolder, device: Device, precision: Precision) -> Result<Self> {
        NETWORK.expect(folder)?;
        let path = folder.path().join(MODULE);
        let broken = |error| {
            Error::from(error).context(format_args!("{} is no TorchScript module", path.display()))
        };
        let mut module = CModule::load_on_device(&path, device).map_err(broken)?;
        module.f_set_eval()?;
        Ok(Self {
            module,
            device,
            precision,
        })
    }

    /// Where it runs.
    pub fn device(&self) -> Device {
        self.device
    }

    /// What it makes of frames on its device, bytes `[n, h, w, 3]`: the declared output, flattened,
    /// `[n, ..]` in f32.
    ///
    /// # Errors
    /// Model, where the module refuses them, or gives no such output with an entry a frame;
    /// overload, where memory is short.
    pub fn forward(&self, frames: &Tensor, declared: &Declared) -> Result<Tensor> {
        let _frozen = crate::tensor::guard();
        let pictures = declared.pictures(frames, self.precision)?;
        let given = self.module.forward_is(&[IValue::Tensor(pictures)])?;
        let answer = chosen(given, &declared.output)?;
        let n = frames.size()[0];
        if answer.size().first() != Some(&n) {
            return Err(Error::model(format!(
                "the module gives {:?} for {n} frames: its first size must be theirs",
                answer.size()
            )));
        }
        Ok(answer.f_to_kind(Kind::Float)?.f_reshape([n, -1])?)
    }
}

/// The declared one of what a module gives.
fn chosen(given: IValue, output: &Output) -> Result<Tensor> {
    let lacks = |what: String| {
        Error::model(format!(
            "the module gives {what}, and not its output {output:?}"
        ))
    };
    let (kind, found) = match (given, output) {
        (IValue::Tensor(tensor), Output::Index(0)) => return Ok(tensor),
        (IValue::Tensor(_), _) => return Err(lacks("a single tensor".to_owned())),
        (IValue::TensorList(mut tensors), Output::Index(at)) if *at < tensors.len() => {
            return Ok(tensors.swap_remove(*at));
        }
        (IValue::TensorList(tensors), _) => {
            return Err(lacks(format!("a list of {} tensors", tensors.len())));
        }
        (IValue::Tuple(mut parts) | IValue::GenericList(mut parts), Output::Index(at))
            if *at < parts.len() =>
        {
            ("at that place", parts.swap_remove(*at))
        }
        (IValue::Tuple(parts) | IValue::GenericList(parts), _) => {
            return Err(lacks(format!("{} outputs by number", parts.len())));
        }
        (IValue::GenericDict(parts), Output::Name(name)) => {
            let names: Vec<String> = parts
                .iter()
                .map(|(key, _)| {
                    if let IValue::String(key) = key {
                        key.clone()
                    } else {
                        String::new()
                    }
                })
                .collect();
            let at = names.iter().position(|key| key == name);
            let at = at.ok_or_else(|| lacks(format!("outputs called {}", names.join(", "))))?;
            (
                "under that name",
                parts
                    .into_iter()
                    .nth(at)
                    .map_or(IValue::None, |(_, part)| part),
            )
        }
        (IValue::GenericDict(parts), _) => {
            return Err(lacks(format!("{} outputs by name", parts.len())));
        }
        _ => return Err(lacks("something that holds no tensor".to_owned())),
    };
    match found {
        IValue::Tensor(tensor) => Ok(tensor),
        _ => Err(lacks(format!("something that is no tensor {kind}"))),
    }
}

fn numbers<T: serde::de::DeserializeOwned, const N: usize>(field: &Value) -> Option<[T; N]> {
    serde_json::from_value::<Vec<T>>(field.clone())
        .ok()?
        .try_into()
        .ok()
}

#[cfg(test)]
pub(in crate::models) mod tests;
