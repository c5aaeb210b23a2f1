//! Two ways to read a kernel structure, so that one body serves both hooks.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

/// Reads fields of kernel structures.
pub(crate) trait Memory {
    /// Whether a load costs no call.
    const CHEAP: bool;

    /// Reads a `T` at `address + offset`.
    fn load<T: Copy>(address: u64, offset: u32) -> T;
}

/// Plain loads, for addresses whose type the verifier knows from BTF. The nearest to free.
pub(crate) struct Typed;

impl Memory for Typed {
    const CHEAP: bool = true;

    #[inline(always)]
    fn load<T: Copy>(address: u64, offset: u32) -> T {
        // SAFETY: the verifier checks that `offset`, a constant by then, is a field of the structure
        // at `address`; the kernel turns a fault into a zero.
        unsafe { ((address + u64::from(offset)) as *const T).read_volatile() }
    }
}

/// `bpf_probe_read_kernel`, for addresses that are mere numbers to the verifier.
pub(crate) struct Probed;

impl Memory for Probed {
    const CHEAP: bool = false;

    #[inline(always)]
    fn load<T: Copy>(address: u64, offset: u32) -> T {
        let mut value = MaybeUninit::<T>::zeroed();
        // SAFETY: the helper writes exactly `size_of::<T>()` bytes, zeros if the address faults; T is
        // only ever an integer or an array of them.
        unsafe {
            bpf_probe_read_kernel(
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
                (address + u64::from(offset)) as *const _,
            );
            value.assume_init()
        }
    }
}
