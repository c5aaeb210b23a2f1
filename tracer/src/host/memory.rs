//! Memory of this process and of the host.

/// Returns the memory of the host, bytes (sysinfo(2)).
pub(crate) fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}

/// Takes the items in order, and frees their memory meanwhile. The result of a socket dump then does not add to the
/// connection table that is built from it.
pub(crate) fn take_and_free<T>(mut items: Vec<T>) -> impl Iterator<Item = T> {
    /// Items between two shrinks, which are cheap because the C library only unmaps the pages behind a large block.
    const SHRINK_EVERY: usize = 4_096;
    items.reverse();
    std::iter::from_fn(move || {
        let item = items.pop();
        if items.len().is_multiple_of(SHRINK_EVERY) {
            items.shrink_to_fit();
        }
        item
    })
}

/// Returns memory that the C library holds for later allocations to the kernel.
pub(crate) fn release_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_taken_in_order() {
        for length in [0, 1, 4_096, 10_000] {
            let items: Vec<u32> = (0..length).collect();
            assert!(take_and_free(items).eq(0..length), "{length}");
        }
    }
}
