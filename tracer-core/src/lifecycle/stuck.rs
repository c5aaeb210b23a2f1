//! Connections that have stayed too long in a transient state.

use crate::event::{CgroupId, ConnKey, Endpoint, Nanos, Netns, Process, TcpState, Timestamp};
use crate::lifecycle::Connection;

/// The longest time a connection may stay in each state. A state without a threshold never counts as stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds([Option<Nanos>; 12]);

impl Default for Thresholds {
    /// Sets 3 s for states of the handshake, 10 s for states that wait for an ACK, and 60 s for states that wait
    /// for an application to close.
    fn default() -> Self {
        let mut thresholds = Self([None; 12]);
        for (state, seconds) in [
            (TcpState::SynSent, 3),
            (TcpState::SynReceived, 3),
            (TcpState::FinWait1, 10),
            (TcpState::FinWait2, 60),
            (TcpState::CloseWait, 60),
            (TcpState::Closing, 10),
            (TcpState::LastAck, 10),
        ] {
            thresholds.set(state, Nanos::from_secs(seconds));
        }
        thresholds
    }
}

impl Thresholds {
    /// Returns the threshold of a state.
    pub fn of(&self, state: TcpState) -> Option<Nanos> {
        self.0[state as usize]
    }

    /// Returns whether a connection of this age is stuck in `state`.
    pub fn is_exceeded(&self, state: TcpState, age: Age) -> bool {
        self.of(state).is_some_and(|limit| age.lower_bound() >= limit)
    }

    /// Sets the threshold of a state.
    pub fn set(&mut self, state: TcpState, limit: Nanos) {
        self.0[state as usize] = Some(limit);
    }
}

/// The time a connection has spent in its current state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// The exact age: the transition into the state was seen.
    Observed(Nanos),
    /// A lower bound.
    AtLeast(Nanos),
}

impl Age {
    /// Returns the time that a live connection has spent in its state.
    ///
    /// A connection that existed before tracing began has been in its state at least since it was first seen. After a
    /// gap the bound is 0, because the time of the missed transition is unknown.
    pub fn of(connection: &Connection, now: Timestamp) -> Self {
        match connection.history.since() {
            Some(since) => Self::Observed(now.since(since)),
            None if !connection.gap => Self::AtLeast(now.since(connection.first_seen)),
            None => Self::AtLeast(Nanos::ZERO),
        }
    }

    /// Returns the higher of this age and another lower bound. An exact age stays.
    #[must_use]
    pub fn or_at_least(self, bound: Option<Nanos>) -> Self {
        match self {
            Self::AtLeast(age) => Self::AtLeast(age.max(bound.unwrap_or_default())),
            Self::Observed(_) => self,
        }
    }

    /// Returns the age or its lower bound.
    pub const fn lower_bound(self) -> Nanos {
        match self {
            Self::Observed(age) | Self::AtLeast(age) => age,
        }
    }

    /// Returns the name of the certainty in machine output.
    pub const fn source(self) -> &'static str {
        match self {
            Self::Observed(_) => "observed",
            Self::AtLeast(_) => "at_least",
        }
    }
}

/// A connection and the time it has spent in its current state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StuckConnection {
    /// The current state.
    pub state: TcpState,
    /// The time spent in that state.
    pub age: Age,
    /// The local endpoint.
    pub local: Endpoint,
    /// The remote endpoint.
    pub remote: Endpoint,
    /// The network namespace.
    pub netns: Option<Netns>,
    /// The cgroup of the socket.
    pub cgroup_id: Option<CgroupId>,
    /// The owning process; for a half-open handshake and a connection that was not accepted, the listening process.
    pub process: Option<Process>,
    /// The index of the interface that the socket is bound to.
    pub interface: Option<u32>,
    /// Bytes received that the application has not read.
    pub unread_bytes: Option<u32>,
    /// Bytes written that the peer has not acknowledged.
    pub unacked_bytes: Option<u32>,
    /// For a timewait socket: the time until the kernel removes it.
    pub ends_in: Option<Nanos>,
    /// Whether it waits in its listener's accept queue; none if that is unknown.
    pub not_accepted: Option<bool>,
}

impl StuckConnection {
    /// Returns the connection key.
    pub const fn key(&self) -> ConnKey {
        ConnKey { netns: self.netns, local: self.local, remote: self.remote }
    }
}

/// The attribute that stuck connections are grouped by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupBy {
    /// The owning process.
    #[default]
    Process,
    /// The container of the socket.
    Container,
    /// The Kubernetes pod of the socket.
    Pod,
    /// The Kubernetes namespace of the socket.
    Namespace,
    /// The Kubernetes workload of the socket.
    Workload,
    /// The remote address.
    Remote,
    /// The local port.
    Port,
}

/// Stuck connections with the same group key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StuckGroup {
    /// The shared attribute, as text for people.
    pub key: String,
    /// The connections, oldest first.
    pub members: Vec<StuckConnection>,
}

impl StuckGroup {
    /// Returns the age of the oldest connection.
    pub fn oldest_age(&self) -> Nanos {
        self.members.first().map_or(Nanos::ZERO, |oldest| oldest.age.lower_bound())
    }

    /// Returns the number of connections in each state, the largest first.
    pub fn states(&self) -> Vec<(TcpState, usize)> {
        let mut counts: Vec<(TcpState, usize)> = TcpState::ALL
            .into_iter()
            .map(|state| (state, self.members.iter().filter(|member| member.state == state).count()))
            .filter(|(_, count)| *count > 0)
            .collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts
    }
}

/// Groups the connections that exceed their threshold. Larger groups come first, then older ones.
pub fn group_stuck(
    connections: impl IntoIterator<Item = StuckConnection>,
    thresholds: &Thresholds,
    key: impl Fn(&StuckConnection) -> String,
) -> Vec<StuckGroup> {
    let mut groups: Vec<StuckGroup> = Vec::new();
    let mut index = std::collections::HashMap::new();
    for connection in connections {
        if !thresholds.is_exceeded(connection.state, connection.age) {
            continue;
        }
        let key = key(&connection);
        let at = *index.entry(key.clone()).or_insert_with(|| {
            groups.push(StuckGroup { key, members: Vec::new() });
            groups.len() - 1
        });
        groups[at].members.push(connection);
    }
    for group in &mut groups {
        group
            .members
            .sort_by_key(|member| (std::cmp::Reverse(member.age.lower_bound()), member.local, member.remote));
    }
    groups.sort_by(|a, b| {
        (b.members.len(), b.oldest_age(), &a.key).cmp(&(a.members.len(), a.oldest_age(), &b.key))
    });
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(state: TcpState, age: Age, pid: u32) -> StuckConnection {
        let endpoint = |port| Endpoint { address: "10.0.0.1".parse().unwrap(), port };
        StuckConnection {
            state,
            age,
            local: endpoint(1),
            remote: endpoint(2),
            netns: None,
            cgroup_id: None,
            process: Some(Process { pid, uid: 0, comm: [0; 16] }),
            interface: None,
            unread_bytes: None,
            unacked_bytes: None,
            ends_in: None,
            not_accepted: None,
        }
    }

    fn by_pid(connection: &StuckConnection) -> String {
        connection.process.map_or_else(String::new, |process| process.pid.to_string())
    }

    #[test]
    fn the_largest_group_comes_first() {
        let leak = (1..=5)
            .map(|index| connection(TcpState::CloseWait, Age::AtLeast(Nanos::from_secs(60 + index)), 7));
        let others = [
            connection(TcpState::FinWait2, Age::Observed(Nanos::from_secs(900)), 8),
            connection(TcpState::Established, Age::Observed(Nanos::from_secs(9_000)), 9),
            connection(TcpState::CloseWait, Age::Observed(Nanos::from_secs(59)), 10),
        ];
        let groups = group_stuck(others.into_iter().chain(leak), &Thresholds::default(), by_pid);
        let keys: Vec<_> = groups.iter().map(|group| (group.key.as_str(), group.members.len())).collect();
        assert_eq!(keys, [("7", 5), ("8", 1)]);
        assert_eq!(groups[0].oldest_age(), Nanos::from_secs(65));
        assert_eq!(groups[0].states(), [(TcpState::CloseWait, 5)]);
    }

    #[test]
    fn any_state_can_have_a_threshold() {
        let mut thresholds = Thresholds::default();
        thresholds.set(TcpState::Established, Nanos::from_secs(10));
        let old = connection(TcpState::Established, Age::AtLeast(Nanos::from_secs(10)), 1);
        let young = connection(TcpState::Established, Age::AtLeast(Nanos::from_secs(9)), 1);
        let groups = group_stuck([old, young], &thresholds, by_pid);
        assert_eq!(groups[0].members, [old]);
    }
}
