//! What the kernel side counts, read without system calls that need a privilege.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _},
    os::fd::{AsFd, AsRawFd as _},
    sync::atomic::{AtomicU64, Ordering},
};

use tracer_ebpf::Counters;

use super::{
    btf::Btf,
    mapping::{Access, Mapping},
};

/// The kernel side's counters, mapped into memory.
#[derive(Debug)]
pub struct MappedCounters(Mapping);

impl MappedCounters {
    /// Maps the array of one [`Counters`] behind `map`.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the mapping (arrays can be mapped since 5.5).
    pub fn new(map: impl AsFd) -> io::Result<Self> {
        Mapping::new(map, size_of::<Counters>(), Access::Read).map(Self)
    }

    /// The counts now.
    pub fn read(&self) -> Counters {
        let load = |field: *const u64| {
            // SAFETY: inside the mapping, aligned, and written by the kernel with atomic additions.
            unsafe { AtomicU64::from_ptr(field.cast_mut()) }.load(Ordering::Relaxed)
        };
        let counters = self.0.element::<Counters>(0);
        // SAFETY: field addresses inside the live mapping.
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

/// How often the kernel skipped a program because it interrupted another one, and how long it ran.
///
/// Read from the program's entry in `/proc/self/fdinfo`, opened while the process still has its
/// privileges.
#[derive(Debug)]
pub struct SkipCounter {
    fdinfo: File,
    counts: bool,
    run_time_ns: Option<u64>,
}

impl SkipCounter {
    /// Opens the counter of the program behind `program`. `counts` is whether the kernel counts every skip of a
    /// program of this type, which the counter itself does not tell.
    ///
    /// # Errors
    ///
    /// When `/proc` is not mounted.
    pub fn open(program: impl AsFd, counts: bool) -> io::Result<Self> {
        let fdinfo = File::open(format!("/proc/self/fdinfo/{}", program.as_fd().as_raw_fd()))?;
        Ok(Self { fdinfo, counts, run_time_ns: None })
    }

    /// The count now; `None` when this kernel does not keep one: before 5.12, for a classic tracepoint before 6.7.
    pub fn read(&mut self) -> Option<u64> {
        let mut text = String::with_capacity(512);
        self.fdinfo.rewind().ok()?;
        self.fdinfo.read_to_string(&mut text).ok()?;
        // It stays 0 while the kernel keeps no statistics.
        self.run_time_ns = field(&text, "run_time_ns:").filter(|&time| time > 0);
        field(&text, "recursion_misses:").filter(|_| self.counts)
    }

    /// Nanoseconds that the program had run at the last [`read`](Self::read); `None` unless the kernel keeps
    /// BPF statistics.
    pub fn run_time_ns(&self) -> Option<u64> {
        self.run_time_ns
    }
}

/// Whether the kernel counts the skipped runs of programs on classic tracepoints.
///
/// It does since 6.7 (`trace_call_bpf`, "bpf: Count missed stats in `trace_call_bpf`"); before, the counter is there
/// and stays 0. The change itself leaves no trace in the kernel's types, but a field that the same series of
/// changes brought does.
pub fn tracepoint_skips_are_counted(types: &Btf) -> bool {
    types.offset_of("bpf_link_info", "kprobe_multi.missed").is_some()
}

fn field(fdinfo: &str, name: &str) -> Option<u64> {
    fdinfo.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_count_among_the_others() {
        let text = "pos:\t0\nprog_type:\t26\nrun_cnt:\t7\nrecursion_misses:\t42\nverified_insns:\t99\n";
        assert_eq!(field(text, "recursion_misses:"), Some(42));
        assert_eq!(field("pos:\t0\nprog_type:\t26\n", "recursion_misses:"), None);
        assert_eq!(field("recursion_misses:\tmany\n", "recursion_misses:"), None);
    }
}
