//! The two ways to read a kernel structure, so that typed and untyped hooks share their bodies.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

/// Reads fields of kernel structures.
pub(crate) trait Memory {
    /// Whether a load is an instruction instead of a helper call.
    const CHEAP: bool;

    /// Reads a `T` at `address + offset`.
    fn load<T: Copy>(address: u64, offset: u32) -> T;
}

/// Plain loads, for addresses whose type the verifier knows from BTF.
pub(crate) struct Typed;

impl Memory for Typed {
    const CHEAP: bool = true;

    #[inline(always)]
    fn load<T: Copy>(address: u64, offset: u32) -> T {
        // SAFETY: at load time `offset` is a constant, and the verifier checks that it is a field of the structure
        // at `address`; on a fault the kernel returns zero.
        unsafe { ((address + u64::from(offset)) as *const T).read_volatile() }
    }
}

/// `bpf_probe_read_kernel`, for addresses that are scalars to the verifier.
pub(crate) struct Probed;

impl Memory for Probed {
    const CHEAP: bool = false;

    #[inline(always)]
    fn load<T: Copy>(address: u64, offset: u32) -> T {
        let mut value = MaybeUninit::<T>::zeroed();
        // SAFETY: the helper writes exactly `size_of::<T>()` bytes, zeros if the address faults; every T in use is an
        // integer or an array of integers.
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
