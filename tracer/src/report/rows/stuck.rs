//! A stuck connection.

use std::{fmt, net::IpAddr};

use tracer_core::{
    event::{Nanos, Netns},
    lifecycle::{Age, StuckConnection},
};

use crate::{
    host::{Cgroup, Container, PodNames, WorkloadKind},
    report::{
        fields::fields,
        text::{
            OrDash, Text,
            endpoint::{ZonedEndpoint, known_address, known_port, network_type},
            marks::state_mark,
            name::{CgroupOwnerText, EscapedText, ProcessName},
            quantity::{duration, microseconds},
            style::Mark,
            table::table,
        },
    },
};

/// A stuck connection, with its cgroup.
#[derive(Clone, Copy, Debug)]
pub struct StuckRow<'a> {
    stuck: &'a StuckConnection,
    cgroup: Option<&'a Cgroup>,
}

impl<'a> StuckRow<'a> {
    /// Creates the row of a stuck connection whose socket was created in `cgroup`.
    pub fn new(stuck: &'a StuckConnection, cgroup: Option<&'a Cgroup>) -> Self {
        Self { stuck, cgroup }
    }

    fn container(&self) -> Option<&'a Container> {
        self.cgroup.and_then(|cgroup| cgroup.owner.container.as_ref())
    }

    fn pod(&self) -> Option<&'a PodNames> {
        self.cgroup.and_then(Cgroup::pod)
    }
}

fields! { StuckRow<'_>, |row| {
    /// `stuck`
    type: &'static str = "stuck";
    /// Its state
    state: &'static str = row.stuck.state.name();
    /// Time in that state
    age_us: f64 ["us"] = microseconds(row.stuck.age.lower_bound());
    /// `observed`: the transition into the state was traced. `at_least`: a lower bound, 0 if the kernel gives none
    age_source: &'static str = row.stuck.age.source();
    /// `ipv4` or `ipv6`
    network_type: &'static str = network_type(row.stuck.local);
    /// Local address
    local_address: IpAddr = row.stuck.local.address;
    /// Local port
    local_port: Option<u16> = known_port(row.stuck.local);
    /// Remote address
    remote_address: Option<IpAddr> = known_address(row.stuck.remote);
    /// Remote port
    remote_port: Option<u16> = known_port(row.stuck.remote);
    /// Process id of a process that holds the socket; for a half-open handshake and a connection that was not accepted,
    /// of the listener. Null if the application has closed the socket and only the kernel holds it
    pid: Option<u32> = row.stuck.process.map(|process| process.pid);
    /// Name of that process
    process: Option<ProcessName> = row.stuck.process.map(ProcessName);
    /// Path of the cgroup
    cgroup: Option<EscapedText<'_>> = row.cgroup.map(|cgroup| EscapedText(cgroup.path.as_bytes()));
    /// Id of the container
    container_id: Option<&str> = row.container().map(|container| container.id.as_str());
    /// Bytes received that the application has not read
    unread_bytes: Option<u32> ["bytes"] = row.stuck.unread_bytes;
    /// Bytes written that the peer has not acknowledged
    unacked_bytes: Option<u32> ["bytes"] = row.stuck.unacked_bytes;
    /// Timewait sockets: time until the kernel removes the socket
    ends_in_us: Option<f64> ["us"] = row.stuck.ends_in.map(microseconds);
    /// Inode of the network namespace
    netns: Option<Netns> = row.stuck.netns;
    /// It waits in its listener's accept queue: no process has accepted it. Null for a recording and for a socket without
    /// an application
    not_accepted: Option<bool> = row.stuck.not_accepted;
    /// Index of the interface that the socket is bound to, which is the zone of a link-local address. Null if it is not
    /// bound
    interface: Option<u32> = row.stuck.interface;
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

table! { StuckRow<'_>, |row, wide| {
    right 6 "COUNT" = "";
    left 11 "STATE" = row.stuck.state.kernel_name(), mark state_mark(row.stuck.state);
    right 9 "AGE" = AgeText(row.stuck.age);
    left 0 "" = "";
    left 23 "LOCAL" = ZonedEndpoint(row.stuck.local, row.stuck.interface), drop 1;
    left 23 "REMOTE" = ZonedEndpoint(row.stuck.remote, row.stuck.interface);
    right 7 "UNREAD" = OrDash(row.stuck.unread_bytes), drop 2, mark pending_mark(row.stuck.unread_bytes);
    right 7 "UNACKED" = OrDash(row.stuck.unacked_bytes), drop 3, mark pending_mark(row.stuck.unacked_bytes);
    left 0 "" = "";
    left 0 "OWNER" = OwnerText(row), least 20;
}}

/// Returns the mark of a number of bytes that somebody should have taken.
fn pending_mark(bytes: Option<u32>) -> Mark {
    Mark::Warning.when(bytes.unwrap_or(0) > 0)
}

/// An age; `>` marks a lower bound.
#[derive(Clone, Copy, Debug)]
struct AgeText(Age);

impl Text for AgeText {
    fn write_to(&self, text: &mut impl fmt::Write) -> fmt::Result {
        text.write_str(if matches!(self.0, Age::AtLeast(_)) { ">" } else { "" })?;
        duration(Some(self.0.lower_bound())).write_to(text)
    }
}

/// The process, the pod or container, and when the kernel removes the socket.
#[derive(Clone, Copy, Debug)]
struct OwnerText<'a>(&'a StuckRow<'a>);

impl Text for OwnerText<'_> {
    fn write_to(&self, text: &mut impl fmt::Write) -> fmt::Result {
        match self.0.stuck.process {
            Some(process) => write!(text, "{} ({})", ProcessName(process), process.pid)?,
            None => text.write_char('-')?,
        }
        if self.0.stuck.not_accepted == Some(true) {
            text.write_str(" not accepted")?;
        }
        if let Some(owner) = CgroupOwnerText::of(self.0.cgroup) {
            owner.append_to(text)?;
        }
        match self.0.stuck.ends_in {
            // The timer is due; the kernel has not run it yet.
            Some(Nanos(0)) => text.write_str(" freed now"),
            Some(left) => write!(text, " freed in {}", duration(Some(left))),
            None => Ok(()),
        }
    }
}
