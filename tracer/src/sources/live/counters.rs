//! Reads the counters of the programs without privileged system calls.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _},
    os::fd::{AsFd, AsRawFd as _},
    sync::atomic::{AtomicU64, Ordering},
};

use tracer_core::event::Nanos;
use tracer_ebpf::Counters;

use crate::sources::live::{
    btf::Btf,
    mapping::{Access, Mapping},
};

/// The counters of the programs, mapped into memory.
#[derive(Debug)]
pub struct MappedCounters(Mapping);

impl MappedCounters {
    /// Maps `map`, an array with one [`Counters`].
    ///
    /// # Errors
    ///
    /// When the kernel refuses the mapping (arrays can be mapped since 5.5).
    pub fn new(map: impl AsFd) -> io::Result<Self> {
        Mapping::new(map, size_of::<Counters>(), Access::Read).map(Self)
    }

    /// Returns the current counts.
    pub fn read(&self) -> Counters {
        let load = |field: *const u64| {
            // SAFETY: the field is inside the mapping and aligned, and the kernel writes it with atomic additions.
            unsafe { AtomicU64::from_ptr(field.cast_mut()) }.load(Ordering::Relaxed)
        };
        let counters = self.0.element::<Counters>(0);
        // SAFETY: the fields are inside the mapping.
        let (transitions, others, twin) = unsafe {
            (
                &raw const (*counters).transitions_lost,
                &raw const (*counters).others_lost,
                &raw const (*counters).twin_taken,
            )
        };
        Counters {
            transitions_lost: load(transitions),
            others_lost: load(others),
            twin_taken: load(twin),
            reserved: 0,
        }
    }
}

/// Counts how often the kernel skipped a program because it interrupted another one, and how long the program ran.
///
/// The counts are in the program's file in `/proc/self/fdinfo`, which must be opened before the privileges are dropped.
#[derive(Debug)]
pub struct SkipCounter {
    fdinfo: File,
    counts: bool,
    run_time: Option<Nanos>,
}

impl SkipCounter {
    /// Opens the counter of `program`. `counts` is whether the kernel counts every skip of this program type: otherwise
    /// the counter exists and stays 0.
    ///
    /// # Errors
    ///
    /// When `/proc` is not mounted.
    pub fn open(program: impl AsFd, counts: bool) -> io::Result<Self> {
        let fdinfo = File::open(format!("/proc/self/fdinfo/{}", program.as_fd().as_raw_fd()))?;
        Ok(Self { fdinfo, counts, run_time: None })
    }

    /// Returns the current count; `None` if the kernel does not count: before 5.12, and for a classic tracepoint before
    /// 6.7.
    pub fn read(&mut self) -> Option<u64> {
        let mut text = String::with_capacity(512);
        self.fdinfo.rewind().ok()?;
        self.fdinfo.read_to_string(&mut text).ok()?;
        // The value stays 0 without BPF statistics.
        self.run_time = field(&text, "run_time_ns:").filter(|&time| time > 0).map(Nanos);
        field(&text, "recursion_misses:").filter(|_| self.counts)
    }

    /// Returns the run time of the program at the last [`read`](Self::read); `None` unless the kernel keeps BPF
    /// statistics.
    pub fn run_time(&self) -> Option<Nanos> {
        self.run_time
    }
}

/// Returns whether the kernel counts the skipped runs of programs on classic tracepoints.
///
/// It does since 6.7 (`trace_call_bpf`, "bpf: Count missed stats in `trace_call_bpf`"). Before, the counter exists and
/// stays
/// 0. The change itself is not visible in BTF, so this checks for a field that the same patch series added.
pub(crate) fn tracepoint_skips_are_counted(types: &Btf) -> bool {
    types.offset_of("bpf_link_info", "kprobe_multi.missed").is_some()
}

fn field(fdinfo: &str, name: &str) -> Option<u64> {
    fdinfo.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_fdinfo_is_parsed() {
        let text = "pos:\t0\nprog_type:\t26\nrun_cnt:\t7\nrecursion_misses:\t42\nverified_insns:\t99\n";
        assert_eq!(field(text, "recursion_misses:"), Some(42));
        assert_eq!(field("pos:\t0\nprog_type:\t26\n", "recursion_misses:"), None);
        assert_eq!(field("recursion_misses:\tmany\n", "recursion_misses:"), None);
    }
}
