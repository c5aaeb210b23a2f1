//! A counting allocator, to install with `#[global_allocator]`.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicU64, Ordering},
};

static CALLS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

/// The system allocator, with counts of allocations and of bytes in use.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counting;

// SAFETY: every call is forwarded to the system allocator with unchanged arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_allocation(layout.size());
        // SAFETY: the caller upholds the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count_allocation(layout.size());
        // SAFETY: the caller upholds the same contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count_release(layout.size());
        // SAFETY: the caller upholds the same contract.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count_release(layout.size());
        count_allocation(new_size);
        // SAFETY: the caller upholds the same contract.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

fn count_allocation(size: usize) {
    CALLS.fetch_add(1, Ordering::Relaxed);
    BYTES.fetch_add(size as u64, Ordering::Relaxed);
}

fn count_release(size: usize) {
    BYTES.fetch_sub(size as u64, Ordering::Relaxed);
}

/// Returns the number of allocations so far, including reallocations. 0 unless [`Counting`] is installed.
pub fn calls() -> u64 {
    CALLS.load(Ordering::Relaxed)
}

/// Returns the requested bytes currently in use. 0 unless [`Counting`] is installed.
pub fn bytes_in_use() -> u64 {
    BYTES.load(Ordering::Relaxed)
}
