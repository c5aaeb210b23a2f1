//! Connections that have stayed too long in a state that should pass.

use crate::event::{Endpoint, Process, TcpState};

const SECOND: u64 = 1_000_000_000;

/// How long a connection may stay in each state; a state without a limit is never too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds([Option<u64>; 12]);

impl Default for Thresholds {
    /// What passes in a round trip gets a few of them, what waits for an application gets a minute.
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
            thresholds.set(state, seconds * SECOND);
        }
        thresholds
    }
}

impl Thresholds {
    /// The limit for a state, nanoseconds.
    pub fn of(&self, state: TcpState) -> Option<u64> {
        self.0[state as usize]
    }

    /// Sets the limit for a state, nanoseconds.
    pub fn set(&mut self, state: TcpState, nanoseconds: u64) {
        self.0[state as usize] = Some(nanoseconds);
    }
}

/// How long a connection has been in its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// The transition into the state was seen: nanoseconds.
    Observed(u64),
    /// It has been in the state for at least so many nanoseconds.
    AtLeast(u64),
}

impl Age {
    /// The nanoseconds that are certain.
    pub const fn nanoseconds(self) -> u64 {
        match self {
            Self::Observed(age) | Self::AtLeast(age) => age,
        }
    }

    /// The name of the certainty in machine output.
    pub const fn source(self) -> &'static str {
        match self {
            Self::Observed(_) => "observed",
            Self::AtLeast(_) => "at_least",
        }
    }
}

/// A connection, with what can be said about its stuck_connections still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StuckConnection {
    /// Its state.
    pub state: TcpState,
    /// How long it has been in it.
    pub age: Age,
    /// The local end.
    pub local: Endpoint,
    /// The remote end.
    pub remote: Endpoint,
    /// Inode of its network namespace.
    pub netns: Option<u32>,
    /// Id of its cgroup.
    pub cgroup_id: Option<u64>,
    /// The process that holds it; for a half-open handshake the one that listens.
    pub process: Option<Process>,
    /// Bytes received that the application has not read.
    pub unread_bytes: Option<u32>,
    /// Bytes written that the peer has not acknowledged.
    pub unacked_bytes: Option<u32>,
    /// For TIME_WAIT and FIN_WAIT2 without an application: when the kernel lets go, nanoseconds from now.
    pub ends_in_ns: Option<u64>,
}

/// What connections are grouped by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupBy {
    /// The process that holds them
    #[default]
    Process,
    /// The container of their socket
    Container,
    /// The remote address
    Remote,
    /// The local port
    Port,
}

/// Connections that share an owner and stand still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StuckGroup {
    /// What they share, for people.
    pub key: String,
    /// The connections, oldest first.
    pub members: Vec<StuckConnection>,
}

impl StuckGroup {
    /// The age of the oldest, nanoseconds.
    pub fn oldest_ns(&self) -> u64 {
        self.members.first().map_or(0, |oldest| oldest.age.nanoseconds())
    }

    /// How many there are in each state, the most first.
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

/// Keeps what is beyond its threshold, in groups: the largest first, of equal ones the oldest.
pub fn group_stuck(
    stuck_connections: impl IntoIterator<Item = StuckConnection>,
    thresholds: &Thresholds,
    key: impl Fn(&StuckConnection) -> String,
) -> Vec<StuckGroup> {
    let mut groups: Vec<StuckGroup> = Vec::new();
    let mut index = std::collections::HashMap::new();
    for connection in stuck_connections {
        if thresholds.of(connection.state).is_none_or(|limit| connection.age.nanoseconds() < limit) {
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
            .sort_by_key(|member| (std::cmp::Reverse(member.age.nanoseconds()), member.local, member.remote));
    }
    groups.sort_by(|a, b| {
        (b.members.len(), b.oldest_ns(), &a.key).cmp(&(a.members.len(), a.oldest_ns(), &b.key))
    });
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stuck_connections(state: TcpState, age: Age, pid: u32) -> StuckConnection {
        let end = |port| Endpoint { address: "10.0.0.1".parse().unwrap(), port };
        StuckConnection {
            state,
            age,
            local: end(1),
            remote: end(2),
            netns: None,
            cgroup_id: None,
            process: Some(Process { pid, uid: 0, comm: [0; 16] }),
            unread_bytes: None,
            unacked_bytes: None,
            ends_in_ns: None,
        }
    }

    fn by_pid(stuck_connections: &StuckConnection) -> String {
        stuck_connections.process.map_or_else(String::new, |process| process.pid.to_string())
    }

    #[test]
    fn the_leaking_process_comes_first() {
        let leak = (1..=5)
            .map(|index| stuck_connections(TcpState::CloseWait, Age::AtLeast((60 + index) * SECOND), 7));
        let others = [
            stuck_connections(TcpState::FinWait2, Age::Observed(900 * SECOND), 8),
            stuck_connections(TcpState::Established, Age::Observed(9_000 * SECOND), 9),
            stuck_connections(TcpState::CloseWait, Age::Observed(59 * SECOND), 10),
        ];
        let groups = group_stuck(others.into_iter().chain(leak), &Thresholds::default(), by_pid);
        let keys: Vec<_> = groups.iter().map(|group| (group.key.as_str(), group.members.len())).collect();
        assert_eq!(keys, [("7", 5), ("8", 1)]);
        assert_eq!(groups[0].oldest_ns(), 65 * SECOND);
        assert_eq!(groups[0].states(), [(TcpState::CloseWait, 5)]);
    }

    #[test]
    fn a_threshold_can_be_set_for_any_state() {
        let mut thresholds = Thresholds::default();
        thresholds.set(TcpState::Established, 10 * SECOND);
        let old = stuck_connections(TcpState::Established, Age::AtLeast(10 * SECOND), 1);
        let young = stuck_connections(TcpState::Established, Age::AtLeast(9 * SECOND), 1);
        let groups = group_stuck([old, young], &thresholds, by_pid);
        assert_eq!(groups[0].members, [old]);
    }
}
