//! A closed connection.

use std::{borrow::Cow, fmt, net::IpAddr, num::NonZeroU32};

use arrayvec::ArrayVec;
use tracer_core::{
    event::{CgroupId, ClockOffset, ConnectionId, KernelName, Nanos, Netns, Process, TcpInfo, Timestamp},
    lifecycle::{
        AcceptWait, ClosedBy, ClosedConnection, Connection, Handshake, HandshakeCaveat, Role, SegmentDrop,
        StateSpan,
    },
};

use crate::{
    host::{Cgroup, Container, PodNames, WorkloadKind},
    report::{
        fields::fields,
        rows::{segment_drop::drops, state_span::StatesText},
        text::{
            OrDash, Text,
            endpoint::{EndpointText, ZonedEndpoint, known_address, known_port, network_type},
            errno,
            handshake::drops_text,
            marks::{handshake_mark, reason_mark},
            name::{CgroupOwnerText, EscapedText, ProcessName},
            quantity::{bytes, duration, microseconds},
            style::Mark,
            table::table,
            wall_time::{Rfc3339, rfc3339},
        },
    },
};

/// A closed connection, with its cgroup.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionRow<'a> {
    closed: &'a ClosedConnection<'a>,
    connection: &'a Connection,
    process: Option<Process>,
    info: Option<&'a TcpInfo>,
    cgroup: Option<&'a Cgroup>,
    clock: ClockOffset,
    opened: Option<Timestamp>,
    duration: Option<Nanos>,
}

impl<'a> ConnectionRow<'a> {
    /// Creates the row of a connection whose socket was created in `cgroup`.
    pub fn new(closed: &'a ClosedConnection<'a>, cgroup: Option<&'a Cgroup>, clock: ClockOffset) -> Self {
        Self {
            closed,
            connection: closed.connection,
            process: closed.connection.owner.process,
            info: closed.info,
            cgroup,
            clock,
            opened: closed.opened(),
            duration: closed.duration(),
        }
    }

    fn interface(&self) -> Option<u32> {
        self.connection.interface.map(NonZeroU32::get)
    }

    /// Returns when the connection closed, or its last event if the end was not seen.
    fn last_seen(&self) -> Rfc3339 {
        rfc3339(self.closed.closed, self.clock)
    }

    /// Returns when the connection closed, if that was seen.
    pub(in crate::report) fn closed(&self) -> Option<Rfc3339> {
        self.closed.close_seen.then(|| self.last_seen())
    }

    fn states(&self) -> ArrayVec<StateSpan, 8> {
        self.closed.states().collect()
    }

    /// Returns the handshake if its duration is known.
    fn timed_handshake(&self) -> Option<Handshake> {
        self.connection.handshake.filter(|handshake| handshake.duration.is_some())
    }

    fn handshake_duration(&self) -> Option<Nanos> {
        self.connection.handshake.and_then(|handshake| handshake.duration)
    }

    fn accept_wait(&self) -> Option<AcceptWait> {
        self.connection.accept_wait()
    }

    fn container(&self) -> Option<&'a Container> {
        self.cgroup.and_then(|cgroup| cgroup.owner.container.as_ref())
    }

    fn pod(&self) -> Option<&'a PodNames> {
        self.cgroup.and_then(Cgroup::pod)
    }
}

fields! { ConnectionRow<'_>, |row| {
    /// `connection`
    type: &'static str = "connection";
    /// Which side opened it: `client` (this host), `server` (the peer), `simultaneous` (both sent a SYN), `unknown`
    /// (not seen)
    role: &'static str = row.connection.role.name();
    /// `ipv4` or `ipv6`
    network_type: &'static str = network_type(row.connection.local);
    /// Local address; unspecified (`0.0.0.0`, `::`) if the connection closed before the kernel chose one
    local_address: IpAddr = row.connection.local.address;
    /// Local port; null if none was bound
    local_port: Option<u16> = known_port(row.connection.local);
    /// Remote address
    remote_address: Option<IpAddr> = known_address(row.connection.remote);
    /// Remote port
    remote_port: Option<u16> = known_port(row.connection.remote);
    /// Start of the handshake: a client's SYN, a server's first SYN-ACK. For a server it is the time of ESTABLISHED
    /// minus the measured handshake, if known. Null if the start was not seen
    opened: Option<Rfc3339> ["ns"] = row.opened.map(|time| rfc3339(time, row.clock));
    /// When the connection closed; null if that was not seen
    closed: Option<Rfc3339> ["ns"] = row.closed();
    /// Time from `opened` to `closed`; null if either is null
    duration_us: Option<f64> ["us"] = row.duration.map(microseconds);
    /// Every state and the time spent in it, in order: see [states](#states)
    states: ArrayVec<StateSpan, 8> = row.states();
    /// Duration of the handshake: see [handshake-durations.md](handshake-durations.md). Null if it failed or is
    /// unknown
    handshake_us: Option<f64> ["us"] = row.handshake_duration().map(microseconds);
    /// How `handshake_us` was obtained: `observed`, `measured`, `modelled`
    handshake_source: Option<&'static str> = row.timed_handshake().map(|handshake| handshake.source.name());
    /// Why `handshake_us` is not exact: see [handshake-durations.md](handshake-durations.md#caveats)
    handshake_caveat: Option<&'static str> =
        row.connection.handshake.and_then(|handshake| handshake.caveat).map(HandshakeCaveat::name);
    /// Network part of the handshake: round-trip time of the acknowledged segment, whole microseconds. Null if the
    /// kernel's sample was not a round trip
    handshake_rtt_us: Option<u32> ["us"] = row.connection.handshake.and_then(|handshake| handshake.rtt).map(|rtt| rtt.0);
    /// SYNs retransmitted; for a server, SYN-ACKs
    syn_retransmits: Option<u8> ["segments"] =
        row.connection.handshake.and_then(|handshake| handshake.retransmits);
    /// Why the connection closed: see [close-reasons.md](close-reasons.md)
    close_reason: &'static str = row.closed.close_cause.reason.name();
    /// Who closed it: `local`, `remote`, `both`
    closed_by: Option<&'static str> = row.closed.close_cause.closed_by.map(ClosedBy::name);
    /// The socket's error when it closed, as an errno name (`ECONNRESET`), or `errno N` for an error TCP does not
    /// use. Null if there was none
    error: Option<Cow<'static, str>> = row.closed.close_cause.error.map(errno::name);
    /// Payload bytes sent, without retransmissions
    bytes_sent: Option<u64> ["bytes"] = row.info.map(|info| info.bytes_sent);
    /// Payload bytes received in order
    bytes_received: Option<u64> ["bytes"] = row.info.map(|info| info.bytes_received);
    /// Segments sent, with or without payload
    segments_sent: Option<u32> ["segments"] = row.info.map(|info| info.segments_sent);
    /// Segments received, with or without payload
    segments_received: Option<u32> ["segments"] = row.info.map(|info| info.segments_received);
    /// Segments retransmitted over the whole connection, SYN and SYN-ACK included
    retransmits: Option<u32> ["segments"] = row.info.map(|info| info.retransmits);
    /// Smoothed round-trip time at the end, whole microseconds
    srtt_us: Option<u32> ["us"] = row.info.and_then(|info| info.srtt).map(|rtt| rtt.0);
    /// Smallest round-trip time in the kernel's window (`tcp_min_rtt_wlen`, 300 s), whole microseconds
    min_rtt_us: Option<u32> ["us"] = row.info.and_then(|info| info.min_rtt).map(|rtt| rtt.0);
    /// Maximum segment size in use. Before the handshake, the kernel's initial guess
    mss: Option<u32> ["bytes"] = row.info.map(|info| info.mss);
    /// Server: connections waiting for `accept()` when the handshake completed
    accept_queue: Option<u32> ["connections"] = row.connection.accept_queue.map(|queue| queue.length);
    /// Server: the most connections that may wait, the backlog of `listen()` capped by `somaxconn`
    accept_queue_limit: Option<u32> ["connections"] = row.connection.accept_queue.map(|queue| queue.limit);
    /// Process id of the owner, in the initial pid namespace
    pid: Option<u32> = row.process.map(|process| process.pid);
    /// Name of the owner: of its thread-group leader, at most 15 bytes
    process: Option<ProcessName> = row.process.map(ProcessName);
    /// User id of the owner, in the initial user namespace
    uid: Option<u32> = row.process.map(|process| process.uid);
    /// How the owner was found: see [owners](#owners)
    owner_source: &'static str = row.connection.owner.source.name();
    /// Id of the cgroup in which the socket was created: the inode of its directory in cgroup v2
    cgroup_id: Option<CgroupId> = row.connection.cgroup_id;
    /// Path of the cgroup, from the root of its hierarchy
    cgroup: Option<EscapedText<'_>> = row.cgroup.map(|cgroup| EscapedText(cgroup.path.as_bytes()));
    /// Id of the container: 64 hexadecimal digits, or the name of an LXC or nspawn container
    container_id: Option<&str> = row.container().map(|container| container.id.as_str());
    /// Container runtime: `docker`, `containerd`, `cri-o`, `podman`, `lxc`, `nspawn`, or `unnamed` if the path
    /// does not show it
    container_runtime: Option<&'static str> = row.container().map(|container| container.runtime.name());
    /// Uid of the Kubernetes pod (`metadata.uid`)
    pod_uid: Option<&str> = row.cgroup.and_then(|cgroup| cgroup.owner.pod_uid.as_deref());
    /// The innermost systemd unit that is not itself a container
    unit: Option<EscapedText<'_>> =
        row.cgroup.and_then(|cgroup| cgroup.owner.unit.as_ref()).map(|unit| EscapedText(unit.as_bytes()));
    /// Inode of the network namespace, as `readlink /proc/PID/ns/net` shows it
    netns: Option<Netns> = row.connection.netns;
    /// It reused the addresses and ports of a connection still in TIME_WAIT
    time_wait_reused: bool = row.connection.reused_time_wait;
    /// Its start was not seen
    incomplete: bool = row.connection.incomplete;
    /// At least one transition, possibly the last, was not seen
    gap: bool = row.connection.gap;
    /// Name of the owner's thread that made the call, at most 15 bytes; null if it was the main thread, or is unknown
    thread: Option<EscapedText<'_>> =
        row.connection.owner.thread.as_ref().map(|thread| EscapedText(thread.name()));
    /// Whether a segment of the handshake was lost: see
    /// [handshake-durations.md](handshake-durations.md#lost-segments). Null if unknown
    syn_lost: Option<bool> = row.connection.handshake.and_then(|handshake| handshake.lost);
    /// Index of the interface that the socket is bound to, which is the zone of a link-local address. Null if it is not
    /// bound
    interface: Option<u32> = row.interface();
    /// Server: time from ESTABLISHED until `accept()` returned the connection. Null if unknown or not accepted
    accept_wait_us: Option<f64> ["us"] = row.accept_wait().map(|wait| microseconds(wait.duration()));
    /// What ended `accept_wait_us`: `accept`, or `first_read`, which makes it an upper bound
    accept_wait_source: Option<&'static str> = row.accept_wait().map(AcceptWait::source);
    /// Server: whether a process accepted it. Null if unknown
    accepted: Option<bool> = row.closed.accepted;
    /// Time from ESTABLISHED until a process first read data. Null if unknown or never
    first_read_us: Option<f64> ["us"] = row.connection.first_read().map(microseconds);
    /// Who sent a reset: `local`, `remote`. Null if there was none, or without the hooks for resets
    reset_by: Option<&'static str> = row.closed.reset.map(|reset| reset.by.name());
    /// The kernel's reason for sending the reset (`enum sk_rst_reason`, 6.10), such as `tcp_abort_on_close`
    reset_reason: Option<KernelName> = row.closed.reset.and_then(|reset| reset.reason);
    /// Segments of the handshake that this host dropped: see
    /// [handshake-durations.md](handshake-durations.md#dropped-segments). In CSV `syn:netfilter_drop:nft_do_chain:1`
    syn_drops: ArrayVec<SegmentDrop, 3> = drops(row.closed.drops);
    /// Time from ESTABLISHED until the first write of a process returned. Null if unknown or never
    first_write_us: Option<f64> ["us"] = row.connection.first_write().map(microseconds);
    /// Client, with `--backends`: address behind the translated remote address. Null if it is not translated, or unknown
    backend_address: Option<IpAddr> = row.closed.backend.map(|backend| backend.address);
    /// Client, with `--backends`: port of the backend
    backend_port: Option<u16> = row.closed.backend.map(|backend| backend.port);
    /// Name of the container, from the files of its runtime or of the kubelet: see [names](#names-of-containers-and-pods)
    container_name: Option<&str> = row.cgroup.and_then(Cgroup::container_name);
    /// Namespace of the Kubernetes pod
    k8s_namespace: Option<&str> = row.pod().map(PodNames::namespace);
    /// Name of the Kubernetes pod
    k8s_pod: Option<&str> = row.pod().map(PodNames::pod);
    /// Name of the container in the Kubernetes pod, as `container_name`
    k8s_container: Option<&str> = row.cgroup.and_then(Cgroup::container_in_pod);
    /// Name of the Kubernetes workload, derived from the name of the pod
    k8s_workload: Option<&str> = row.pod().map(PodNames::workload);
    /// Kind of the workload, derived from the name of the pod: `deployment`, `statefulset`, `cronjob` or `static_pod`. Null
    /// if the name has the form of several kinds, or of none
    k8s_workload_kind: Option<&'static str> =
        row.pod().and_then(PodNames::workload_kind).map(WorkloadKind::name);
    /// Identity of the connection, 16 hexadecimal digits: the same in `transition` and `open_connection`. See
    /// [identity](#identity)
    connection_id: ConnectionId = row.closed.id;
}}

table! { ConnectionRow<'_>, |row, wide| {
    [time] "CLOSED" = row.last_seen();
    right 7 "PID" = OrDash(row.process.map(|process| process.pid)), drop 5;
    left 15 "PROCESS" = OrDash(row.process.map(ProcessName));
    left 12 "ROLE" = role_text(row.connection.role), drop 4;
    left 23 "LOCAL" = ZonedEndpoint(row.connection.local, row.interface()), drop 3;
    left 23 "REMOTE" = ZonedEndpoint(row.connection.remote, row.interface());
    right 9 "HANDSHAKE" = duration(row.handshake_duration()), drop 1, mark handshake_mark(row.connection.handshake);
    right 9 "DURATION" = duration(row.duration), drop 2;
    right 7 "SENT" = bytes(row.info.map(|info| info.bytes_sent)), drop 6;
    right 7 "RECV" = bytes(row.info.map(|info| info.bytes_received)), drop 6;
    left 22 "REASON" = row.closed.close_cause.reason.name(), least 14, mark reason_mark(row.closed.close_cause.reason);
    left 7 "BY" = row.closed.close_cause.closed_by.map_or("-", ClosedBy::name), if wide;
    right 4 "RETR" = OrDash(row.info.map(|info| info.retransmits)), if wide,
        mark Mark::Warning.when(row.info.is_some_and(|info| info.retransmits > 0));
    right 8 "RTT" = duration(row.info.and_then(|info| info.srtt).map(Nanos::from)), if wide;
    right 8 "ACCEPT" = duration(row.accept_wait().map(AcceptWait::duration)), if wide;
    right 8 "WRITE" = duration(row.connection.first_write()), if wide;
    right 8 "READ" = duration(row.connection.first_read()), if wide;
    left 24 "CONTAINER" = OrDash(CgroupOwnerText::of(row.cgroup)), if wide;
    left 23 "BACKEND" = OrDash(row.closed.backend.map(EndpointText)), if wide;
    left 30 "WHY" = WhyText(row.closed), if wide, mark Mark::Bad;
    left 0 "STATES" = StatesText(&row.states()), if wide;
}}

/// Returns the role; `-` if it is unknown.
fn role_text(role: Role) -> &'static str {
    if role == Role::Unknown { "-" } else { role.name() }
}

/// What the close reason and the times do not say: the kernel's reason for a reset, and what this host dropped of the
/// handshake; `-` if there is neither.
#[derive(Clone, Copy, Debug)]
struct WhyText<'a>(&'a ClosedConnection<'a>);

impl Text for WhyText<'_> {
    fn write_to(&self, text: &mut impl fmt::Write) -> fmt::Result {
        let reset = self.0.reset.and_then(|reset| reset.reason);
        let dropped = drops_text(self.0.drops);
        if let Some(reason) = reset {
            write!(text, "{reason}")?;
        }
        match (reset, dropped) {
            (None, None) => text.write_char('-'),
            (_, None) => Ok(()),
            (None, Some(dropped)) => text.write_str(&dropped),
            (Some(_), Some(dropped)) => write!(text, "; {dropped}"),
        }
    }
}
