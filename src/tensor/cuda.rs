//! CUDA, found at run time: the binary links libtorch's CPU half only, and `libtorch_cuda.so` of
//! the same build registers its kernels with it when it is loaded.

use std::ffi::{CStr, CString, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const CUDA: &str = "libtorch_cuda.so";
const CPU: &str = "libtorch_cpu.so";

/// `cudaDevAttrComputeCapabilityMajor` and `...Minor` of CUDA's `driver_types.h`.
const CAPABILITY: [c_int; 2] = [75, 76];

/// Loads `libtorch_cuda.so` from `folder`, or from where libtorch itself was loaded, and returns
/// its path. None where there is none or it cannot be loaded (no driver, another build): the CPU
/// serves then. Call it once, before the first tensor.
pub fn load_cuda(folder: Option<&Path>) -> Option<PathBuf> {
    let folder = folder.map(Path::to_path_buf).or_else(libtorch_folder)?;
    let path = folder.join(CUDA);
    if !path.exists() {
        return None;
    }
    let name = CString::new(path.as_os_str().as_bytes()).ok()?;
    open(&name).then_some(path)
}

/// Compute capability (major, minor) of a GPU, where libtorch's CUDA half is loaded.
pub fn compute_capability(index: usize) -> Option<(i32, i32)> {
    if !tch::Cuda::is_available() {
        return None;
    }
    let device = c_int::try_from(index).ok()?;
    let ask = attribute_fn()?;
    Some((
        attribute(ask, CAPABILITY[0], device)?,
        attribute(ask, CAPABILITY[1], device)?,
    ))
}

/// The folder that the running process has mapped `libtorch_cpu.so` from.
fn libtorch_folder() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let path = maps
        .lines()
        .filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])))
        .find(|path| path.ends_with(CPU))?;
    path.parent().map(Path::to_path_buf)
}

#[allow(unsafe_code)]
fn open(name: &CStr) -> bool {
    // SAFETY: `name` is a valid C string. The library's initialisers only register kernels with
    // libtorch_cpu, which is loaded already; the handle is never closed, so nothing registered can
    // dangle.
    !unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) }.is_null()
}

type DeviceAttribute = unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int;

/// `cudaDeviceGetAttribute` of the CUDA runtime that libtorch brought along.
#[allow(unsafe_code)]
fn attribute_fn() -> Option<DeviceAttribute> {
    // SAFETY: the name is a valid C string; RTLD_DEFAULT searches what is loaded.
    let symbol: *mut c_void =
        unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"cudaDeviceGetAttribute".as_ptr()) };
    // SAFETY: CUDA's runtime API declares it as `cudaError_t cudaDeviceGetAttribute(int*, enum,
    // int)`, stable since CUDA 5; both the enum and the error are ints in C.
    (!symbol.is_null())
        .then(|| unsafe { std::mem::transmute::<*mut c_void, DeviceAttribute>(symbol) })
}

#[allow(unsafe_code)]
fn attribute(ask: DeviceAttribute, which: c_int, device: c_int) -> Option<i32> {
    let mut value = 0;
    // SAFETY: `value` outlives the call; a device that is not there is answered with an error code.
    (unsafe { ask(&mut value, which, device) } == 0).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtorch_is_found_where_it_was_loaded_from() {
        tch::get_num_threads();
        assert!(libtorch_folder().unwrap().join(CPU).exists());
    }

    #[test]
    fn a_library_that_cannot_be_loaded_is_none() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(load_cuda(Some(folder.path())), None);
        std::fs::write(folder.path().join(CUDA), b"not a library").unwrap();
        assert_eq!(load_cuda(Some(folder.path())), None);
    }

    #[test]
    fn a_gpu_that_is_not_there_has_no_capability() {
        assert_eq!(compute_capability(4096), None);
    }
}
