//! Lanes: how records get from one program on one CPU to user space without a lock.
//!
//! Each program has its own lane on each CPU, so a lane has one writer: from 6.1 on the kernel does not run a tracing
//! program on a CPU where that program is already active. On older kernels an interrupt may start the program again;
//! the inner run finds the lane [busy](LaneHeader::busy) and uses the ring buffer.
//! A lane is a circle of chunks. Its positions only grow, by the length of each record, and no record is split.

/// Bytes of a chunk as positions count them, a power of two.
pub const CHUNK: usize = 4096;

/// Bytes reserved for a record; the longest record takes [`MAX_RECORD`](crate::MAX_RECORD).
pub const ROOM: usize = 256;

/// Bytes of a chunk in the map of chunks. A record that begins near the end of a chunk continues behind it, and the next
/// record begins in the next chunk at the position that follows. So a mask is enough to prove a record's place to the
/// verifier.
pub const STRIDE: usize = CHUNK + ROOM;

/// The lanes of one CPU, one for each program that writes records.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Records of [`RecordKind::Transition`](crate::RecordKind::Transition), by the first program.
    Transition = 0,
    /// Records of [`RecordKind::SynAckRetransmit`](crate::RecordKind::SynAckRetransmit).
    SynAckRetransmit = 1,
    /// Records of [`RecordKind::FirstRead`](crate::RecordKind::FirstRead).
    FirstRead = 2,
    /// Records of [`RecordKind::TimeWaitEnd`](crate::RecordKind::TimeWaitEnd).
    TimeWaitEnd = 3,
    /// Records of [`RecordKind::Transition`](crate::RecordKind::Transition) with [`flags::TWIN`](crate::flags::TWIN), by
    /// the twin program. It cannot share the first program's lane: where tracepoints are preemptible, a task can be
    /// preempted in one program while another task runs the other program on the same CPU.
    TransitionTwin = 4,
    /// Records of [`RecordKind::Accepted`](crate::RecordKind::Accepted).
    Accepted = 5,
    /// Records of [`RecordKind::ResetSent`](crate::RecordKind::ResetSent).
    ResetSent = 6,
    /// Records of [`RecordKind::ResetReceived`](crate::RecordKind::ResetReceived).
    ResetReceived = 7,
    /// Records of [`RecordKind::SegmentDropped`](crate::RecordKind::SegmentDropped), from `skb:kfree_skb`.
    SegmentDropped = 8,
    /// Records of [`RecordKind::SegmentDropped`](crate::RecordKind::SegmentDropped), from `tcp_conn_request`.
    AcceptQueueFull = 9,
    /// Records of [`RecordKind::FirstWrite`](crate::RecordKind::FirstWrite).
    FirstWrite = 10,
}

impl Lane {
    /// Every lane of a CPU, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::Transition,
        Self::SynAckRetransmit,
        Self::FirstRead,
        Self::TimeWaitEnd,
        Self::TransitionTwin,
        Self::Accepted,
        Self::ResetSent,
        Self::ResetReceived,
        Self::SegmentDropped,
        Self::AcceptQueueFull,
        Self::FirstWrite,
    ];
}

/// Lanes of each CPU.
pub const LANES_PER_CPU: u32 = 11;

/// The number of a CPU's lane among the lanes of all CPUs.
pub const fn lane_of(cpu: u32, lane: Lane) -> u32 {
    cpu * LANES_PER_CPU + lane as u32
}

/// Network namespaces that each lane caches.
pub const REMEMBERED_NETNS: usize = 4;

/// A network namespace as the lane's program last read it. 16 bytes.
///
/// The inode shares a cache line with a reference count that every socket's creation and release changes on some CPU:
/// reading the inode for each record takes a quarter of the program's time. `hash_mix` is random, so a `struct net` at the
/// same address with the same `hash_mix` is the same namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KnownNetns {
    /// Address of the `struct net`; 0 for an empty entry.
    pub net: u64,
    /// Its `hash_mix`.
    pub hash_mix: u32,
    /// Its inode.
    pub inode: u32,
}

/// The state of a lane: an element of a memory-mapped array. 192 bytes: the fields that the writer changes, those that the
/// reader changes, and the writer's cache have a cache line each.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneHeader {
    /// The writer's position, bytes; everything before it is written.
    pub head: u64,
    /// Bytes of the lane, a power of two of at least [`CHUNK`]; 0 when this CPU has no lane. Set before the programs load.
    pub size: u32,
    /// Number of the lane's first chunk. Set before the programs load.
    pub first_chunk: u32,
    /// The writer wakes the reader when the pending bytes cross a multiple of this; a power of two. Set before the
    /// programs load.
    pub wakeup_bytes: u32,
    /// 1 while a record is being written: a program that has interrupted the writer must not use the lane.
    pub busy: u32,
    /// In [`Lane::Transition`]: the transition that the first program handled last on this CPU, for the twin program; 0
    /// when the twin has read it. Set also where the CPU has no lane.
    pub receipt: u64,
    /// The rest of the writer's cache line.
    pub padding: [u64; 4],
    /// The reader's position, bytes; everything before it may be overwritten.
    pub tail: u64,
    /// The rest of the reader's cache line.
    pub reader_padding: [u64; 7],
    /// Cached namespaces, indexed by the low bits of their `hash_mix`.
    pub netns: [KnownNetns; REMEMBERED_NETNS],
}

const _: () = {
    assert!(size_of::<LaneHeader>() == 192);
    assert!(REMEMBERED_NETNS.is_power_of_two());
    assert!(core::mem::offset_of!(LaneHeader, tail) == 64);
    assert!(crate::MAX_RECORD <= ROOM && ROOM.is_multiple_of(8));
    assert!(Lane::ALL.len() == LANES_PER_CPU as usize);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lane_numbers_are_distinct_and_without_gaps() {
        let mut lanes = [false; 3 * LANES_PER_CPU as usize];
        for cpu in 0..3 {
            for lane in Lane::ALL {
                let used = &mut lanes[lane_of(cpu, lane) as usize];
                assert!(!*used);
                *used = true;
            }
        }
        assert!(lanes.iter().all(|used| *used));
    }
}
