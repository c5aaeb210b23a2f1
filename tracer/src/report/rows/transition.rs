//! A transition, and the end of a timewait socket.

use std::{net::IpAddr, num::NonZeroU32};

use tracer_core::{
    event::{
        CgroupId, ClockOffset, ConnectionId, Endpoint, Nanos, Netns, Process, SocketId, TcpState, ThreadName,
        Timestamp, TimewaitEnd, Transition,
    },
    lifecycle::{Connection, EndedTimewait},
    owner::OwnerSource,
};

use crate::report::{
    fields::fields,
    text::{
        OrDash,
        endpoint::{ZonedEndpoint, bound, known_address, known_port, network_type},
        marks::entered_mark,
        name::{EscapedText, ProcessName, SocketText},
        quantity::{duration, microseconds},
        table::table,
        wall_time::{Rfc3339, rfc3339},
    },
};

/// A transition, with the owner of its connection.
#[derive(Clone, Copy, Debug)]
pub struct TransitionRow {
    kind: &'static str,
    time: Timestamp,
    clock: ClockOffset,
    socket: Option<SocketId>,
    local: Endpoint,
    remote: Endpoint,
    from: TcpState,
    to: TcpState,
    duration: Option<Nanos>,
    process: Option<Process>,
    thread: Option<ThreadName>,
    owner_source: OwnerSource,
    cgroup_id: Option<CgroupId>,
    netns: Option<Netns>,
    interface: Option<u32>,
    connection: Option<ConnectionId>,
}

impl TransitionRow {
    /// Creates the row of a transition; `connection` is its connection, after the transition.
    pub fn new(
        transition: &Transition,
        connection: Option<&Connection>,
        duration: Option<Nanos>,
        clock: ClockOffset,
    ) -> Self {
        let (process, thread, owner_source) = if let Some(Connection { owner, .. }) = connection {
            (owner.process, owner.thread, owner.source)
        } else {
            let source = match transition.process {
                _ if transition.to == TcpState::Listen => OwnerSource::Listener,
                Some(_) => OwnerSource::Closer,
                None => OwnerSource::Unknown,
            };
            (transition.process, transition.thread, source)
        };
        Self {
            kind: "transition",
            time: transition.time,
            clock,
            socket: Some(transition.socket),
            local: bound(transition.local, connection.map(|connection| connection.local)),
            remote: bound(transition.remote, connection.map(|connection| connection.remote)),
            from: transition.from,
            to: transition.to,
            duration,
            process,
            thread,
            owner_source,
            cgroup_id: transition.cgroup_id.or(connection.and_then(|connection| connection.cgroup_id)),
            netns: transition.netns,
            interface: transition
                .interface
                .or(connection.and_then(|connection| connection.interface.map(NonZeroU32::get))),
            connection: connection.map(|connection| connection.id(transition.socket)),
        }
    }

    /// Creates the row of the end of a timewait socket.
    pub fn of_timewait(event: &TimewaitEnd, end: &EndedTimewait, clock: ClockOffset) -> Self {
        Self {
            kind: "time_wait_end",
            time: event.time,
            clock,
            socket: None,
            local: event.local,
            remote: event.remote,
            from: end.state,
            to: TcpState::Closed,
            duration: Some(end.duration),
            process: None,
            thread: None,
            owner_source: OwnerSource::Unknown,
            cgroup_id: None,
            netns: event.netns,
            interface: None,
            connection: end.connection,
        }
    }

    /// Returns when the transition happened.
    pub(in crate::report) fn time(&self) -> Rfc3339 {
        rfc3339(self.time, self.clock)
    }
}

fields! { TransitionRow, |row| {
    /// `transition`
    type: &'static str = row.kind;
    /// When it happened
    time: Rfc3339 ["ns"] = row.time();
    /// Identity of the socket, 16 hexadecimal digits, different in every run. The kernel reuses sockets: a new
    /// connection begins with `closed` → `syn_sent`, `closed` → `listen` or `listen` → `syn_received`
    socket: Option<SocketText> = row.socket.map(SocketText);
    /// `ipv4` or `ipv6`
    network_type: &'static str = network_type(row.local);
    /// Local address
    local_address: IpAddr = row.local.address;
    /// Local port; null while none is bound, as at `closed` → `syn_sent` of most clients
    local_port: Option<u16> = known_port(row.local);
    /// Remote address; null on a listener
    remote_address: Option<IpAddr> = known_address(row.remote);
    /// Remote port; null on a listener
    remote_port: Option<u16> = known_port(row.remote);
    /// State left
    from: &'static str = row.from.name();
    /// State entered. The same as `from` if an application calls `close()` after `shutdown()`
    to: &'static str = row.to.name();
    /// Time spent in `from`, on a listener in `listen`; null if its start was not seen. A server's `syn_received`
    /// lasts the microseconds that its kernel socket spends in it, not the handshake
    duration_us: Option<f64> ["us"] = row.duration.map(microseconds);
    /// Process id of the connection's owner, if known by then
    pid: Option<u32> = row.process.map(|process| process.pid);
    /// Name of the owner
    comm: Option<ProcessName> = row.process.map(ProcessName);
    /// How the owner was found: see [owners](#owners)
    owner_source: &'static str = row.owner_source.name();
    /// Id of the socket's cgroup
    cgroup_id: Option<CgroupId> = row.cgroup_id;
    /// Inode of the network namespace
    netns: Option<Netns> = row.netns;
    /// Name of the owner's thread that made the call; null if it was the main thread, or is unknown
    thread: Option<EscapedText<'_>> = row.thread.as_ref().map(|thread| EscapedText(thread.name()));
    /// Index of the interface that the socket is bound to, which is the zone of a link-local address. Null if it is not
    /// bound
    interface: Option<u32> = row.interface;
    /// Identity of the connection, as in `connection`. Null on a listener, and where the connection is unknown
    connection_id: Option<ConnectionId> = row.connection;
    /// State left: `from` under the name that recordings have
    from_state: &'static str = row.from.name();
    /// State entered: `to` under the name that recordings have
    to_state: &'static str = row.to.name();
    /// Name of the owner: `comm` under the name that other rows and recordings have
    process: Option<ProcessName> = row.process.map(ProcessName);
}}

table! { TransitionRow, |row, wide| {
    [time] "TIME" = row.time();
    right 7 "PID" = OrDash(row.process.map(|process| process.pid)), drop 3;
    left 15 "PROCESS" = OrDash(row.process.map(ProcessName)), drop 1;
    left 23 "LOCAL" = ZonedEndpoint(row.local, row.interface), drop 2;
    left 23 "REMOTE" = ZonedEndpoint(row.remote, row.interface);
    left 11 "FROM" = row.from.kernel_name();
    left 11 "TO" = row.to.kernel_name(), mark entered_mark(row.from, row.to);
    right 9 "DURATION" = duration(row.duration);
    left 0 "" = "", if wide;
    left 8 "OWNER BY" = row.owner_source.name(), if wide;
    right 10 "NETNS" = OrDash(row.netns.map(|netns| netns.0)), if wide;
    right 8 "CGROUP" = OrDash(row.cgroup_id.map(|id| id.0)), if wide;
    left 16 "SOCKET" = OrDash(row.socket.map(SocketText)), if wide;
}}
