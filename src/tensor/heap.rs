//! The process's heap, jemalloc's, which libtorch's tensors on the CPU lie in too: what it keeps
//! for later can be given back to the kernel.

use std::ffi::CStr;

/// jemalloc's `MALLCTL_ARENAS_ALL` in the name of the control.
const PURGE: &CStr = c"arena.4096.purge";

/// Gives freed memory that is kept for later back to the kernel, all of it and now; by itself it
/// goes over ten seconds, and only while something is allocated.
#[allow(unsafe_code)]
pub fn purge() -> bool {
    // SAFETY: the name is a C string, and the control neither reads nor writes a value.
    unsafe {
        tikv_jemalloc_sys::mallctl(
            PURGE.as_ptr(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            0,
        ) == 0
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::c_void;

    use tch::{Device, Kind, Tensor};

    use super::*;

    const MIB: usize = 1 << 20;

    fn resident() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }

    #[test]
    #[allow(unsafe_code)]
    fn tensors_lie_in_the_heap() {
        let tensor = Tensor::zeros([3 * MIB as i64], (Kind::Uint8, Device::Cpu));
        // SAFETY: the memory begins with the shim's header of 64 bytes. It is of this heap, else
        // this test has found what it looks for: jemalloc could not tell the size of glibc's.
        let size = unsafe {
            tikv_jemalloc_sys::malloc_usable_size(
                tensor.data_ptr().cast::<u8>().sub(64).cast::<c_void>(),
            )
        };
        // jemalloc gives whole pages; glibc takes 16 bytes of them for itself.
        assert_eq!(size, 3 * MIB + 4096);
    }

    #[test]
    fn freed_tensors_are_given_back_to_the_kernel() {
        let given_back = || {
            let tensor = Tensor::ones([256 * MIB as i64], (Kind::Uint8, Device::Cpu));
            let before = resident();
            drop(tensor);
            assert!(purge());
            before.saturating_sub(resident())
        };
        // Other tests take memory meanwhile.
        assert!((0..5).any(|_| given_back() > 200 * MIB));
    }
}
