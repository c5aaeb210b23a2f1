//! Maps BPF arrays into memory. Reading a mapping requires no privilege.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    ptr,
};

use aya::{Ebpf, maps::Map};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A memory mapping of a BPF map, shared with the programs.
#[derive(Debug)]
pub(crate) struct Mapping {
    address: *mut u8,
    length: usize,
}

// SAFETY: the mapping is shared memory and not bound to a thread.
unsafe impl Send for Mapping {}

/// The access of user space to the array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Read only.
    Read,
    /// Read and write.
    Write,
}

impl Mapping {
    /// Maps the first `length` bytes of `map`, rounded up to pages.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the mapping (arrays can be mapped since 5.5).
    pub(crate) fn new(map: impl AsFd, length: usize, access: Access) -> io::Result<Self> {
        Self::at_offset(map, 0, length, access)
    }

    /// Maps `length` bytes of `map` from `offset`, a multiple of the page size.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the mapping.
    pub(crate) fn at_offset(map: impl AsFd, offset: u64, length: usize, access: Access) -> io::Result<Self> {
        let length = length.next_multiple_of(rustix::param::page_size());
        let protection = match access {
            Access::Read => ProtFlags::READ,
            Access::Write => ProtFlags::READ | ProtFlags::WRITE,
        };
        // SAFETY: creates a new shared mapping, which `drop` unmaps.
        let address = unsafe { mmap(ptr::null_mut(), length, protection, MapFlags::SHARED, map, offset) }?;
        Ok(Self { address: address.cast(), length })
    }

    /// Returns the address of element `index` of an array of `T`.
    ///
    /// # Panics
    ///
    /// When the element is outside of the mapping.
    pub(crate) fn element<T>(&self, index: usize) -> *mut T {
        let end = (index + 1).checked_mul(size_of::<T>());
        assert!(end.is_some_and(|end| end <= self.length), "the mapping has no element {index}");
        // SAFETY: inside the mapping, as asserted above.
        unsafe { self.address.add(index * size_of::<T>()).cast() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `at_offset`, and not used after the drop.
        // The only error is that the range is not mapped, which needs no cleanup.
        let _ = unsafe { munmap(self.address.cast(), self.length) };
    }
}

/// Returns a descriptor of the array `name` of an object.
///
/// # Errors
///
/// When the object has no array with this name, or no file descriptor is left.
pub(crate) fn array(ebpf: &Ebpf, name: &str) -> io::Result<OwnedFd> {
    match ebpf.map(name) {
        Some(Map::Array(data)) => data.fd().as_fd().try_clone_to_owned(),
        _ => Err(io::Error::other(format!("the eBPF object has no array `{name}`"))),
    }
}
