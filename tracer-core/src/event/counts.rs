//! What a source delivered and what it could not.

/// Events that did not reach the core, as far as a source can count them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceCounts {
    /// Transitions handed to the core.
    pub seen: u64,
    /// Transitions that found the buffer full.
    pub lost: u64,
    /// Times the kernel skipped the program because it interrupted another one
    /// (`recursion_misses`); none where the kernel does not count them (before 5.12, on a
    /// classic tracepoint before 6.7).
    pub skipped: Option<u64>,
    /// Other records, such as resent SYN-ACKs, that found the buffer full.
    pub others_lost: u64,
    /// Times the view was renewed by a look at the host's sockets, after transitions had been missed.
    pub renewed: u64,
    /// Records that could not be understood. Always 0 unless the object and the program disagree.
    pub malformed: u64,
}
