//! The eBPF programs: one short function per hook; the modules have the shared bodies.
#![no_std]
#![no_main]
#![expect(unstable_features, reason = "inline assembly is unstable for the BPF target")]
#![feature(asm_experimental_arch)]

mod accept;
mod drops;
mod endpoints;
mod first_use;
mod memory;
mod netns;
mod output;
mod process;
mod receipt;
mod resets;
mod segment;
mod syn_ack;
mod time_wait;
mod transition;

use aya_ebpf::{
    EbpfContext as _,
    macros::{btf_tracepoint, fentry, fexit, raw_tracepoint, tracepoint},
    programs::{BtfTracePointContext, FEntryContext, FExitContext, RawTracePointContext, TracePointContext},
};
use tracer_ebpf::{Config, Lane};

use crate::output::Writer;

/// The configuration. User space sets it before the programs load; the kernel freezes the section, so the verifier treats
/// the values as constants.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
static CONFIG: Config = Config::UNSET;

/// Reads one value of [`CONFIG`] without letting the compiler assume the value in the object file.
macro_rules! config {
    ($($field:tt)+) => {
        $crate::constant(&$crate::CONFIG.$($field)+)
    };
}
pub(crate) use config;

#[inline(always)]
fn constant<T: Copy>(value: &'static T) -> T {
    // SAFETY: a reference is valid for reads.
    unsafe { core::ptr::read_volatile(value) }
}

/// `sock:inet_sock_set_state` through BTF: the arguments are `(const struct sock *, int old, int new)`.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn transition_btf(ctx: BtfTracePointContext) -> i32 {
    let (sk, new) = (ctx.arg::<u64>(0), ctx.arg::<i32>(2) as u8);
    let writer = Writer::on_this_cpu(Lane::Transition);
    receipt::leave(&writer, sk, new);
    transition::from_socket(writer, sk, ctx.arg::<i32>(1) as u8, new);
    0
}

/// The twin of `transition_btf`, attached after it: records the transitions for which the kernel skipped it.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn transition_btf_twin(ctx: BtfTracePointContext) -> i32 {
    let (sk, new) = (ctx.arg::<u64>(0), ctx.arg::<i32>(2) as u8);
    if !receipt::take(sk, new) {
        output::count_twin_taken();
        let writer = Writer::on_this_cpu(Lane::TransitionTwin);
        transition::from_socket(writer, sk, ctx.arg::<i32>(1) as u8, new);
    }
    0
}

/// `sock:inet_sock_set_state` as a classic tracepoint: the context is the record that tracefs describes.
#[tracepoint(category = "sock", name = "inet_sock_set_state")]
fn transition_tracepoint(ctx: TracePointContext) -> u32 {
    transition::from_ctx(ctx.as_ptr() as u64);
    0
}

/// The twin of `transition_tracepoint`, attached after it: records the transitions for which the kernel skipped it. The
/// arguments are those of `transition_btf`, without types.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
fn transition_tracepoint_twin(ctx: RawTracePointContext) -> i32 {
    let (sk, new) = (ctx.arg::<u64>(0), ctx.arg::<u64>(2) as u8);
    if !receipt::take(sk, new) {
        output::count_twin_taken();
        let writer = Writer::on_this_cpu(Lane::TransitionTwin);
        transition::from_address(writer, sk, ctx.arg::<u64>(1) as u8, new);
    }
    0
}

/// `tcp:tcp_retransmit_synack` through BTF: `(const struct sock *sk, const struct request_sock *req)`.
#[btf_tracepoint(function = "tcp_retransmit_synack")]
fn syn_ack_retransmit(ctx: BtfTracePointContext) -> i32 {
    syn_ack::resent(ctx.arg::<u64>(0), ctx.arg::<u64>(1));
    0
}

/// `tcp:tcp_rcv_space_adjust` through BTF: `(struct sock *sk)`, after a process has read data.
#[btf_tracepoint(function = "tcp_rcv_space_adjust")]
fn first_read(ctx: BtfTracePointContext) -> i32 {
    first_use::read(ctx.arg::<u64>(0));
    0
}

/// `sock:sock_send_length` through BTF (6.3): `(struct sock *sk, int ret, int flags)`, when a write to a socket of any family
/// returns.
#[btf_tracepoint(function = "sock_send_length")]
fn first_write(ctx: BtfTracePointContext) -> i32 {
    first_use::written(ctx.arg::<u64>(0), ctx.arg::<i32>(1));
    0
}

/// The return of `tcp_sendmsg(struct sock *sk, struct msghdr *msg, size_t size)`, unchanged from 4.1 to 7.1; the returned
/// `int` follows the arguments. For kernels without `sock:sock_send_length`.
#[fexit(function = "tcp_sendmsg")]
fn first_write_return(ctx: FExitContext) -> i32 {
    first_use::written(ctx.arg::<u64>(0), ctx.arg::<i32>(3));
    0
}

/// `inet_twsk_kill(struct inet_timewait_sock *tw)`, unchanged from 4.18 to 7.1.
#[fentry(function = "inet_twsk_kill")]
fn time_wait_end(ctx: FEntryContext) -> i32 {
    time_wait::end(ctx.arg::<u64>(0));
    0
}

/// The return of `inet_csk_accept`: the arguments are `(struct sock *sk, int flags, int *err, bool kern)`, since 6.10
/// `(struct sock *sk, struct proto_accept_arg *arg)`; the returned `struct sock *` follows them.
#[fexit(function = "inet_csk_accept")]
fn accepted(ctx: FExitContext) -> i32 {
    match config!(arguments.accept) {
        2 => accept::returned(ctx.arg::<u64>(2)),
        4 => accept::returned(ctx.arg::<u64>(4)),
        _ => {}
    }
    0
}

/// `tcp:tcp_send_reset` through BTF: `(const struct sock *sk, const struct sk_buff *skb)`, since 6.10 with `enum
/// sk_rst_reason reason`. Either pointer may be null.
#[btf_tracepoint(function = "tcp_send_reset")]
fn reset_sent(ctx: BtfTracePointContext) -> i32 {
    let reason = if config!(arguments.send_reset) >= 3 { Some(ctx.arg::<u32>(2)) } else { None };
    resets::sent(ctx.arg::<u64>(0), ctx.arg::<u64>(1), reason);
    0
}

/// `tcp:tcp_receive_reset` through BTF: `(struct sock *sk)`.
#[btf_tracepoint(function = "tcp_receive_reset")]
fn reset_received(ctx: BtfTracePointContext) -> i32 {
    resets::received(ctx.arg::<u64>(0));
    0
}

/// `skb:kfree_skb` through BTF: `(struct sk_buff *skb, void *location)`, since 5.17 with `enum skb_drop_reason reason`, since
/// 6.11 with `struct sock *rx_sk`, which may be null.
#[btf_tracepoint(function = "kfree_skb")]
fn segment_dropped(ctx: BtfTracePointContext) -> i32 {
    if config!(arguments.kfree_skb) < 3 {
        return 0;
    }
    let receiver = if config!(arguments.kfree_skb) >= 4 { ctx.arg::<u64>(3) } else { 0 };
    drops::dropped(ctx.arg::<u64>(0), ctx.arg::<u64>(1), ctx.arg::<u32>(2), receiver);
    0
}

/// `tcp_conn_request(struct request_sock_ops *, const struct tcp_request_sock_ops *, struct sock *sk, struct sk_buff *skb)`,
/// unchanged from 4.18 to 7.1.
#[fentry(function = "tcp_conn_request")]
fn accept_queue_full(ctx: FEntryContext) -> i32 {
    drops::refused_by_full_queue(ctx.arg::<u64>(2), ctx.arg::<u64>(3));
    0
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The licence that the kernel checks before it allows GPL-only helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
