//! Programs that do as little as can be done on the tracepoint that the tracer uses: what any program there costs,
//! and what a record of it costs.

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

/// What the tracer has by default.
const RING_BYTES: u32 = 4 << 20;

/// How often the ring buffer is emptied.
const EMPTIED_EVERY: Duration = Duration::from_millis(5);

/// One instruction as the kernel's `struct bpf_insn`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Instruction {
    opcode: u8,
    /// The destination in the low half, the source in the high one.
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
const NOTHING: [Instruction; 2] = [Instruction::set(0, 0), Instruction::EXIT];

/// Reserves the room of a record and submits it as it is.
fn one_record(ring: &OwnedFd) -> Result<[Instruction; 11]> {
    let size = i32::try_from(size_of::<Record>()).context("a record is small")?;
    Ok([
        // The map takes two instructions.
        Instruction::new(0x18, 1, BPF_PSEUDO_MAP_FD, 0, ring.as_raw_fd()),
        Instruction::new(0, 0, 0, 0, 0),
        Instruction::set(2, size),
        Instruction::set(3, 0),
        Instruction::call(RINGBUF_RESERVE),
        // To the end when there is no room.
        Instruction::new(0x15, 0, 0, 3, 0),
        Instruction::new(0xbf, 1, 0, 0, 0),
        Instruction::set(2, BPF_RB_NO_WAKEUP),
        Instruction::call(RINGBUF_SUBMIT),
        Instruction::set(0, 0),
        Instruction::EXIT,
    ])
}

/// The part of `union bpf_attr` that BPF_MAP_CREATE reads here; the kernel takes the rest as zero.
#[repr(C)]
struct MapCreate {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

/// The part of `union bpf_attr` that BPF_PROG_LOAD reads here; the kernel takes the rest as zero.
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

/// The part of `union bpf_attr` that BPF_RAW_TRACEPOINT_OPEN reads.
#[repr(C)]
struct RawTracepointOpen {
    name: u64,
    program: u32,
    padding: u32,
}

/// Does nothing.
pub(crate) fn nothing(counted: bool) -> Result<()> {
    hold(&NOTHING, counted)
}

/// Passes a record through a ring buffer, and nothing else.
pub(crate) fn record() -> Result<()> {
    let ring = bpf(
        BPF_MAP_CREATE,
        &MapCreate { kind: BPF_MAP_TYPE_RINGBUF, key_size: 0, value_size: 0, max_entries: RING_BYTES },
    )
    .context("the kernel has no ring buffer for programs: this takes Linux 5.8")?;
    let positions = Positions::map(&ring).context("the ring buffer cannot be mapped")?;
    thread::spawn(move || {
        loop {
            positions.empty();
            thread::sleep(EMPTIED_EVERY);
        }
    });
    hold(&one_record(&ring)?, true)
}

/// The two positions of a ring buffer, mapped for as long as this process lives.
struct Positions {
    consumer: &'static AtomicU64,
    producer: &'static AtomicU64,
}

impl Positions {
    fn map(ring: &OwnedFd) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let map = |protection, offset: usize| {
            // SAFETY: a new mapping of one page, which nothing else uses and nobody unmaps.
            let start = unsafe {
                rustix::mm::mmap(ptr::null_mut(), page, protection, MapFlags::SHARED, ring, offset as u64)
            }?;
            // SAFETY: the page is aligned, begins with a position, and the kernel too only reads and writes it as
            // a whole.
            io::Result::Ok(unsafe { &*start.cast::<AtomicU64>() })
        };
        Ok(Self {
            consumer: map(ProtFlags::READ | ProtFlags::WRITE, 0)?,
            producer: map(ProtFlags::READ, page)?,
        })
    }

    /// Takes all that is there as read.
    fn empty(&self) {
        self.consumer.store(self.producer.load(Ordering::Acquire), Ordering::Release);
    }
}

/// Attaches a program and holds it until the input ends. When it is to be counted, the statistics are on as long as the
/// descriptor is open (5.8), so they end with the process, however that ends.
fn hold(instructions: &[Instruction], counted: bool) -> Result<()> {
    let kind = BPF_STATS_RUN_TIME;
    let _statistics = counted
        .then(|| bpf(BPF_ENABLE_STATS, &kind))
        .transpose()
        .context("the kernel's statistics of BPF programs cannot be switched on: run this as root")?;
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
    .context("the kernel refused a program of a few instructions")?;
    let number = u32::try_from(program.as_raw_fd()).context("a descriptor is not negative")?;
    let _link = bpf(
        BPF_RAW_TRACEPOINT_OPEN,
        &RawTracepointOpen { name: c"inet_sock_set_state".as_ptr() as u64, program: number, padding: 0 },
    )
    .context("the program cannot be attached to inet_sock_set_state")?;
    print(&json!({ "attached": true }));
    io::stdin().read_line(&mut String::new()).map(drop).context("standard input cannot be read")
}

/// The system call `bpf`, for commands that give a descriptor.
fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of `attributes`, whose pointers lead to what lives
    // for the whole program.
    let descriptor =
        unsafe { libc::syscall(libc::SYS_bpf, command, ptr::from_ref(attributes), size_of::<T>()) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: the call has just given it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
