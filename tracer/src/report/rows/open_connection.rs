//! A connection that is open at the end of a recording.

use std::{net::IpAddr, num::NonZeroU32};

use tracer_core::{
    event::{CgroupId, ClockOffset, ConnectionId, Nanos, Netns, Process, SocketId, Timestamp},
    lifecycle::{AcceptWait, Age, Connection, Handshake, HandshakeCaveat},
};

use crate::{
    host::{Cgroup, Container, PodNames, WorkloadKind},
    report::{
        fields::fields,
        text::{
            OrDash,
            endpoint::{ZonedEndpoint, known_address, known_port, network_type},
            name::{EscapedText, ProcessName},
            quantity::{duration, microseconds},
            table::table,
            wall_time::{Rfc3339, rfc3339},
        },
    },
};

/// An open connection, with its cgroup.
#[derive(Clone, Copy, Debug)]
pub struct OpenConnectionRow<'a> {
    id: ConnectionId,
    connection: &'a Connection,
    process: Option<Process>,
    cgroup: Option<&'a Cgroup>,
    clock: ClockOffset,
    now: Timestamp,
    age: Age,
    opened: Option<Timestamp>,
}

impl<'a> OpenConnectionRow<'a> {
    /// Creates the row of a connection on `socket`, created in `cgroup`, as it is at the time `now`.
    pub fn new(
        socket: SocketId,
        connection: &'a Connection,
        cgroup: Option<&'a Cgroup>,
        now: Timestamp,
        clock: ClockOffset,
    ) -> Self {
        Self {
            id: connection.id(socket),
            connection,
            process: connection.owner.process,
            cgroup,
            clock,
            now,
            age: Age::of(connection, now),
            opened: connection.opened(),
        }
    }

    /// Returns the time of which the state and the age are.
    pub(in crate::report) fn time(&self) -> Rfc3339 {
        rfc3339(self.now, self.clock)
    }

    fn duration(&self) -> Option<Nanos> {
        self.opened.map(|opened| self.now.since(opened))
    }

    fn interface(&self) -> Option<u32> {
        self.connection.interface.map(NonZeroU32::get)
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

fields! { OpenConnectionRow<'_>, |row| {
    /// `open_connection`
    type: &'static str = "open_connection";
    /// Identity of the connection, as in `connection`
    connection_id: ConnectionId = row.id;
    /// End of the recording
    time: Rfc3339 ["ns"] = row.time();
    /// Its state at `time`
    state: &'static str = row.connection.state().name();
    /// Time in that state until `time`
    age_us: f64 ["us"] = microseconds(row.age.lower_bound());
    /// `observed`: the transition into the state was traced. `at_least`: a lower bound, 0 if nothing is known
    age_source: &'static str = row.age.source();
    /// As in `connection`
    role: &'static str = row.connection.role.name();
    /// `ipv4` or `ipv6`
    network_type: &'static str = network_type(row.connection.local);
    /// Local address
    local_address: IpAddr = row.connection.local.address;
    /// Local port; null if none is bound yet
    local_port: Option<u16> = known_port(row.connection.local);
    /// Remote address
    remote_address: Option<IpAddr> = known_address(row.connection.remote);
    /// Remote port
    remote_port: Option<u16> = known_port(row.connection.remote);
    /// Start of the handshake, as in `connection`. Null if the start was not seen
    opened: Option<Rfc3339> ["ns"] = row.opened.map(|time| rfc3339(time, row.clock));
    /// Time from `opened` to `time`; null if `opened` is null
    duration_us: Option<f64> ["us"] = row.duration().map(microseconds);
    /// Duration of the handshake, as in `connection`. Null if it has not ended or is unknown
    handshake_us: Option<f64> ["us"] = row.handshake_duration().map(microseconds);
    /// How `handshake_us` was obtained: `observed`, `measured`, `modelled`
    handshake_source: Option<&'static str> = row.timed_handshake().map(|handshake| handshake.source.name());
    /// Why `handshake_us` is not exact: see [handshake-durations.md](handshake-durations.md#caveats)
    handshake_caveat: Option<&'static str> =
        row.connection.handshake.and_then(|handshake| handshake.caveat).map(HandshakeCaveat::name);
    /// Network part of the handshake, as in `connection`
    handshake_rtt_us: Option<u32> ["us"] = row.connection.handshake.and_then(|handshake| handshake.rtt).map(|rtt| rtt.0);
    /// SYNs retransmitted; for a server, SYN-ACKs
    syn_retransmits: Option<u8> ["segments"] =
        row.connection.handshake.and_then(|handshake| handshake.retransmits);
    /// Whether a segment of the handshake was lost. Null if unknown
    syn_lost: Option<bool> = row.connection.handshake.and_then(|handshake| handshake.lost);
    /// Process id of the owner, in the initial pid namespace
    pid: Option<u32> = row.process.map(|process| process.pid);
    /// Name of the owner: of its thread-group leader, at most 15 bytes
    process: Option<ProcessName> = row.process.map(ProcessName);
    /// User id of the owner, in the initial user namespace
    uid: Option<u32> = row.process.map(|process| process.uid);
    /// How the owner was found: see [owners](#owners)
    owner_source: &'static str = row.connection.owner.source.name();
    /// Name of the owner's thread that made the call; null if it was the main thread, or is unknown
    thread: Option<EscapedText<'_>> =
        row.connection.owner.thread.as_ref().map(|thread| EscapedText(thread.name()));
    /// Id of the socket's cgroup
    cgroup_id: Option<CgroupId> = row.connection.cgroup_id;
    /// Path of the cgroup, from the root of its hierarchy
    cgroup: Option<EscapedText<'_>> = row.cgroup.map(|cgroup| EscapedText(cgroup.path.as_bytes()));
    /// Id of the container
    container_id: Option<&str> = row.container().map(|container| container.id.as_str());
    /// Container runtime, as in `connection`
    container_runtime: Option<&'static str> = row.container().map(|container| container.runtime.name());
    /// Uid of the Kubernetes pod (`metadata.uid`)
    pod_uid: Option<&str> = row.cgroup.and_then(|cgroup| cgroup.owner.pod_uid.as_deref());
    /// The innermost systemd unit that is not itself a container
    unit: Option<EscapedText<'_>> =
        row.cgroup.and_then(|cgroup| cgroup.owner.unit.as_ref()).map(|unit| EscapedText(unit.as_bytes()));
    /// Inode of the network namespace
    netns: Option<Netns> = row.connection.netns;
    /// Index of the interface that the socket is bound to. Null if it is not bound
    interface: Option<u32> = row.interface();
    /// It reused the addresses and ports of a connection still in TIME_WAIT
    time_wait_reused: bool = row.connection.reused_time_wait;
    /// Its start was not seen
    incomplete: bool = row.connection.incomplete;
    /// At least one transition was not seen
    gap: bool = row.connection.gap;
    /// Server: time from ESTABLISHED until `accept()` returned the connection. Null if unknown or not accepted
    accept_wait_us: Option<f64> ["us"] = row.accept_wait().map(|wait| microseconds(wait.duration()));
    /// What ended `accept_wait_us`: `accept`, or `first_read`, which makes it an upper bound
    accept_wait_source: Option<&'static str> = row.accept_wait().map(AcceptWait::source);
    /// Time from ESTABLISHED until a process first read data. Null if unknown or never
    first_read_us: Option<f64> ["us"] = row.connection.first_read().map(microseconds);
    /// Time from ESTABLISHED until the first write of a process returned. Null if unknown or never
    first_write_us: Option<f64> ["us"] = row.connection.first_write().map(microseconds);
    /// As in `connection`
    container_name: Option<&str> = row.cgroup.and_then(Cgroup::container_name);
    /// As in `connection`
    k8s_namespace: Option<&str> = row.pod().map(PodNames::namespace);
    /// As in `connection`
    k8s_pod: Option<&str> = row.pod().map(PodNames::pod);
    /// As in `connection`
    k8s_container: Option<&str> = row.cgroup.and_then(Cgroup::container_in_pod);
    /// As in `connection`
    k8s_workload: Option<&str> = row.pod().map(PodNames::workload);
    /// As in `connection`
    k8s_workload_kind: Option<&'static str> =
        row.pod().and_then(PodNames::workload_kind).map(WorkloadKind::name);
}}

// No command prints this table: exports are files. CSV goes through the sink of all rows, which have tables.
table! { OpenConnectionRow<'_>, |row, wide| {
    [time] "TIME" = row.time();
    right 7 "PID" = OrDash(row.process.map(|process| process.pid)), drop 2;
    left 15 "PROCESS" = OrDash(row.process.map(ProcessName));
    left 23 "LOCAL" = ZonedEndpoint(row.connection.local, row.interface()), drop 1;
    left 23 "REMOTE" = ZonedEndpoint(row.connection.remote, row.interface());
    left 11 "STATE" = row.connection.state().kernel_name();
    right 9 "AGE" = duration(Some(row.age.lower_bound()));
}}
