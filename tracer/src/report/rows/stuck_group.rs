//! A group of stuck connections.

use std::fmt::{self, Write as _};

use tracer_core::{
    escape::escape,
    event::{Process, TcpState},
    lifecycle::StuckGroup,
};

use crate::{
    host::{Cgroup, PodNames},
    report::{
        fields::fields,
        row::Row,
        rows::stuck::StuckRow,
        text::{
            name::ProcessName,
            quantity::{duration, microseconds},
            style::Mark,
            table_style::TableStyle,
        },
    },
};

/// A group of stuck connections.
#[derive(Clone, Copy, Debug)]
pub struct GroupRow<'a> {
    group: &'a StuckGroup,
    cgroup: Option<&'a Cgroup>,
}

/// How many connections of a group are in a state.
#[derive(Clone, Copy, Debug)]
struct StateCount {
    state: TcpState,
    count: usize,
}

impl<'a> GroupRow<'a> {
    /// Creates the row of a group; `cgroup` is that of its oldest connection.
    pub fn new(group: &'a StuckGroup, cgroup: Option<&'a Cgroup>) -> Self {
        Self { group, cgroup }
    }

    fn process(&self) -> Option<Process> {
        self.group.members.first().and_then(|oldest| oldest.process)
    }

    fn states(&self) -> Vec<StateCount> {
        self.group.states().into_iter().map(|(state, count)| StateCount { state, count }).collect()
    }
}

fields! { StateCount, |state| {
    /// The state
    state: &'static str = state.state.name();
    /// Connections in the state
    count: usize ["connections"] = state.count;
}}

fields! { GroupRow<'_>, |row| {
    /// `stuck_group`
    type: &'static str = "stuck_group";
    /// The key that its connections share, for people
    group: String = escape(row.group.key.as_bytes());
    /// Connections in the group
    count: usize ["connections"] = row.group.members.len();
    /// `age_us` of the oldest connection
    oldest_us: f64 ["us"] = microseconds(row.group.oldest_age());
    /// `{state, count}` for each state, the most frequent first
    states: Vec<StateCount> = row.states();
    /// Process id of the oldest connection's owner
    pid: Option<u32> = row.process().map(|process| process.pid);
    /// Name of that process
    process: Option<ProcessName> = row.process().map(ProcessName);
    /// Id of the oldest connection's container
    container_id: Option<&str> = row
        .cgroup
        .and_then(|cgroup| cgroup.owner.container.as_ref())
        .map(|container| container.id.as_str());
    /// Name of the oldest connection's container
    container_name: Option<&str> = row.cgroup.and_then(Cgroup::container_name);
    /// Namespace of the oldest connection's Kubernetes pod
    k8s_namespace: Option<&str> = row.cgroup.and_then(Cgroup::pod).map(PodNames::namespace);
    /// Name of the oldest connection's Kubernetes pod
    k8s_pod: Option<&str> = row.cgroup.and_then(Cgroup::pod).map(PodNames::pod);
    /// Name of the oldest connection's Kubernetes workload, derived from the name of the pod
    k8s_workload: Option<&str> = row.cgroup.and_then(Cgroup::pod).map(PodNames::workload);
}}

impl Row for GroupRow<'_> {
    fn header(line: &mut String, style: TableStyle) -> fmt::Result {
        StuckRow::header(line, style)
    }

    fn line(&self, line: &mut String, style: TableStyle) -> fmt::Result {
        let states: Vec<String> = self
            .states()
            .iter()
            .map(|state| format!("{} {}", state.count, state.state.kernel_name()))
            .collect();
        write!(
            line,
            "{:>6} {}, oldest {}: {}",
            self.group.members.len(),
            style.palette.painted(escape(self.group.key.as_bytes()), Mark::Title),
            duration(Some(self.group.oldest_age())),
            states.join(", ")
        )
    }
}
