//! Reads this process's resource usage from the kernel.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

use crate::agent::metrics::ProcessFigures;

/// Reads the resource usage of this process; `started` is its start time.
#[expect(clippy::cast_precision_loss, reason = "Prometheus values are f64")]
pub(crate) fn read(started: SystemTime) -> ProcessFigures {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let page = rustix::param::page_size() as u64;
    let mut pages = statm.split_whitespace().map(|count| count.parse::<u64>().ok());
    let mut next = || pages.next().flatten().map(|count| count * page);
    let (virtual_bytes, resident_bytes) = (next(), next());
    ProcessFigures {
        cpu_seconds: Some(cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9),
        resident_bytes,
        virtual_bytes,
        // One of the entries is the descriptor that reads the directory.
        open_fds: fs::read_dir("/proc/self/fd").ok().map(|open| (open.count() as u64).saturating_sub(1)),
        max_fds: getrlimit(Resource::Nofile).current,
        start_seconds: started.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_of_this_process_is_plausible() {
        let figures = read(SystemTime::now());
        assert!(figures.resident_bytes.unwrap() > 1 << 20);
        assert!(figures.virtual_bytes >= figures.resident_bytes);
        assert!((3..100_000).contains(&figures.open_fds.unwrap()));
        assert!(figures.cpu_seconds.unwrap() > 0.0 && figures.start_seconds.unwrap() > 1.7e9);
    }
}
