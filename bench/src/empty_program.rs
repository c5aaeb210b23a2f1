//! A program that does nothing on the tracepoint that the tracer uses: what any program there costs.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::print;

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_RAW_TRACEPOINT_OPEN: libc::c_int = 17;
const BPF_ENABLE_STATS: libc::c_int = 32;
const BPF_PROG_TYPE_RAW_TRACEPOINT: u32 = 17;
const BPF_STATS_RUN_TIME: u32 = 0;

/// `r0 = 0` and `exit`, as the kernel's `struct bpf_insn`.
static PROGRAM: [u64; 2] = [0xb7, 0x95];

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

/// Holds both until the input ends. The statistics are on as long as the descriptor is open (5.8), so they
/// end with the process, however that ends.
pub(crate) fn run() -> Result<()> {
    let kind = BPF_STATS_RUN_TIME;
    let _statistics = bpf(BPF_ENABLE_STATS, &kind)
        .context("the kernel's statistics of BPF programs cannot be switched on: run this as root")?;
    let program = bpf(
        BPF_PROG_LOAD,
        &ProgramLoad {
            kind: BPF_PROG_TYPE_RAW_TRACEPOINT,
            instruction_count: 2,
            instructions: PROGRAM.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log_buffer: 0,
        },
    )
    .context("the kernel refused a program of two instructions")?;
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
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: the call has just given it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
