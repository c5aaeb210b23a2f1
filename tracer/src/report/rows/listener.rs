//! A listening socket.

use std::{fmt, net::IpAddr};

use tracer_core::{
    analysis::{DurationSketch, ListenerHandshakes, ListenerReport},
    event::{CgroupId, Nanos, Netns},
};

use crate::{
    host::{Cgroup, Container, PodNames, WorkloadKind},
    report::{
        fields::fields,
        text::{
            OrDash, Text,
            endpoint::{EndpointText, known_port},
            marks::queue_mark,
            name::{CgroupOwnerText, EscapedText, ProcessName},
            quantity::{duration, microseconds},
            style::Mark,
            table::table,
        },
    },
};

/// A listening socket and its activity during the run, with its cgroup.
#[derive(Clone, Copy, Debug)]
pub struct ListenerRow<'a> {
    listener: &'a ListenerReport,
    cgroup: Option<&'a Cgroup>,
    knows_abandoned: bool,
}

impl<'a> ListenerRow<'a> {
    /// Creates the row of a listener whose socket was created in `cgroup`. `knows_abandoned` is whether abandoned handshakes
    /// are traced.
    pub fn new(listener: &'a ListenerReport, cgroup: Option<&'a Cgroup>, knows_abandoned: bool) -> Self {
        Self { listener, cgroup, knows_abandoned }
    }

    fn container(&self) -> Option<&'a Container> {
        self.cgroup.and_then(|cgroup| cgroup.owner.container.as_ref())
    }

    fn pod(&self) -> Option<&'a PodNames> {
        self.cgroup.and_then(Cgroup::pod)
    }

    fn unit(&self) -> Option<EscapedText<'a>> {
        let unit = self.cgroup.and_then(|cgroup| cgroup.owner.unit.as_ref());
        unit.map(|unit| EscapedText(unit.as_bytes()))
    }

    fn queue_length(&self) -> Option<u32> {
        self.listener.socket.accept_queue.map(|queue| queue.length)
    }

    fn queue_limit(&self) -> Option<u32> {
        self.listener.socket.accept_queue.map(|queue| queue.limit)
    }

    fn established(&self) -> Option<u64> {
        self.listener.handshakes.as_ref().map(ListenerHandshakes::established)
    }

    fn abandoned(&self) -> Option<u64> {
        let handshakes = self.listener.handshakes.as_ref().filter(|_| self.knows_abandoned);
        handshakes.map(ListenerHandshakes::abandoned)
    }

    fn quantile(&self, of: fn(&ListenerHandshakes) -> &DurationSketch, q: f64) -> Option<Nanos> {
        self.listener.handshakes.as_ref().and_then(|handshakes| of(handshakes).quantile(q))
    }

    fn handshake(&self, q: f64) -> Option<Nanos> {
        self.quantile(ListenerHandshakes::durations, q)
    }

    fn accept_wait(&self, q: f64) -> Option<Nanos> {
        self.quantile(ListenerHandshakes::accept_waits, q)
    }
}

fields! { ListenerRow<'_>, |row| {
    /// `listener`
    type: &'static str = "listener";
    /// Address that it listens on; `0.0.0.0` or `::` for every address
    local_address: IpAddr = row.listener.socket.local.address;
    /// Port that it listens on
    local_port: Option<u16> = known_port(row.listener.socket.local);
    /// Connections waiting for `accept()` at the end
    accept_queue: Option<u32> ["connections"] = row.queue_length();
    /// The backlog of `listen()`, capped by `somaxconn`. Linux admits one connection more
    accept_queue_limit: Option<u32> ["connections"] = row.queue_limit();
    /// The most connections that waited in any of the dumps; if no other listener shares the address, also when a
    /// connection arrived or a SYN-ACK was sent again
    accept_queue_peak: Option<u32> ["connections"] = row.listener.accept_queue_peak;
    /// Handshakes that are half-open at the end: request sockets. Null if other listeners share the address
    half_open: Option<u64> ["handshakes"] = row.listener.half_open;
    /// Segments that the listener dropped since it was created (`sk_drops`): mostly SYNs and final ACKs while the accept
    /// queue was full
    drops: Option<u32> ["segments"] = row.listener.socket.drops;
    /// `drops` during the run. Null if the listener may be older than the run and was not seen at its start
    drops_during: Option<u32> ["segments"] = row.listener.drops_during;
    /// Handshakes that completed during the run. Null if other listeners share the address, as with `SO_REUSEPORT`:
    /// events do not identify the listener
    established: Option<u64> ["handshakes"] = row.established();
    /// Handshakes that this host answered and the client never completed. Null in mode `tracepoint`, and if other listeners
    /// share the address
    abandoned: Option<u64> ["handshakes"] = row.abandoned();
    /// Median duration of the completed handshakes, within 1 %. Null if none is known
    handshake_p50_us: Option<f64> ["us"] = row.handshake(0.5).map(microseconds);
    /// 99th percentile, within 1 %. Null if none is known
    handshake_p99_us: Option<f64> ["us"] = row.handshake(0.99).map(microseconds);
    /// Median time that a connection waited for `accept()`, within 1 %; until the first read, an upper bound, without the hook
    /// `inet_csk_accept`. Null if none is known
    accept_wait_p50_us: Option<f64> ["us"] = row.accept_wait(0.5).map(microseconds);
    /// 99th percentile, within 1 %. Null if none is known
    accept_wait_p99_us: Option<f64> ["us"] = row.accept_wait(0.99).map(microseconds);
    /// Process id of a process that holds the listener, in the initial pid namespace
    pid: Option<u32> = row.listener.process.map(|process| process.pid);
    /// Name of that process: of its thread-group leader, at most 15 bytes
    process: Option<ProcessName> = row.listener.process.map(ProcessName);
    /// User id of that process, in the initial user namespace
    uid: Option<u32> = row.listener.process.map(|process| process.uid);
    /// Id of the cgroup in which the socket was created: the inode of its directory in cgroup v2
    cgroup_id: Option<CgroupId> = row.listener.socket.cgroup_id;
    /// Path of the cgroup, from the root of its hierarchy
    cgroup: Option<EscapedText<'_>> = row.cgroup.map(|cgroup| EscapedText(cgroup.path.as_bytes()));
    /// Id of the container
    container_id: Option<&str> = row.container().map(|container| container.id.as_str());
    /// Container runtime, as in `connection`
    container_runtime: Option<&'static str> = row.container().map(|container| container.runtime.name());
    /// Uid of the Kubernetes pod (`metadata.uid`)
    pod_uid: Option<&str> = row.cgroup.and_then(|cgroup| cgroup.owner.pod_uid.as_deref());
    /// The innermost systemd unit that is not itself a container
    unit: Option<EscapedText<'_>> = row.unit();
    /// Inode of the network namespace
    netns: Option<Netns> = row.listener.socket.netns;
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

table! { ListenerRow<'_>, |row, wide| {
    left 23 "LISTENER" = EndpointText(row.listener.socket.local);
    right 6 "QUEUE" = OrDash(row.queue_length()), mark queue_mark(row.queue_length(), row.queue_limit());
    right 6 "LIMIT" = OrDash(row.queue_limit());
    right 6 "PEAK" = OrDash(row.listener.accept_queue_peak), drop 1, mark queue_mark(row.listener.accept_queue_peak, row.queue_limit());
    right 9 "HALF-OPEN" = OrDash(row.listener.half_open), drop 4;
    right 7 "DROPPED" = OrDash(row.listener.drops_during), mark Mark::Bad.when(row.listener.drops_during.unwrap_or(0) > 0);
    right 8 "IN-ALL" = OrDash(row.listener.socket.drops), drop 7;
    right 8 "ESTAB" = OrDash(row.established());
    right 9 "ABANDONED" = OrDash(row.abandoned()), drop 3, mark Mark::Bad.when(row.abandoned().unwrap_or(0) > 0);
    right 8 "P50" = duration(row.handshake(0.5)), drop 6;
    right 8 "P99" = duration(row.handshake(0.99)), drop 2;
    right 8 "WAIT-P50" = duration(row.accept_wait(0.5)), drop 6;
    right 8 "WAIT-P99" = duration(row.accept_wait(0.99)), drop 5;
    right 10 "NETNS" = OrDash(row.listener.socket.netns.map(|netns| netns.0)), if wide;
    left 0 "" = "";
    left 0 "OWNER" = OwnerText(row), least 15;
}}

/// The process, the unit, and the pod or container.
#[derive(Clone, Copy, Debug)]
struct OwnerText<'a>(&'a ListenerRow<'a>);

impl Text for OwnerText<'_> {
    fn write_to(&self, text: &mut impl fmt::Write) -> fmt::Result {
        match self.0.listener.process {
            Some(process) => write!(text, "{} ({})", ProcessName(process), process.pid)?,
            None => text.write_char('-')?,
        }
        if let Some(unit) = self.0.unit() {
            write!(text, " {}", unit.to_text())?;
        }
        CgroupOwnerText::of(self.0.cgroup).map_or(Ok(()), |owner| owner.append_to(text))
    }
}
