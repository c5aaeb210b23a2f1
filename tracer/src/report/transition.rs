//! A transition as a row.

use std::{
    fmt::{self, Write as _},
    net::IpAddr,
};

use serde::Serialize;
use tracer_core::{
    event::{ClockOffset, Endpoint, TcpState, TimewaitEnd, Transition},
    lifecycle::{Connection, EndedTimewait},
    owner::OwnerSource,
};

use crate::report::{
    TimeStyle,
    columns::TableLine,
    sink::Row,
    text::{self, EndpointText, OrDash, ProcessName, SocketText},
    wall_time::{self, Rfc3339},
};

/// A transition, ready to be written; its JSON form is the contract in docs/output.md.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TransitionRow {
    r#type: &'static str,
    time: Rfc3339,
    socket: Option<SocketText>,
    network_type: &'static str,
    local_address: IpAddr,
    local_port: Option<u16>,
    remote_address: Option<IpAddr>,
    remote_port: Option<u16>,
    from: &'static str,
    to: &'static str,
    duration_us: Option<f64>,
    pid: Option<u32>,
    comm: Option<ProcessName>,
    owner_source: &'static str,
    cgroup_id: Option<u64>,
    netns: Option<u32>,
    #[serde(skip)]
    shown: Shown,
}

/// What the table shows in another form than JSON.
#[derive(Clone, Copy, Debug)]
struct Shown {
    local: Endpoint,
    remote: Endpoint,
    from: TcpState,
    to: TcpState,
    duration_ns: Option<u64>,
}

impl TransitionRow {
    /// Describes the end of what the kernel kept of a closed connection, where a hook saw it.
    pub fn of_timewait(event: &TimewaitEnd, end: &EndedTimewait, clock: ClockOffset) -> Self {
        Self {
            r#type: "time_wait_end",
            time: wall_time::rfc3339(event.time, clock),
            socket: None,
            network_type: network_type(event.local),
            local_address: event.local.address,
            local_port: known_port(event.local),
            remote_address: known_address(event.remote),
            remote_port: known_port(event.remote),
            from: end.state.name(),
            to: TcpState::Closed.name(),
            duration_us: Some(text::microseconds(end.duration_ns)),
            pid: None,
            comm: None,
            owner_source: OwnerSource::Unknown.name(),
            cgroup_id: None,
            netns: event.netns,
            shown: Shown {
                local: event.local,
                remote: event.remote,
                from: end.state,
                to: TcpState::Closed,
                duration_ns: Some(end.duration_ns),
            },
        }
    }

    /// Describes a transition; `connection` is the one it belongs to, after the transition.
    pub fn new(
        transition: &Transition,
        connection: Option<&Connection>,
        duration_ns: Option<u64>,
        clock: ClockOffset,
    ) -> Self {
        // An event that carries no endpoint or owner has its connection's, once that is known.
        let local = best(transition.local, connection.map(|connection| connection.local));
        let remote = best(transition.remote, connection.map(|connection| connection.remote));
        let (process, owner_source) = match connection {
            Some(connection) => (connection.owner.process, connection.owner.source),
            None if transition.to == TcpState::Listen => (transition.process, OwnerSource::Listener),
            None if transition.process.is_some() => (transition.process, OwnerSource::Closer),
            None => (None, OwnerSource::Unknown),
        };
        Self {
            r#type: "transition",
            time: wall_time::rfc3339(transition.time, clock),
            socket: Some(SocketText(transition.socket)),
            network_type: network_type(local),
            local_address: local.address,
            local_port: known_port(local),
            remote_address: known_address(remote),
            remote_port: known_port(remote),
            from: transition.from.name(),
            to: transition.to.name(),
            duration_us: duration_ns.map(text::microseconds),
            pid: process.map(|process| process.pid),
            comm: process.map(ProcessName),
            owner_source: owner_source.name(),
            cgroup_id: transition.cgroup_id.or(connection.and_then(|connection| connection.cgroup_id)),
            netns: transition.netns,
            shown: Shown { local, remote, from: transition.from, to: transition.to, duration_ns },
        }
    }
}

pub(super) fn network_type(local: Endpoint) -> &'static str {
    if local.address.is_ipv4() { "ipv4" } else { "ipv6" }
}

pub(super) fn known_port(endpoint: Endpoint) -> Option<u16> {
    (endpoint.port != 0).then_some(endpoint.port)
}

/// A remote end without a port is no end: a listener's, or one the kernel has not filled in yet.
pub(super) fn known_address(remote: Endpoint) -> Option<IpAddr> {
    (remote.port != 0).then_some(remote.address)
}

fn best(now: Endpoint, known: Option<Endpoint>) -> Endpoint {
    if now.port == 0 { known.unwrap_or(now) } else { now }
}

impl Row for TransitionRow {
    const COLUMNS: &'static [&'static str] = &[
        "type",
        "time",
        "socket",
        "network_type",
        "local_address",
        "local_port",
        "remote_address",
        "remote_port",
        "from",
        "to",
        "duration_us",
        "pid",
        "comm",
        "owner_source",
        "cgroup_id",
        "netns",
    ];

    fn header(line: &mut String, wide: bool, time: TimeStyle) -> fmt::Result {
        wall_time::write_time_head(line, "TIME", time)?;
        write!(
            line,
            "{:>7} {:<15} {:<23} {:<23} {:<11} {:<11} {:>9}",
            "PID", "PROCESS", "LOCAL", "REMOTE", "FROM", "TO", "DURATION"
        )?;
        if wide {
            write!(line, "  {:<8} {:>10} {:>8} {:<16}", "OWNER BY", "NETNS", "CGROUP", "SOCKET")?;
        }
        Ok(())
    }

    fn line(&self, line: &mut String, wide: bool, time: TimeStyle) -> fmt::Result {
        let shown = &self.shown;
        wall_time::write_time(line, self.time.time, self.time.clock, time)?;
        let mut columns = TableLine(line);
        columns
            .right(7, OrDash(self.pid))?
            .left(15, OrDash(self.comm))?
            .left(23, EndpointText(shown.local))?
            .left(23, EndpointText(shown.remote))?
            .left(11, shown.from.kernel_name())?
            .left(11, shown.to.kernel_name())?
            .right(9, text::duration(shown.duration_ns))?;
        if wide {
            columns
                .gap()
                .left(8, self.owner_source)?
                .right(10, OrDash(self.netns))?
                .right(8, OrDash(self.cgroup_id))?
                .left(16, OrDash(self.socket))?;
        }
        Ok(())
    }
}
