//! Reads the clocks of this host.

use std::{fs, sync::LazyLock};

use tracer_core::event::{ClockOffset, Timestamp};

/// Returns the host's monotonic time. Subtracts the offset of this process's time namespace (Linux 5.6).
pub(crate) fn now() -> Timestamp {
    static SHIFT: LazyLock<i128> =
        LazyLock::new(|| shift(&fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default()));
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let nanoseconds = i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
    Timestamp(u64::try_from(nanoseconds - *SHIFT).unwrap_or_default())
}

/// Measures the offset between the monotonic clock and UTC.
///
/// The monotonic clock is read before and after the wall clock, so the error is at most half the time between both
/// reads.
pub(crate) fn clock_offset() -> ClockOffset {
    use rustix::time::{ClockId, clock_gettime};
    let nanoseconds = |id| {
        let time = clock_gettime(id);
        i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
    };
    let before = i128::from(now().0);
    let utc = nanoseconds(ClockId::Realtime);
    let after = i128::from(now().0);
    ClockOffset { to_utc_ns: utc - i128::midpoint(before, after) }
}

/// Parses `timens_offsets`: how far the time namespace is ahead of the host, nanoseconds (time_namespaces(7)). Returns
/// 0 without a time namespace.
fn shift(offsets: &str) -> i128 {
    let monotonic = offsets.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        // Linux 5.6 writes the number of the clock instead of its name.
        matches!(words.next()?, "monotonic" | "1").then_some(words)
    });
    let mut numbers = monotonic.into_iter().flatten().map_while(|word| word.parse::<i128>().ok());
    let seconds = numbers.next().unwrap_or(0);
    seconds * 1_000_000_000 + numbers.next().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_of_a_time_namespace_is_parsed() {
        assert_eq!(shift("monotonic           0         0\nboottime            0         0\n"), 0);
        assert_eq!(shift("monotonic        1000       500\nboottime 7 0\n"), 1_000_000_000_500);
        assert_eq!(shift("monotonic          -2 500000000\n"), -1_500_000_000);
        assert_eq!(shift("1 3 0\n7 0 0\n"), 3_000_000_000);
        assert_eq!(shift(""), 0);
        assert_eq!(shift("monotonic x y"), 0);
    }
}
