//! A connection that ended as a row.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
    net::IpAddr,
};

use arrayvec::ArrayVec;
use serde::{Serialize, Serializer};
use tracer_core::{
    event::{ClockOffset, Endpoint, Timestamp},
    lifecycle::{ClosedBy, ClosedConnection, DurationSource, HandshakeCaveat, StateSpan},
};

use crate::{
    host::Cgroup,
    report::{
        TimeStyle,
        columns::TableLine,
        errno,
        sink::Row,
        text::{self, EndpointText, EscapedText, OrDash, ProcessName, Text as _},
        transition::{known_address, known_port, network_type},
        wall_time::{self, Rfc3339},
    },
};

/// A connection, ready to be written; its JSON form is the contract in docs/output.md.
#[derive(Clone, Debug, Serialize)]
pub struct ConnectionRow<'a> {
    r#type: &'static str,
    role: &'static str,
    network_type: &'static str,
    local_address: IpAddr,
    local_port: Option<u16>,
    remote_address: Option<IpAddr>,
    remote_port: Option<u16>,
    opened: Option<Rfc3339>,
    closed: Option<Rfc3339>,
    duration_us: Option<f64>,
    states: States,
    handshake_us: Option<f64>,
    handshake_source: Option<&'static str>,
    handshake_caveat: Option<&'static str>,
    handshake_rtt_us: Option<u32>,
    syn_retransmits: Option<u8>,
    close_reason: &'static str,
    closed_by: Option<&'static str>,
    error: Option<Cow<'static, str>>,
    bytes_sent: Option<u64>,
    bytes_received: Option<u64>,
    segments_sent: Option<u32>,
    segments_received: Option<u32>,
    retransmits: Option<u32>,
    srtt_us: Option<u32>,
    min_rtt_us: Option<u32>,
    mss: Option<u32>,
    accept_queue: Option<u32>,
    accept_queue_limit: Option<u32>,
    pid: Option<u32>,
    process: Option<ProcessName>,
    uid: Option<u32>,
    owner_source: &'static str,
    cgroup_id: Option<u64>,
    cgroup: Option<EscapedText<'a>>,
    container_id: Option<&'a str>,
    container_runtime: Option<&'static str>,
    pod_uid: Option<&'a str>,
    unit: Option<EscapedText<'a>>,
    netns: Option<u32>,
    time_wait_reused: bool,
    incomplete: bool,
    gap: bool,
    #[serde(skip)]
    shown: Shown,
}

/// The states of a lifecycle: those of its history, and what the kernel keeps of it afterwards.
#[derive(Clone, Debug)]
struct States(ArrayVec<StateSpan, 8>);

impl Serialize for States {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|span| StateRow {
            state: span.state.name(),
            duration_us: span.duration_ns.map(text::microseconds),
            source: span.source.name(),
        }))
    }
}

/// One state of a lifecycle.
#[derive(Clone, Debug, Serialize)]
struct StateRow {
    state: &'static str,
    duration_us: Option<f64>,
    source: &'static str,
}

/// What the table shows in another form than JSON.
#[derive(Clone, Debug)]
struct Shown {
    closed: Timestamp,
    clock: ClockOffset,
    local: Endpoint,
    remote: Endpoint,
    duration_ns: Option<u64>,
    handshake_ns: Option<u64>,
}

impl<'a> ConnectionRow<'a> {
    /// Describes a connection; `cgroup` is the one its socket was made in.
    pub fn new(closed: &ClosedConnection<'_>, cgroup: Option<&'a Cgroup>, clock: ClockOffset) -> Self {
        let connection = closed.connection;
        let (local, remote) = (connection.local, connection.remote);
        let handshake = connection.handshake;
        // A source without a duration would say how nothing was obtained.
        let timed = handshake.filter(|handshake| handshake.duration_ns.is_some());
        let info = closed.info;
        let owner = connection.owner;
        let container = cgroup.and_then(|cgroup| cgroup.owner.container.as_ref());
        Self {
            r#type: "connection",
            role: connection.role.name(),
            network_type: network_type(local),
            local_address: local.address,
            local_port: known_port(local),
            remote_address: known_address(remote),
            remote_port: known_port(remote),
            opened: closed.opened().map(|time| wall_time::rfc3339(time, clock)),
            closed: closed.close_seen.then(|| wall_time::rfc3339(closed.closed, clock)),
            duration_us: closed.duration_ns().map(text::microseconds),
            states: States(closed.states().collect()),
            handshake_us: timed.and_then(|handshake| handshake.duration_ns).map(text::microseconds),
            handshake_source: timed.map(|handshake| handshake.source.name()),
            handshake_caveat: handshake.and_then(|handshake| handshake.caveat).map(HandshakeCaveat::name),
            handshake_rtt_us: handshake.and_then(|handshake| handshake.rtt_us),
            syn_retransmits: handshake.and_then(|handshake| handshake.retransmits),
            close_reason: closed.close_cause.reason.name(),
            closed_by: closed.close_cause.closed_by.map(ClosedBy::name),
            error: closed.close_cause.error.map(errno::name),
            bytes_sent: info.map(|info| info.bytes_sent),
            bytes_received: info.map(|info| info.bytes_received),
            segments_sent: info.map(|info| info.segments_sent),
            segments_received: info.map(|info| info.segments_received),
            retransmits: info.map(|info| info.retransmits),
            srtt_us: info.and_then(|info| info.srtt_us),
            min_rtt_us: info.and_then(|info| info.min_rtt_us),
            mss: info.map(|info| info.mss),
            accept_queue: connection.accept_queue.map(|queue| queue.length),
            accept_queue_limit: connection.accept_queue.map(|queue| queue.limit),
            pid: owner.process.map(|process| process.pid),
            process: owner.process.map(ProcessName),
            uid: owner.process.map(|process| process.uid),
            owner_source: owner.source.name(),
            cgroup_id: connection.cgroup_id,
            cgroup: cgroup.map(|cgroup| EscapedText(cgroup.path.as_bytes())),
            container_id: container.map(|container| container.id.as_str()),
            container_runtime: container.map(|container| container.runtime.name()),
            pod_uid: cgroup.and_then(|cgroup| cgroup.owner.pod_uid.as_deref()),
            unit: cgroup
                .and_then(|cgroup| cgroup.owner.unit.as_ref())
                .map(|unit| EscapedText(unit.as_bytes())),
            netns: connection.netns,
            time_wait_reused: connection.reused_time_wait,
            incomplete: connection.incomplete,
            gap: connection.gap,
            shown: Shown {
                closed: closed.closed,
                clock,
                local,
                remote,
                duration_ns: closed.duration_ns(),
                handshake_ns: timed.and_then(|handshake| handshake.duration_ns),
            },
        }
    }
}

impl Row for ConnectionRow<'_> {
    const COLUMNS: &'static [&'static str] = &[
        "type",
        "role",
        "network_type",
        "local_address",
        "local_port",
        "remote_address",
        "remote_port",
        "opened",
        "closed",
        "duration_us",
        "states",
        "handshake_us",
        "handshake_source",
        "handshake_caveat",
        "handshake_rtt_us",
        "syn_retransmits",
        "close_reason",
        "closed_by",
        "error",
        "bytes_sent",
        "bytes_received",
        "segments_sent",
        "segments_received",
        "retransmits",
        "srtt_us",
        "min_rtt_us",
        "mss",
        "accept_queue",
        "accept_queue_limit",
        "pid",
        "process",
        "uid",
        "owner_source",
        "cgroup_id",
        "cgroup",
        "container_id",
        "container_runtime",
        "pod_uid",
        "unit",
        "netns",
        "time_wait_reused",
        "incomplete",
        "gap",
    ];

    fn header(line: &mut String, wide: bool, time: TimeStyle) -> fmt::Result {
        wall_time::write_time_head(line, "CLOSED", time)?;
        write!(
            line,
            "{:>7} {:<15} {:<12} {:<23} {:<23} {:>9} {:>9} {:>7} {:>7} {:<22}",
            "PID", "PROCESS", "ROLE", "LOCAL", "REMOTE", "HANDSHAKE", "DURATION", "SENT", "RECV", "REASON"
        )?;
        if wide {
            write!(line, " {:<7} {:>4} {:>8} STATES", "BY", "RETR", "RTT")?;
        }
        Ok(())
    }

    fn line(&self, line: &mut String, wide: bool, time: TimeStyle) -> fmt::Result {
        let shown = &self.shown;
        wall_time::write_time(line, shown.closed, shown.clock, time)?;
        let mut columns = TableLine(line);
        columns
            .right(7, OrDash(self.pid))?
            .left(15, OrDash(self.process))?
            .left(12, self.role)?
            .left(23, EndpointText(shown.local))?
            .left(23, EndpointText(shown.remote))?
            .right(9, text::duration(shown.handshake_ns))?
            .right(9, text::duration(shown.duration_ns))?
            .right(7, text::bytes(self.bytes_sent))?
            .right(7, text::bytes(self.bytes_received))?
            .left(22, self.close_reason)?;
        if wide {
            columns
                .left(7, self.closed_by.unwrap_or("-"))?
                .right(4, OrDash(self.retransmits))?
                .right(8, text::duration(self.srtt_us.map(|rtt| u64::from(rtt) * 1000)))?;
            write_states(line, &self.states.0)?;
        }
        Ok(())
    }
}

/// The lifecycle on one line; a `~` marks what was modelled.
fn write_states(line: &mut String, spans: &[StateSpan]) -> fmt::Result {
    for (index, span) in spans.iter().enumerate() {
        line.push_str(if index == 0 { "" } else { " > " });
        line.push_str(span.state.kernel_name());
        line.push_str(if span.source == DurationSource::Modelled { " ~" } else { " " });
        text::duration(span.duration_ns).write_to(line)?;
    }
    Ok(())
}
