//! What is in a map, mapped into memory: reading it needs no privilege after the start.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    ptr,
};

use aya::{Ebpf, maps::Map};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Elements of a map in memory, shared with the programs.
#[derive(Debug)]
pub struct Mapping {
    address: *mut u8,
    length: usize,
}

// SAFETY: the mapping is shared memory; nothing about it is bound to a thread.
unsafe impl Send for Mapping {}

/// Whether user space writes to the array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It only reads.
    Read,
    /// It writes as well.
    Write,
}

impl Mapping {
    /// Maps the first `length` bytes of the array behind `map`; the kernel maps whole pages.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the mapping (arrays can be mapped since 5.5).
    pub fn new(map: impl AsFd, length: usize, access: Access) -> io::Result<Self> {
        Self::behind(map, 0, length, access)
    }

    /// Maps `length` bytes from `offset` on, a multiple of the page size.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the mapping.
    pub fn behind(map: impl AsFd, offset: u64, length: usize, access: Access) -> io::Result<Self> {
        let length = length.next_multiple_of(rustix::param::page_size());
        let protection = match access {
            Access::Read => ProtFlags::READ,
            Access::Write => ProtFlags::READ | ProtFlags::WRITE,
        };
        // SAFETY: a new shared mapping, unmapped on drop.
        let address = unsafe { mmap(ptr::null_mut(), length, protection, MapFlags::SHARED, map, offset) }?;
        Ok(Self { address: address.cast(), length })
    }

    /// Where the element `index` of an array of `T` is.
    ///
    /// # Panics
    ///
    /// When the mapping does not hold it.
    pub fn element<T>(&self, index: usize) -> *mut T {
        let end = (index + 1).checked_mul(size_of::<T>());
        assert!(end.is_some_and(|end| end <= self.length), "the mapping has no element {index}");
        // SAFETY: inside the mapping, as just asserted.
        unsafe { self.address.add(index * size_of::<T>()).cast() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, not used after.
        // An error could only mean that it is not mapped, and then there is nothing to undo.
        let _ = unsafe { munmap(self.address.cast(), self.length) };
    }
}

/// A descriptor of the array `name` of an object.
///
/// # Errors
///
/// When the object has no such array, or the process has no descriptors left.
pub fn array(ebpf: &Ebpf, name: &str) -> io::Result<OwnedFd> {
    match ebpf.map(name) {
        Some(Map::Array(data)) => data.fd().as_fd().try_clone_to_owned(),
        _ => Err(io::Error::other(format!("the eBPF object has no array `{name}`"))),
    }
}
