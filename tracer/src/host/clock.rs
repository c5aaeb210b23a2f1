//! The clocks of this host.

use std::{fs, sync::LazyLock};

use tracer_core::event::{ClockOffset, Timestamp};

/// The time on this host now, also in a process whose time namespace (Linux 5.6) has another clock.
pub fn now() -> Timestamp {
    static SHIFT: LazyLock<i128> =
        LazyLock::new(|| shift(&fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default()));
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let nanoseconds = i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
    Timestamp(u64::try_from(nanoseconds - *SHIFT).unwrap_or_default())
}

/// Measures the offset now. Taking the monotonic time on both sides of the wall clock's bounds the
/// error by half the time in between.
pub fn clock_offset() -> ClockOffset {
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

/// Nanoseconds by which a time namespace is ahead of the host (time_namespaces(7)); 0 where there is none.
fn shift(offsets: &str) -> i128 {
    let monotonic = offsets.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        // By name, and by the number of the clock in Linux 5.6.
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
    fn the_shift_of_a_time_namespace() {
        assert_eq!(shift("monotonic           0         0\nboottime            0         0\n"), 0);
        assert_eq!(shift("monotonic        1000       500\nboottime 7 0\n"), 1_000_000_000_500);
        assert_eq!(shift("monotonic          -2 500000000\n"), -1_500_000_000);
        assert_eq!(shift("1 3 0\n7 0 0\n"), 3_000_000_000);
        assert_eq!(shift(""), 0);
        assert_eq!(shift("monotonic x y"), 0);
    }
}
