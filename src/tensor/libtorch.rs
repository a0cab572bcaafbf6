//! What opusflow needs of libtorch that tch does not give, through the C++ shim in `shim.cpp`:
//! accounts of memory on the CPU, a GPU allocator's figures and cache, and the switches of a thread
//! and of the process.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::ptr::NonNull;

use tch::Device;

#[allow(unsafe_code)]
// SAFETY: these are the declarations of `shim.cpp`, which build.rs compiles and links.
unsafe extern "C" {
    fn opusflow_account_new() -> *mut c_void;
    fn opusflow_account_drop(account: *mut c_void);
    fn opusflow_account_enter(account: *mut c_void) -> *mut c_void;
    fn opusflow_account_held(account: *const c_void) -> i64;
    fn opusflow_account_peak(account: *const c_void) -> i64;
    fn opusflow_account_restart_peak(account: *mut c_void);
    fn opusflow_account_limit(account: *mut c_void, bytes: i64);
    safe fn opusflow_cuda_empty_cache() -> bool;
    fn opusflow_cuda_memory(index: i8, held: *mut i64, peak: *mut i64, reserved: *mut i64) -> bool;
    safe fn opusflow_cuda_total(index: i8) -> i64;
    safe fn opusflow_cuda_restart_peak(index: i8) -> bool;
    safe fn opusflow_allow_tf32(allowed: bool) -> bool;
    #[cfg(test)]
    safe fn opusflow_grad_enabled() -> bool;
    safe fn opusflow_inference_begin() -> *mut c_void;
    fn opusflow_inference_end(guard: *mut c_void);
}

/// What one owner holds of libtorch's memory on the CPU: all that threads allocate while they have
/// [entered](Self::enter) it, until it is freed, on whichever thread. Tensors' memory is counted;
/// what kernels take for themselves beside it is not.
#[derive(Debug)]
pub struct AllocationTracker(NonNull<c_void>);

// SAFETY: the account is atomic numbers behind a pointer.
#[allow(unsafe_code)]
unsafe impl Send for AllocationTracker {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for AllocationTracker {}

/// This thread allocates on an account until this is dropped.
#[derive(Debug)]
#[must_use = "the thread leaves the account when this is dropped"]
pub struct Entered<'a> {
    before: *mut c_void,
    // Neither Send nor Sync: it belongs to its thread.
    account: PhantomData<(&'a AllocationTracker, *mut c_void)>,
}

#[allow(unsafe_code)]
impl AllocationTracker {
    /// An account that nothing is booked on, without a limit.
    ///
    /// # Panics
    /// Never: the allocator that keeps accounts is entered before `main`.
    pub fn new() -> Self {
        // SAFETY: it gives a pointer that is ours until it is dropped.
        Self(
            NonNull::new(unsafe { opusflow_account_new() })
                .expect("the allocator that keeps accounts is entered before `main`"),
        )
    }

    /// Books what this thread allocates from now on.
    pub fn enter(&self) -> Entered<'_> {
        // SAFETY: the account outlives the guard, which takes the thread off it.
        Entered {
            before: unsafe { opusflow_account_enter(self.0.as_ptr()) },
            account: PhantomData,
        }
    }

    /// Bytes held now.
    pub fn held(&self) -> u64 {
        // SAFETY: the account lives as long as `self`.
        let held = unsafe { opusflow_account_held(self.0.as_ptr()) };
        // Memory is booked before it is handed out and taken off the account that its header names,
        // so that no thread sees more freed than was booked.
        debug_assert!(held >= 0, "an account holds {held} bytes");
        held.unsigned_abs()
    }

    /// Most bytes held at once since the peak was restarted.
    pub fn peak(&self) -> u64 {
        // SAFETY: as above.
        let peak = unsafe { opusflow_account_peak(self.0.as_ptr()) };
        debug_assert!(peak >= 0, "the peak of an account is {peak} bytes");
        peak.unsigned_abs()
    }

    /// The peak is what is held now.
    pub fn restart_peak(&self) {
        // SAFETY: as above.
        unsafe { opusflow_account_restart_peak(self.0.as_ptr()) }
    }

    /// From now on, what would lift the account above `bytes` is refused as out of memory; none for
    /// no limit.
    pub fn limit(&self, bytes: Option<u64>) {
        let bytes = bytes
            .and_then(|bytes| i64::try_from(bytes).ok())
            .unwrap_or(i64::MAX);
        // SAFETY: as above.
        unsafe { opusflow_account_limit(self.0.as_ptr(), bytes) }
    }
}

impl Default for AllocationTracker {
    fn default() -> Self {
        Self::new()
    }
}

#[allow(unsafe_code)]
impl Drop for AllocationTracker {
    fn drop(&mut self) {
        // SAFETY: the handle is given back once; what is still booked keeps the account alive.
        unsafe { opusflow_account_drop(self.0.as_ptr()) }
    }
}

#[allow(unsafe_code)]
impl Drop for Entered<'_> {
    fn drop(&mut self) {
        // SAFETY: guards are dropped in the reverse order of their making, so that `before` is null or an
        // account that its own guard keeps alive.
        unsafe { opusflow_account_enter(self.before) };
    }
}

/// The memory of a GPU as libtorch's allocator there sees it, for the whole process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuMemory {
    /// Bytes in tensors now.
    pub held: u64,
    /// Most bytes in tensors at once since [`restart_gpu_peak`].
    pub peak: u64,
    /// Bytes that the allocator has from the driver.
    pub reserved: u64,
}

/// The memory of a GPU; none where libtorch has not used one.
#[allow(unsafe_code)]
pub fn gpu_memory(index: usize) -> Option<GpuMemory> {
    let (mut held, mut peak, mut reserved) = (0, 0, 0);
    // SAFETY: the three numbers outlive the call.
    let found = unsafe {
        opusflow_cuda_memory(
            i8::try_from(index).ok()?,
            &mut held,
            &mut peak,
            &mut reserved,
        )
    };
    let [held, peak, reserved] = [held, peak, reserved].map(i64::unsigned_abs);
    found.then_some(GpuMemory {
        held,
        peak,
        reserved,
    })
}

/// Bytes that a GPU has; 0 where libtorch has not used it.
pub fn gpu_total(index: usize) -> u64 {
    i8::try_from(index).map_or(0, |index| opusflow_cuda_total(index).unsigned_abs())
}

/// The peak of a GPU is what it holds now.
pub fn restart_gpu_peak(index: usize) {
    if let Ok(index) = i8::try_from(index) {
        opusflow_cuda_restart_peak(index);
    }
}

/// Gives memory that is kept for later back to the system: a GPU's to its driver, the CPU's to the
/// kernel.
pub fn free_cached(device: Device) {
    match device {
        Device::Cuda(_) => opusflow_cuda_empty_cache(),
        _ => super::heap::purge(),
    };
}

/// Whether f32 on GPUs may be rounded to TF32 inside products and convolutions: three decimal
/// digits, for several times the speed on GPUs of compute capability 8 and newer. One switch for
/// the whole process.
pub fn allow_tf32(allowed: bool) -> bool {
    opusflow_allow_tf32(allowed)
}

/// Whether operations on this thread would build an autograd graph where their inputs ask for
/// gradients.
#[cfg(test)]
pub fn grad_enabled() -> bool {
    opusflow_grad_enabled()
}

/// libtorch's inference mode on this thread: no graph is built, and what is made keeps no counter
/// of its changes.
#[derive(Debug)]
#[must_use = "the mode ends when this is dropped"]
pub struct Inference(NonNull<c_void>);

impl Inference {
    /// From here on.
    ///
    /// # Panics
    /// Never: the mode is a small object that is always made.
    pub fn begin() -> Self {
        Self(NonNull::new(opusflow_inference_begin()).expect("`new` gives no null"))
    }
}

#[allow(unsafe_code)]
impl Drop for Inference {
    fn drop(&mut self) {
        // SAFETY: a pointer is not Send, so that this is the thread that began it, and it is dropped
        // once.
        unsafe { opusflow_inference_end(self.0.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use tch::{Kind, Tensor};

    use super::*;
    use crate::error::{Error, Kind as Who};

    const MIB: u64 = 1 << 20;

    fn floats(count: i64) -> Result<Tensor, tch::TchError> {
        Tensor::f_zeros([count], (Kind::Float, Device::Cpu))
    }

    #[test]
    fn an_account_knows_what_its_thread_holds_wherever_it_is_freed() {
        let account = AllocationTracker::new();
        let outside = floats(1 << 20).unwrap();
        let inside = {
            let _entered = account.enter();
            let inside = floats(1 << 20).unwrap();
            drop(floats(1 << 19).unwrap());
            inside
        };
        drop(outside);
        assert_eq!((account.held(), account.peak()), (4 * MIB, 6 * MIB));
        std::thread::spawn(move || drop(inside)).join().unwrap();
        assert_eq!((account.held(), account.peak()), (0, 6 * MIB));
        account.restart_peak();
        assert_eq!(account.peak(), 0);
    }

    #[test]
    fn what_is_booked_outlives_the_handle() {
        let account = AllocationTracker::new();
        let tensor = {
            let _entered = account.enter();
            floats(16).unwrap()
        };
        drop(account);
        assert_eq!(tensor.sum(Kind::Float).double_value(&[]), 0.);
    }

    #[test]
    fn a_limit_refuses_before_memory_is_taken() {
        let account = AllocationTracker::new();
        let _entered = account.enter();
        let held = floats(1 << 20).unwrap();
        account.limit(Some(6 * MIB));
        let error = Error::from(floats(1 << 20).unwrap_err());
        assert_eq!(error.kind(), Who::Overload, "{error}");
        assert!(
            error.message().contains("memory limit is 6291456 bytes"),
            "{error}"
        );
        assert_eq!(account.peak(), 4 * MIB);
        drop(held);
        assert!(floats(1 << 20).is_ok());
        account.limit(None);
        assert!(floats(1 << 22).is_ok());
    }

    #[test]
    fn inference_mode_builds_no_graph_until_it_ends() {
        let leaf = Tensor::from_slice(&[1f32]).set_requires_grad(true);
        assert!(grad_enabled());
        let mode = Inference::begin();
        assert!(!grad_enabled() && !(&leaf * 2.).requires_grad());
        drop(mode);
        assert!(grad_enabled() && (&leaf * 2.).requires_grad());
    }

    #[test]
    fn tf32_is_a_switch_without_a_gpu_too() {
        assert!(allow_tf32(true) && allow_tf32(false));
    }

    #[test]
    fn a_gpu_that_is_not_used_has_no_memory_and_no_cache() {
        if !tch::Cuda::is_available() {
            assert_eq!(gpu_memory(0), None);
        }
        assert_eq!((gpu_memory(4096), gpu_total(4096)), (None, 0));
        restart_gpu_peak(4096);
        free_cached(Device::Cuda(0));
    }
}
