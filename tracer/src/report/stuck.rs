//! What stands still, as rows: a group, then its oldest connections.

use std::{
    fmt::{self, Write as _},
    net::IpAddr,
};

use serde::Serialize;
use tracer_core::{
    escape::escape,
    event::{Endpoint, TcpState},
    lifecycle::{StuckConnection, StuckGroup},
};

use crate::{
    host::Cgroup,
    report::{
        TimeStyle,
        sink::Row,
        text::{self, EndpointText, OrDash},
        transition::{known_address, known_port, network_type},
    },
};

/// A group of stuck connections, ready to be written.
#[derive(Clone, Debug, Serialize)]
pub struct GroupRow {
    r#type: &'static str,
    group: String,
    count: usize,
    oldest_us: f64,
    states: Vec<CountRow>,
    pid: Option<u32>,
    process: Option<String>,
    container_id: Option<String>,
}

/// How many connections of a group are in a state.
#[derive(Clone, Debug, Serialize)]
struct CountRow {
    state: &'static str,
    count: usize,
    #[serde(skip)]
    shown: TcpState,
}

impl GroupRow {
    /// Describes a group; `cgroup` is that of its oldest connection.
    pub fn new(group: &StuckGroup, cgroup: Option<&Cgroup>) -> Self {
        let process = group.members.first().and_then(|oldest| oldest.process);
        let container = cgroup.and_then(|cgroup| cgroup.owner.container.as_ref());
        Self {
            r#type: "stuck_group",
            group: escape(group.key.as_bytes()),
            count: group.members.len(),
            oldest_us: text::microseconds(group.oldest_ns()),
            states: group
                .states()
                .into_iter()
                .map(|(state, count)| CountRow { state: state.name(), count, shown: state })
                .collect(),
            pid: process.map(|process| process.pid),
            process: process.map(|process| escape(process.name())),
            container_id: container.map(|container| container.id.clone()),
        }
    }
}

impl Row for GroupRow {
    const COLUMNS: &'static [&'static str] =
        &["type", "group", "count", "oldest_us", "states", "pid", "process", "container_id"];

    fn header(line: &mut String, _wide: bool, _time: TimeStyle) -> fmt::Result {
        write!(
            line,
            "{:>6} {:<11} {:>9}  {:<23} {:<23} {:>7} {:>7}  OWNER",
            "COUNT", "STATE", "AGE", "LOCAL", "REMOTE", "UNREAD", "UNACKED"
        )
    }

    fn line(&self, line: &mut String, _wide: bool, _time: TimeStyle) -> fmt::Result {
        let states: Vec<String> = self
            .states
            .iter()
            .map(|state| format!("{} {}", state.count, state.shown.kernel_name()))
            .collect();
        write!(
            line,
            "{:>6} {}, oldest {}: {}",
            self.count,
            self.group,
            text::duration(Some(nanoseconds(self.oldest_us))),
            states.join(", ")
        )
    }
}

/// A stuck connection, ready to be written.
#[derive(Clone, Debug, Serialize)]
pub struct StuckRow {
    r#type: &'static str,
    state: &'static str,
    age_us: f64,
    age_source: &'static str,
    network_type: &'static str,
    local_address: IpAddr,
    local_port: Option<u16>,
    remote_address: Option<IpAddr>,
    remote_port: Option<u16>,
    pid: Option<u32>,
    process: Option<String>,
    cgroup: Option<String>,
    container_id: Option<String>,
    unread_bytes: Option<u32>,
    unacked_bytes: Option<u32>,
    ends_in_us: Option<f64>,
    netns: Option<u32>,
    #[serde(skip)]
    shown: (Endpoint, Endpoint, TcpState, u64),
}

impl StuckRow {
    /// Describes a connection that stands still.
    pub fn new(stuck: &StuckConnection, cgroup: Option<&Cgroup>) -> Self {
        let container = cgroup.and_then(|cgroup| cgroup.owner.container.as_ref());
        Self {
            r#type: "stuck",
            state: stuck.state.name(),
            age_us: text::microseconds(stuck.age.nanoseconds()),
            age_source: stuck.age.source(),
            network_type: network_type(stuck.local),
            local_address: stuck.local.address,
            local_port: known_port(stuck.local),
            remote_address: known_address(stuck.remote),
            remote_port: known_port(stuck.remote),
            pid: stuck.process.map(|process| process.pid),
            process: stuck.process.map(|process| escape(process.name())),
            cgroup: cgroup.map(|cgroup| escape(cgroup.path.as_bytes())),
            container_id: container.map(|container| container.id.clone()),
            unread_bytes: stuck.unread_bytes,
            unacked_bytes: stuck.unacked_bytes,
            ends_in_us: stuck.ends_in_ns.map(text::microseconds),
            netns: stuck.netns,
            shown: (stuck.local, stuck.remote, stuck.state, stuck.age.nanoseconds()),
        }
    }
}

impl Row for StuckRow {
    const COLUMNS: &'static [&'static str] = &[
        "type",
        "state",
        "age_us",
        "age_source",
        "network_type",
        "local_address",
        "local_port",
        "remote_address",
        "remote_port",
        "pid",
        "process",
        "cgroup",
        "container_id",
        "unread_bytes",
        "unacked_bytes",
        "ends_in_us",
        "netns",
    ];

    fn header(line: &mut String, wide: bool, time: TimeStyle) -> fmt::Result {
        GroupRow::header(line, wide, time)
    }

    fn line(&self, line: &mut String, _wide: bool, _time: TimeStyle) -> fmt::Result {
        let (local, remote, state, age) = self.shown;
        let at_least = if self.age_source == "at_least" { ">" } else { "" };
        write!(
            line,
            "{:>6} {:<11} {:>9}  {:<23} {:<23} {:>7} {:>7}  ",
            "",
            state.kernel_name(),
            format!("{at_least}{}", text::duration(Some(age))),
            EndpointText(local),
            EndpointText(remote),
            OrDash(self.unread_bytes),
            OrDash(self.unacked_bytes),
        )?;
        match (self.pid, &self.process) {
            (Some(pid), Some(process)) => write!(line, "{process} ({pid})")?,
            _ => line.push('-'),
        }
        if let Some(container) = &self.container_id {
            write!(line, " container {}", &container[..container.len().min(12)])?;
        }
        if let Some(ends_in) = self.ends_in_us {
            write!(line, " lets go in {}", text::duration(Some(nanoseconds(ends_in))))?;
        }
        Ok(())
    }
}

/// What [`text::microseconds`] was given.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was a count of nanoseconds")]
fn nanoseconds(microseconds: f64) -> u64 {
    (microseconds * 1000.0) as u64
}
