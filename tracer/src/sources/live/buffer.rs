//! The size of the buffer for unread records.

/// Divisor of the host's memory that gives the default size of the buffer for unread records, of all CPUs together. The
/// result is a power of two between [`DEFAULT_BUFFER_MIN`] and [`DEFAULT_BUFFER_MAX`].
pub const DEFAULT_BUFFER_SHARE: u64 = 1024;
/// Smallest default size of the buffer.
///
/// A transition takes 64 to 192 bytes, about 100 on average, and transitions get half of the buffer. With two CPUs,
/// this is about 21,000 transitions each: 75 ms at the highest measured rate, nearly four poll intervals.
pub const DEFAULT_BUFFER_MIN: u32 = 8 << 20;
/// Largest default size of the buffer, unless the host has more than 64 CPUs.
pub const DEFAULT_BUFFER_MAX: u32 = 32 << 20;
/// Default minimum size of the buffer per CPU.
pub const DEFAULT_BUFFER_BYTES_PER_CPU: u32 = 512 << 10;
/// Returns the default size of the buffer on a host with these CPUs and this memory, a power of two.
pub(super) fn default_buffer(cpus: u32, memory: u64) -> u32 {
    let share = u32::try_from(memory / DEFAULT_BUFFER_SHARE).unwrap_or(u32::MAX);
    // The kernel reports less memory than is installed: 15.5 GiB of 16. So a share a little below a power of two is rounded
    // up, and others are rounded down.
    let share = share.saturating_add(share / 8).checked_ilog2().map_or(0, |bits| 1 << bits);
    share
        .clamp(DEFAULT_BUFFER_MIN, DEFAULT_BUFFER_MAX)
        .max(buffer_size(DEFAULT_BUFFER_BYTES_PER_CPU.saturating_mul(cpus)))
}

/// Rounds up to a power of two of at least a page, which the kernel requires.
pub(super) fn buffer_size(bytes: u32) -> u32 {
    let page = u32::try_from(rustix::param::page_size()).unwrap_or(4096);
    bytes.max(page).checked_next_power_of_two().unwrap_or(1 << 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_buffer_grows_with_the_memory_and_the_cpus() {
        let mib = |cpus, gib: u64| default_buffer(cpus, gib << 30) >> 20;
        assert_eq!([0, 1, 8, 14].map(|gib| mib(2, gib)), [8; 4]);
        assert_eq!([15, 16, 28, 31, 32, 1024].map(|gib| mib(2, gib)), [16, 16, 16, 32, 32, 32]);
        assert_eq!([16, 17, 96].map(|cpus| mib(cpus, 4)), [8, 16, 64]);
    }

    #[test]
    fn buffer_sizes_are_accepted_by_the_kernel() {
        assert_eq!(buffer_size(0), 4096);
        assert_eq!(buffer_size(4096), 4096);
        assert_eq!(buffer_size(5000), 8192);
        assert_eq!(buffer_size(u32::MAX), 1 << 31);
    }
}
