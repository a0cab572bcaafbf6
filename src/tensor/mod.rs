//! Devices, number formats, and frames as tensors: what every network needs from libtorch that tch
//! does not give.

mod attention;
mod convolution;
mod cuda;
mod device;
mod heap;
mod libtorch;
mod matmul;
mod norm;
mod pixels;

pub(crate) use attention::{attention, attention_of_one};
pub(crate) use convolution::Conv2dParams;
pub(crate) use cuda::{compute_capability, load_cuda};
pub use device::{DeviceChoice, Precision, PrecisionChoice};
pub use libtorch::{AllocationTracker, Inference};
pub(crate) use libtorch::{allow_tf32, free_cached, gpu_memory, gpu_total, restart_gpu_peak};
pub(crate) use matmul::{PostOp, pack, product};
pub(crate) use norm::group_norm;
pub use pixels::frames_to_tensor;
pub(crate) use pixels::{channels_last, normalise, resize};
pub(crate) use tch::NoGradGuard;
pub use tch::{Device, Kind, Tensor};

use crate::error::Error;

/// What libtorch says is known by its text alone; these are its words, in lower case, for memory that
/// could not be had: on a GPU, by the CPU's allocator, inside cuBLAS, by the system.
const OUT_OF_MEMORY: [&str; 6] = [
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "cannot allocate memory",
    "defaultcpuallocator",
    "cublas_status_alloc_failed",
];

/// Whether this is what libtorch says, in an error or a panic, where memory could not be had.
pub(crate) fn is_out_of_memory(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    OUT_OF_MEMORY.iter().any(|words| text.contains(words))
}

impl From<tch::TchError> for Error {
    /// Memory that could not be had is [`overload`](crate::error::Kind::Overload): a smaller batch
    /// may pass. All else is the model's.
    fn from(error: tch::TchError) -> Self {
        let text = error.to_string();
        // libtorch appends its own stack trace, which says nothing to a user.
        let message = text
            .split("\nException raised from")
            .next()
            .unwrap_or(&text)
            .trim()
            .to_owned();
        if is_out_of_memory(&message) {
            Error::overload(format!("libtorch: {message}"))
                .hint("a smaller batch, or fewer models on this device, needs less memory")
        } else {
            Error::model(format!("libtorch: {message}"))
        }
    }
}

/// Turns gradients off on this thread until the returned guard is dropped. Bind it to a name: `_` drops
/// it at once.
#[must_use = "gradients come back when the guard is dropped"]
pub fn guard() -> NoGradGuard {
    tch::no_grad_guard()
}

/// Sets how many threads one operation of libtorch uses on the CPU, at least 1. Takes full effect
/// only before the first operation.
pub fn threads(count: usize) {
    tch::set_num_threads(i32::try_from(count.max(1)).unwrap_or(i32::MAX));
}

/// How many threads one operation of libtorch uses on the CPU.
pub fn thread_count() -> usize {
    usize::try_from(tch::get_num_threads()).unwrap_or(1)
}

#[cfg(test)]
pub(crate) use libtorch::grad_enabled;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind as Who;

    #[test]
    fn shapes_that_do_not_fit_are_the_models_error() {
        let error = Error::from(
            Tensor::from_slice(&[1f32, 2.])
                .f_matmul(&Tensor::from_slice(&[1f32, 2., 3.]))
                .unwrap_err(),
        );
        assert_eq!(error.kind(), Who::Model);
        assert!(
            !error.message().contains("Exception raised from"),
            "{error}"
        );
    }

    #[test]
    fn memory_that_cannot_be_had_is_overload() {
        let error =
            Error::from(Tensor::f_empty([1 << 50], (Kind::Float, Device::Cpu)).unwrap_err());
        assert_eq!(error.kind(), Who::Overload, "{error}");
    }

    #[test]
    fn guard_turns_gradients_off_until_it_is_dropped() {
        let leaf = Tensor::from_slice(&[1f32]).set_requires_grad(true);
        let held = guard();
        assert!(!(&leaf * 2.).requires_grad());
        drop(held);
        assert!((&leaf * 2.).requires_grad());
    }
}
