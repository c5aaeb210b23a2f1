//! A connection that ended as a row.

use std::fmt::{self, Write as _};

use serde::Serialize;

use super::{
    TimeStyle, errno,
    sink::Row,
    text::{self, EndpointText, escape},
    transition::{known_address, known_port, network_type, optional},
};
use crate::{
    event::{Endpoint, Timestamp},
    lifecycle::{ClosedBy, ClosedConnection, DurationSource, HandshakeCaveat, StateSpan},
    owner::Cgroup,
    source::ClockOffset,
};

/// A connection, ready to be written; its JSON form is the contract in docs/output.md.
#[derive(Clone, Debug, Serialize)]
pub struct ConnectionRow {
    r#type: &'static str,
    role: &'static str,
    network_type: &'static str,
    local_address: String,
    local_port: Option<u16>,
    remote_address: Option<String>,
    remote_port: Option<u16>,
    opened: Option<String>,
    closed: Option<String>,
    duration_us: Option<f64>,
    states: Vec<StateRow>,
    handshake_us: Option<f64>,
    handshake_source: Option<&'static str>,
    handshake_caveat: Option<&'static str>,
    handshake_rtt_us: Option<u32>,
    syn_retransmits: Option<u8>,
    close_reason: &'static str,
    closed_by: Option<&'static str>,
    error: Option<String>,
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
    process: Option<String>,
    uid: Option<u32>,
    owner_source: &'static str,
    cgroup_id: Option<u64>,
    cgroup: Option<String>,
    container_id: Option<String>,
    container_runtime: Option<&'static str>,
    pod_uid: Option<String>,
    unit: Option<String>,
    netns: Option<u32>,
    time_wait_reused: bool,
    incomplete: bool,
    gap: bool,
    #[serde(skip)]
    shown: Shown,
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
    spans: Vec<StateSpan>,
}

impl ConnectionRow {
    /// Describes a connection; `cgroup` is the one its socket was made in.
    pub fn new(closed: &ClosedConnection<'_>, cgroup: Option<&Cgroup>, clock: ClockOffset) -> Self {
        let connection = closed.connection;
        let (local, remote) = (connection.local, connection.remote);
        let handshake = connection.handshake;
        // A source without a duration would say how nothing was obtained.
        let timed = handshake.filter(|handshake| handshake.duration_ns.is_some());
        let spans: Vec<StateSpan> = closed.states().collect();
        let info = closed.info;
        let owner = connection.owner;
        let container = cgroup.and_then(|cgroup| cgroup.owner.container.as_ref());
        Self {
            r#type: "connection",
            role: connection.role.name(),
            network_type: network_type(local),
            local_address: local.address.to_string(),
            local_port: known_port(local),
            remote_address: known_address(remote),
            remote_port: known_port(remote),
            opened: closed.opened().map(|time| text::rfc3339(time, clock)),
            closed: closed.end_seen.then(|| text::rfc3339(closed.closed, clock)),
            duration_us: closed.duration_ns().map(text::microseconds),
            states: spans
                .iter()
                .map(|span| StateRow {
                    state: span.state.name(),
                    duration_us: span.duration_ns.map(text::microseconds),
                    source: span.source.name(),
                })
                .collect(),
            handshake_us: timed.and_then(|handshake| handshake.duration_ns).map(text::microseconds),
            handshake_source: timed.map(|handshake| handshake.source.name()),
            handshake_caveat: handshake.and_then(|handshake| handshake.caveat).map(HandshakeCaveat::name),
            handshake_rtt_us: handshake.and_then(|handshake| handshake.rtt_us),
            syn_retransmits: handshake.and_then(|handshake| handshake.retransmits),
            close_reason: closed.ending.reason.name(),
            closed_by: closed.ending.closed_by.map(ClosedBy::name),
            error: closed.ending.error.map(|error| errno::name(error).into_owned()),
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
            process: owner.process.map(|process| escape(process.name())),
            uid: owner.process.map(|process| process.uid),
            owner_source: owner.source.name(),
            cgroup_id: connection.cgroup_id,
            cgroup: cgroup.map(|cgroup| escape(cgroup.path.as_bytes())),
            container_id: container.map(|container| container.id.clone()),
            container_runtime: container.map(|container| container.runtime.name()),
            pod_uid: cgroup.and_then(|cgroup| cgroup.owner.pod_uid.clone()),
            unit: cgroup.and_then(|cgroup| cgroup.owner.unit.as_ref()).map(|unit| escape(unit.as_bytes())),
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
                spans,
            },
        }
    }
}

impl Row for ConnectionRow {
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
        if time != TimeStyle::None {
            line.push_str("CLOSED          ");
        }
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
        if time != TimeStyle::None {
            line.push_str(&text::time_of_day(shown.closed, shown.clock, time));
            line.push(' ');
        }
        write!(
            line,
            "{:>7} {:<15} {:<12} {:<23} {:<23} {:>9} {:>9} {:>7} {:>7} {:<22}",
            optional(self.pid),
            self.process.as_deref().unwrap_or("-"),
            self.role,
            EndpointText(shown.local),
            EndpointText(shown.remote),
            text::duration(shown.handshake_ns),
            text::duration(shown.duration_ns),
            text::bytes(self.bytes_sent),
            text::bytes(self.bytes_received),
            self.close_reason,
        )?;
        if wide {
            write!(
                line,
                " {:<7} {:>4} {:>8} ",
                self.closed_by.unwrap_or("-"),
                optional(self.retransmits),
                text::duration(self.srtt_us.map(|rtt| u64::from(rtt) * 1000)),
            )?;
            write_states(line, &shown.spans)?;
        }
        Ok(())
    }
}

/// The lifecycle on one line; a `~` marks what was modelled.
fn write_states(line: &mut String, spans: &[StateSpan]) -> fmt::Result {
    for (index, span) in spans.iter().enumerate() {
        let arrow = if index == 0 { "" } else { " > " };
        let mark = if span.source == DurationSource::Modelled { "~" } else { "" };
        write!(line, "{arrow}{} {mark}{}", span.state.kernel_name(), text::duration(span.duration_ns))?;
    }
    Ok(())
}
