//! The wire format between the eBPF programs and user space.
//!
//! Both sides compile this crate, so each field has one definition. The kernel side writes a [`Record`] and the parts
//! that follow it into a lane, whose state is a [`LaneHeader`]. User space sets a [`Config`] before the programs load.
//! The kernel side counts in [`Counters`]. The crate has no dependencies.
#![no_std]

mod config;
mod lane;
mod record;

pub use config::{ABSENT, ArgumentCounts, BitField, BitLayout, Config, CtxLayout, SocketLayout, first_use};
pub use lane::{CHUNK, KnownNetns, LANES_PER_CPU, Lane, LaneHeader, REMEMBERED_NETNS, ROOM, STRIDE, lane_of};
pub use record::{
    AcceptQueue, Counters, FunctionName, Ipv6Addresses, MAX_RECORD, Parts, Process, Record, RecordKind,
    TcpInfo, ThreadName, Wire, flags,
};

/// Version of the layouts in this crate. A recording's header contains it; every change of layout increments it.
pub const WIRE_VERSION: u32 = 6;

/// Address family of IPv4, `AF_INET` in `include/linux/socket.h`.
pub const AF_INET: u8 = 2;
/// Address family of IPv6, `AF_INET6` in `include/linux/socket.h`.
pub const AF_INET6: u8 = 10;
/// The protocol number that the programs record: `IPPROTO_TCP`. MPTCP's own sockets have 262.
pub const IPPROTO_TCP: u16 = 6;

/// TCP states as the kernel numbers them, `include/net/tcp_states.h` (unchanged 4.18 to 7.1).
pub mod tcp_state {
    /// `TCP_ESTABLISHED`
    pub const ESTABLISHED: u8 = 1;
    /// `TCP_SYN_SENT`
    pub const SYN_SENT: u8 = 2;
    /// `TCP_SYN_RECV`
    pub const SYN_RECV: u8 = 3;
    /// `TCP_FIN_WAIT1`
    pub const FIN_WAIT1: u8 = 4;
    /// `TCP_FIN_WAIT2`
    pub const FIN_WAIT2: u8 = 5;
    /// `TCP_TIME_WAIT`
    pub const TIME_WAIT: u8 = 6;
    /// `TCP_CLOSE`
    pub const CLOSE: u8 = 7;
    /// `TCP_CLOSE_WAIT`
    pub const CLOSE_WAIT: u8 = 8;
    /// `TCP_LAST_ACK`
    pub const LAST_ACK: u8 = 9;
    /// `TCP_LISTEN`
    pub const LISTEN: u8 = 10;
    /// `TCP_NEW_SYN_RECV`: a request socket. No transition leads to it.
    pub const NEW_SYN_RECV: u8 = 12;
    /// `TCP_CLOSING`
    pub const CLOSING: u8 = 11;
}
