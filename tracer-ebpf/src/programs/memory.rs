//! The two ways to read a kernel structure, so that typed and untyped hooks share their bodies.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use tracer_ebpf::ABSENT;

/// Reads fields of kernel structures.
pub(crate) trait Memory {
    /// Whether a load is an instruction instead of a helper call.
    const CHEAP: bool;

    /// Reads a `T` at `address + offset`.
    fn load<T: Copy>(address: u64, offset: u32) -> T;

    /// Whether a bit-field of the structure at `address` is not 0: 1 or 0; 0 also where the kernel lacks the field.
    #[inline(always)]
    fn bit(address: u64, offset: u32, mask: u32) -> u32 {
        if offset == ABSENT { 0 } else { nonzero(u32::from(Self::load::<u8>(address, offset)) & mask) }
    }
}

/// 1 when a number of at most 8 bits is not 0, else 0. Without a branch: the verifier would walk the rest of the program
/// once more for each.
#[inline(always)]
pub(crate) fn nonzero(byte: u32) -> u32 {
    (byte + 0xff) >> 8
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
