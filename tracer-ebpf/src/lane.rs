//! Lanes: how records get from one program on one CPU to user space without a lock.
//!
//! Each program has a lane of its own on each CPU, so a lane has one writer: the kernel does not run a tracing
//! program on a CPU where it runs already (6.1; before, the inner run finds the lane [busy](LaneHeader::busy)).
//! A lane is a circle of chunks. Positions in it only grow, by the length of each record, and no record is torn.

use crate::RecordKind;

/// Bytes of a chunk as positions count them, a power of two.
pub const CHUNK: usize = 4096;

/// Room that a record is given; the longest takes [`MAX_RECORD`](crate::MAX_RECORD).
pub const ROOM: usize = 256;

/// Bytes of a chunk in the map that holds them: a record that begins at its end runs on behind it, and the next begins
/// in the next chunk, as far in as that. So a mask is all that the verifier has to know of a record's place.
pub const STRIDE: usize = CHUNK + ROOM;

/// Lanes of each CPU: one for each [`RecordKind`], as each kind has one program.
pub const LANES_PER_CPU: u32 = 4;

/// Which of the lanes of all CPUs a kind of record takes on this CPU.
pub const fn lane_of(cpu: u32, kind: RecordKind) -> u32 {
    cpu * LANES_PER_CPU + kind as u32 - RecordKind::Transition as u32
}

/// Network namespaces that a lane's program remembers.
pub const REMEMBERED_NETNS: usize = 4;

/// A network namespace as a lane's program has last seen it. 16 bytes.
///
/// The inode lies beside a count that every socket's begin and end changes on some CPU, so that to read it each time
/// would cost a quarter of the program. A `struct net` at the same address with the same `hash_mix`, a random
/// number, is the same namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KnownNetns {
    /// Address of the `struct net`; 0 for none.
    pub net: u64,
    /// Its `hash_mix`.
    pub hash_mix: u32,
    /// Its inode.
    pub inode: u32,
}

/// A lane's state: an element of a memory-mapped array. 192 bytes: what the writer writes, what the reader writes and
/// what the writer remembers have a cache line each.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneHeader {
    /// The writer's position, bytes; everything before it is written.
    pub head: u64,
    /// Bytes of the lane, a power of two of at least [`CHUNK`]; 0 when there is none. Set before the programs load.
    pub size: u32,
    /// Its first chunk. Set before the programs load.
    pub first_chunk: u32,
    /// Pending bytes, each multiple of which wakes the reader when crossed; a power of two. Set before the programs load.
    pub wakeup_bytes: u32,
    /// 1 while a record is written: a program that has interrupted the writer must not touch the lane.
    pub busy: u32,
    /// The rest of the writer's cache line.
    pub padding: [u64; 5],
    /// The reader's position, bytes; everything before it may be written over.
    pub tail: u64,
    /// The rest of the reader's cache line.
    pub reader_padding: [u64; 7],
    /// Namespaces by the low bits of their `hash_mix`.
    pub netns: [KnownNetns; REMEMBERED_NETNS],
}

const _: () = {
    assert!(size_of::<LaneHeader>() == 192);
    assert!(REMEMBERED_NETNS.is_power_of_two());
    assert!(core::mem::offset_of!(LaneHeader, tail) == 64);
    assert!(crate::MAX_RECORD <= ROOM && ROOM.is_multiple_of(8));
    assert!(RecordKind::ALL.len() == LANES_PER_CPU as usize);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_on_every_cpu_has_its_lane() {
        let mut lanes: [bool; 12] = [false; 12];
        for cpu in 0..3 {
            for kind in RecordKind::ALL {
                let lane = &mut lanes[lane_of(cpu, kind) as usize];
                assert!(!*lane);
                *lane = true;
            }
        }
        assert_eq!(lanes, [true; 12]);
    }
}
