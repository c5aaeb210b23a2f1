//! Minimal programs on the tracer's tracepoint: the cost of any program, and the cost of a record.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::mm::{MapFlags, ProtFlags};
use serde_json::json;
use tracer_ebpf::Record;

use crate::print;

const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_RAW_TRACEPOINT_OPEN: libc::c_int = 17;
const BPF_ENABLE_STATS: libc::c_int = 32;
const BPF_PROG_TYPE_RAW_TRACEPOINT: u32 = 17;
const BPF_MAP_TYPE_RINGBUF: u32 = 27;
const BPF_PSEUDO_MAP_FD: u8 = 1;
const BPF_STATS_RUN_TIME: u32 = 0;
const BPF_RB_NO_WAKEUP: i32 = 1;
const RINGBUF_RESERVE: i32 = 131;
const RINGBUF_SUBMIT: i32 = 132;

/// Size of the ring buffer.
const RING_BYTES: u32 = 4 << 20;

/// Interval of emptying the ring buffer.
const EMPTY_INTERVAL: Duration = Duration::from_millis(5);

/// One instruction, laid out as the kernel's `struct bpf_insn`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Instruction {
    opcode: u8,
    /// Destination register in the low nibble, source register in the high one.
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    const fn new(opcode: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Self {
        Self { opcode, registers: destination | source << 4, offset, immediate }
    }

    const fn set(register: u8, value: i32) -> Self {
        Self::new(0xb7, register, 0, 0, value)
    }

    const fn call(helper: i32) -> Self {
        Self::new(0x85, 0, 0, 0, helper)
    }

    const EXIT: Self = Self::new(0x95, 0, 0, 0, 0);
}

/// `return 0`.
const RETURN_ZERO: [Instruction; 2] = [Instruction::set(0, 0), Instruction::EXIT];

/// Reserves a record and submits it without writing to it.
fn submit_record(ring: &OwnedFd) -> Result<[Instruction; 11]> {
    let size = i32::try_from(size_of::<Record>()).context("a record is small")?;
    Ok([
        // Loading the map takes two instructions.
        Instruction::new(0x18, 1, BPF_PSEUDO_MAP_FD, 0, ring.as_raw_fd()),
        Instruction::new(0, 0, 0, 0, 0),
        Instruction::set(2, size),
        Instruction::set(3, 0),
        Instruction::call(RINGBUF_RESERVE),
        // Jumps to the end if the buffer is full.
        Instruction::new(0x15, 0, 0, 3, 0),
        Instruction::new(0xbf, 1, 0, 0, 0),
        Instruction::set(2, BPF_RB_NO_WAKEUP),
        Instruction::call(RINGBUF_SUBMIT),
        Instruction::set(0, 0),
        Instruction::EXIT,
    ])
}

/// The first fields of `union bpf_attr` for BPF_MAP_CREATE; the kernel treats the others as zero.
#[repr(C)]
struct MapCreate {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

/// The first fields of `union bpf_attr` for BPF_PROG_LOAD; the kernel treats the others as zero.
#[repr(C)]
struct ProgramLoad {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
}

/// The fields of `union bpf_attr` for BPF_RAW_TRACEPOINT_OPEN.
#[repr(C)]
struct RawTracepointOpen {
    name: u64,
    program: u32,
    padding: u32,
}

/// Attaches a program that does nothing.
pub(crate) fn empty(counted: bool) -> Result<()> {
    hold(&RETURN_ZERO, counted)
}

/// Attaches a program that only submits a record to a ring buffer.
pub(crate) fn record() -> Result<()> {
    let ring = bpf(
        BPF_MAP_CREATE,
        &MapCreate { kind: BPF_MAP_TYPE_RINGBUF, key_size: 0, value_size: 0, max_entries: RING_BYTES },
    )
    .context("the kernel has no BPF ring buffer: this requires Linux 5.8")?;
    let positions = RingPositions::map(&ring).context("could not map the ring buffer")?;
    thread::spawn(move || {
        loop {
            positions.empty();
            thread::sleep(EMPTY_INTERVAL);
        }
    });
    hold(&submit_record(&ring)?, true)
}

/// The positions of a ring buffer, mapped until the process exits.
struct RingPositions {
    consumer: &'static AtomicU64,
    producer: &'static AtomicU64,
}

impl RingPositions {
    fn map(ring: &OwnedFd) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let map = |protection, offset: usize| {
            // SAFETY: a new mapping of one page, which nothing else uses and which is never unmapped.
            let start = unsafe {
                rustix::mm::mmap(ptr::null_mut(), page, protection, MapFlags::SHARED, ring, offset as u64)
            }?;
            // SAFETY: the page is aligned and starts with a position, which the kernel also accesses
            // atomically as a whole.
            io::Result::Ok(unsafe { &*start.cast::<AtomicU64>() })
        };
        Ok(Self {
            consumer: map(ProtFlags::READ | ProtFlags::WRITE, 0)?,
            producer: map(ProtFlags::READ, page)?,
        })
    }

    /// Marks all records as consumed.
    fn empty(&self) {
        self.consumer.store(self.producer.load(Ordering::Acquire), Ordering::Release);
    }
}

/// Attaches a program and keeps it attached until stdin ends. With `counted` the kernel's statistics are
/// enabled while the descriptor is open (5.8), so they end with the process.
fn hold(instructions: &[Instruction], counted: bool) -> Result<()> {
    let kind = BPF_STATS_RUN_TIME;
    let _statistics = counted
        .then(|| bpf(BPF_ENABLE_STATS, &kind))
        .transpose()
        .context("could not enable the kernel's statistics of BPF programs: run this as root")?;
    let program = bpf(
        BPF_PROG_LOAD,
        &ProgramLoad {
            kind: BPF_PROG_TYPE_RAW_TRACEPOINT,
            instruction_count: u32::try_from(instructions.len()).context("a program is short")?,
            instructions: instructions.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log_buffer: 0,
        },
    )
    .context("the kernel rejected the program")?;
    let descriptor = u32::try_from(program.as_raw_fd()).context("a descriptor is not negative")?;
    let _link = bpf(
        BPF_RAW_TRACEPOINT_OPEN,
        &RawTracepointOpen { name: c"inet_sock_set_state".as_ptr() as u64, program: descriptor, padding: 0 },
    )
    .context("could not attach the program to inet_sock_set_state")?;
    print(&json!({ "attached": true }));
    io::stdin().read_line(&mut String::new()).map(drop).context("could not read standard input")
}

/// Calls `bpf` with a command that returns a descriptor.
fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of `attributes`, whose pointers refer to data that
    // outlives the call.
    let descriptor =
        unsafe { libc::syscall(libc::SYS_bpf, command, ptr::from_ref(attributes), size_of::<T>()) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: the call has just returned the descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
