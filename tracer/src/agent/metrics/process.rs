//! What this process itself takes.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

/// Figures of this process; none where `/proc` does not tell.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessFigures {
    /// Processor time, user and system, seconds.
    pub cpu_seconds: Option<f64>,
    /// Resident memory, bytes.
    pub resident_bytes: Option<u64>,
    /// Virtual memory, bytes.
    pub virtual_bytes: Option<u64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// Most open file descriptors.
    pub max_fds: Option<u64>,
    /// When it started, seconds since 1970.
    pub start_seconds: Option<f64>,
}

impl ProcessFigures {
    /// The figures now; `started` is when the program started.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus counts in f64")]
    pub fn read(started: SystemTime) -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let page = rustix::param::page_size() as u64;
        let mut pages = statm.split_whitespace().map(|count| count.parse::<u64>().ok());
        let mut next = || pages.next().flatten().map(|count| count * page);
        let (virtual_bytes, resident_bytes) = (next(), next());
        Self {
            cpu_seconds: Some(cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9),
            resident_bytes,
            virtual_bytes,
            // The directory's own descriptor is among them.
            open_fds: fs::read_dir("/proc/self/fd").ok().map(|open| (open.count() as u64).saturating_sub(1)),
            max_fds: getrlimit(Resource::Nofile).current,
            start_seconds: started.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs_f64()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_figures() {
        let figures = ProcessFigures::read(SystemTime::now());
        assert!(figures.resident_bytes.unwrap() > 1 << 20);
        assert!(figures.virtual_bytes >= figures.resident_bytes);
        assert!((3..100_000).contains(&figures.open_fds.unwrap()));
        assert!(figures.cpu_seconds.unwrap() > 0.0 && figures.start_seconds.unwrap() > 1.7e9);
    }
}
