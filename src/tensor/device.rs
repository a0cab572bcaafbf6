//! Where a model runs and in which number format, as the YAML says it and as it resolves on this
//! machine.

use std::fmt;
use std::str::FromStr;

use tch::{Cuda, Device, Kind};

use super::compute_capability;
use crate::error::{Error, Result};

/// A device as it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DeviceChoice {
    /// The first GPU if libtorch sees one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU of this index.
    Cuda(usize),
}

impl DeviceChoice {
    /// The device on this machine.
    ///
    /// # Errors
    /// Config, where a GPU is asked for by number that libtorch does not see.
    pub fn resolve(self) -> Result<Device> {
        match self {
            DeviceChoice::Auto => Ok(Device::cuda_if_available()),
            DeviceChoice::Cpu => Ok(Device::Cpu),
            DeviceChoice::Cuda(index) => {
                let seen = if Cuda::is_available() {
                    Cuda::device_count()
                } else {
                    0
                };
                if usize::try_from(seen).is_ok_and(|seen| index < seen) {
                    return Ok(Device::Cuda(index));
                }
                Err(Error::config(format!(
                    "device cuda:{index} is not there: libtorch sees {seen} GPUs"
                ))
                .hint(
                    "`device: auto` takes a GPU where there is one; a GPU needs libtorch_cuda.so \
                     of the same build beside libtorch",
                ))
            }
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "cuda" => Ok(DeviceChoice::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(DeviceChoice::Cuda)
                .ok_or_else(|| {
                    Error::config(format!("unknown device `{text}`"))
                        .hint("one of auto, cpu, cuda:0, cuda:1, ...")
                }),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Cpu => f.write_str("cpu"),
            DeviceChoice::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// The number format a model computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// IEEE 754 binary32.
    F32,
    /// bfloat16: binary32's range with 8 bits of mantissa.
    BF16,
    /// IEEE 754 binary16.
    F16,
}

impl Precision {
    /// The word in the YAML and in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::BF16 => "bf16",
            Precision::F16 => "f16",
        }
    }

    /// libtorch's word for it.
    pub const fn kind(self) -> Kind {
        match self {
            Precision::F32 => Kind::Float,
            Precision::BF16 => Kind::BFloat16,
            Precision::F16 => Kind::Half,
        }
    }

    /// Whether `device` computes it far slower than f32, for want of instructions: f16 on most
    /// CPUs.
    pub fn is_slow_on(self, device: Device) -> bool {
        self == Precision::F16 && device == Device::Cpu && !cpu_multiplies_f16()
    }

    /// The fastest that loses little on `device`: bf16 on GPUs of compute capability 8 and newer
    /// and on CPUs that multiply it in hardware (AVX-512 BF16; whatever has AMX has that too), else
    /// f32.
    pub fn best_on(device: Device) -> Self {
        let bf16 = match device {
            Device::Cuda(index) => compute_capability(index).is_some_and(|(major, _)| major >= 8),
            Device::Cpu => cpu_multiplies_bf16(),
            _ => false,
        };
        if bf16 {
            Precision::BF16
        } else {
            Precision::F32
        }
    }
}

#[cfg(target_arch = "x86_64")]
/// Whether oneDNN is the way to products and convolutions of this number format on this CPU: where
/// it has no instructions for bf16, libtorch's own are as fast.
pub(super) fn onednn_serves(kind: Kind) -> bool {
    kind == Kind::Float || kind == Kind::BFloat16 && cpu_multiplies_bf16()
}

pub(super) fn cpu_multiplies_bf16() -> bool {
    std::is_x86_feature_detected!("avx512bf16")
}

#[cfg(target_arch = "x86_64")]
fn cpu_multiplies_f16() -> bool {
    std::is_x86_feature_detected!("avx512fp16")
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn cpu_multiplies_bf16() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_multiplies_f16() -> bool {
    false
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A number format as it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PrecisionChoice {
    /// [`Precision::best_on`] the device.
    #[default]
    Auto,
    /// This one.
    Fixed(Precision),
}

impl PrecisionChoice {
    /// The number format on `device`.
    pub fn resolve(self, device: Device) -> Precision {
        match self {
            PrecisionChoice::Auto => Precision::best_on(device),
            PrecisionChoice::Fixed(precision) => precision,
        }
    }
}

impl FromStr for PrecisionChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(PrecisionChoice::Auto),
            "f32" => Ok(PrecisionChoice::Fixed(Precision::F32)),
            "bf16" => Ok(PrecisionChoice::Fixed(Precision::BF16)),
            "f16" => Ok(PrecisionChoice::Fixed(Precision::F16)),
            _ => Err(Error::config(format!("unknown precision `{text}`"))
                .hint("one of auto, f32, bf16, f16")),
        }
    }
}

impl fmt::Display for PrecisionChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PrecisionChoice::Auto => f.write_str("auto"),
            PrecisionChoice::Fixed(precision) => precision.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_read_as_they_are_written() {
        for text in ["auto", "cpu", "cuda:0", "cuda:7"] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap().to_string(), text);
        }
        for text in ["auto", "f32", "bf16", "f16"] {
            assert_eq!(text.parse::<PrecisionChoice>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn unknown_words_are_refused_with_the_known_ones() {
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "CPU"] {
            let error = text.parse::<DeviceChoice>().unwrap_err();
            assert!(error.hint_text().unwrap().contains("cuda:0"), "{text}");
        }
        assert!("fp32".parse::<PrecisionChoice>().is_err());
    }

    #[test]
    fn a_gpu_that_is_not_there_is_refused() {
        let error = DeviceChoice::Cuda(4096).resolve().unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Config);
    }

    #[test]
    fn a_fixed_precision_stays() {
        assert_eq!(
            PrecisionChoice::Fixed(Precision::F32).resolve(Device::Cpu),
            Precision::F32
        );
        assert_eq!(
            PrecisionChoice::Auto.resolve(Device::Cpu),
            Precision::best_on(Device::Cpu)
        );
    }
}
