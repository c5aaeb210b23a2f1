//! The eBPF programs: one thin function per hook over the shared bodies in the modules.
#![no_std]
#![no_main]
#![expect(unstable_features, reason = "inline assembly is unstable for the BPF target")]
#![feature(asm_experimental_arch)]

mod endpoints;
mod memory;
mod netns;
mod output;
mod process;
mod reader;
mod syn_ack;
mod time_wait;
mod transition;

use aya_ebpf::{
    EbpfContext as _,
    macros::{btf_tracepoint, fentry, tracepoint},
    programs::{BtfTracePointContext, FEntryContext, TracePointContext},
};
use tracer_ebpf::Config;

/// Filled in by user space before the programs load; in a section the kernel freezes, so that the
/// verifier takes the values as constants.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
static CONFIG: Config = Config::UNSET;

/// Reads one value of [`CONFIG`], in a way the compiler cannot fold into the unset value.
macro_rules! config {
    ($($field:tt)+) => {
        $crate::constant(&$crate::CONFIG.$($field)+)
    };
}
pub(crate) use config;

#[inline(always)]
fn constant<T: Copy>(value: &'static T) -> T {
    // SAFETY: a reference is valid to read.
    unsafe { core::ptr::read_volatile(value) }
}

/// `sock:inet_sock_set_state` through BTF: the arguments are `(const struct sock *, int old, int new)`.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn transition_btf(ctx: BtfTracePointContext) -> i32 {
    transition::from_socket(ctx.arg::<u64>(0), ctx.arg::<i32>(1) as u8, ctx.arg::<i32>(2) as u8);
    0
}

/// `sock:inet_sock_set_state` as a classic tracepoint: the context is the record that tracefs describes.
#[tracepoint(category = "sock", name = "inet_sock_set_state")]
fn transition_tracepoint(ctx: TracePointContext) -> u32 {
    transition::from_ctx(ctx.as_ptr() as u64);
    0
}

/// `tcp:tcp_retransmit_synack` through BTF: `(const struct sock *sk, const struct request_sock *req)`.
#[btf_tracepoint(function = "tcp_retransmit_synack")]
fn syn_ack_retransmit(ctx: BtfTracePointContext) -> i32 {
    syn_ack::resent(ctx.arg::<u64>(0), ctx.arg::<u64>(1));
    0
}

/// `tcp:tcp_rcv_space_adjust` through BTF: `(struct sock *sk)`, when a process has taken data.
#[btf_tracepoint(function = "tcp_rcv_space_adjust")]
fn first_read(ctx: BtfTracePointContext) -> i32 {
    reader::read(ctx.arg::<u64>(0));
    0
}

/// `inet_twsk_kill(struct inet_timewait_sock *tw)`, unchanged from 4.18 to 7.1.
#[fentry(function = "inet_twsk_kill")]
fn time_wait_end(ctx: FEntryContext) -> i32 {
    time_wait::end(ctx.arg::<u64>(0));
    0
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The licence the kernel checks before it allows GPL-only helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
