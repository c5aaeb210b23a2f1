//! Decides which transitions and connections are shown. The lifecycle core sees all of them.

use std::net::Ipv4Addr;

use ipnet::IpNet;
use tracer_core::{
    analysis::{HandshakeAttempt, HandshakeOutcome, ListenerReport, ListenerSnapshot},
    event::{Endpoint, Nanos, Netns, Process, TcpState, ThreadName, Timestamp, TimewaitEnd, Transition},
    lifecycle::{ClosedConnection, Connection, EndedTimewait, Observation, Role, StuckConnection},
};

use crate::{
    host::{Cgroup, CgroupSubtree, PodNames},
    report::{
        filter::{connection_cgroups::ConnectionCgroups, parse::PortSet},
        text::endpoint::bound,
    },
};

/// The criteria that a connection or transition must match to be shown. Unset and empty criteria match everything.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Local ports.
    pub local_ports: Option<PortSet>,
    /// Remote ports.
    pub remote_ports: Option<PortSet>,
    /// Networks of the local address.
    pub local: Vec<IpNet>,
    /// Networks of the remote address.
    pub remote: Vec<IpNet>,
    /// Process ids of the owner.
    pub pids: Vec<u32>,
    /// Names of the owner's process or thread.
    pub comms: Vec<String>,
    /// The cgroup of the socket, or an ancestor of it.
    pub cgroup: Option<CgroupSubtree>,
    /// Names of the socket's Kubernetes pod.
    pub pods: Vec<String>,
    /// Names of the socket's Kubernetes namespace.
    pub k8s_namespaces: Vec<String>,
    /// The network namespace.
    pub netns: Option<Netns>,
    /// The role.
    pub role: Option<Role>,
    /// Transition: the state left or entered. Connection: a state that it was in.
    pub states: Vec<TcpState>,
    /// Only connections that failed.
    pub failed: bool,
    /// Transition: the minimum time in the state left. Connection: its minimum duration, of an open one so far. An unknown
    /// duration does not match.
    pub min_duration: Option<Nanos>,
    /// IPv4 (true) or IPv6 (false). A v4-mapped peer is IPv4.
    pub ipv4: Option<bool>,
}

impl Filter {
    /// Returns whether the filter depends on the cgroup of a socket, or on the names of its pod.
    pub fn needs_cgroup(&self) -> bool {
        self.cgroup.is_some() || !self.pods.is_empty() || !self.k8s_namespaces.is_empty()
    }

    /// Returns whether a socket in this cgroup matches. An unknown cgroup or pod does not match.
    pub fn shows_cgroup(&self, cgroup: Option<&Cgroup>) -> bool {
        let pod = cgroup.and_then(Cgroup::pod);
        let is_named = |names: &[String], name: Option<&str>| {
            names.is_empty() || name.is_some_and(|name| names.iter().any(|wanted| wanted == name))
        };
        self.cgroup.as_ref().is_none_or(|subtree| cgroup.is_some_and(|cgroup| subtree.contains(&cgroup.path)))
            && is_named(&self.pods, pod.map(PodNames::pod))
            && is_named(&self.k8s_namespaces, pod.map(PodNames::namespace))
    }

    /// Returns whether the cgroup of an observation matches. Timewait sockets and half-open handshakes have no cgroup.
    pub fn shows_cgroup_of(&self, observation: &Observation<'_>, cgroups: &mut ConnectionCgroups) -> bool {
        if !self.needs_cgroup() {
            return true;
        }
        let cgroup = match observation {
            Observation::Transition { transition, connection, .. } => {
                cgroups.of_transition(transition, *connection)
            }
            Observation::Closed(closed) => cgroups.of_closed(closed),
            Observation::Evicted { connection } => cgroups.of_connection(connection, connection.first_seen),
            Observation::Accepted { connection, .. } => {
                cgroups.of_connection(connection, connection.first_seen)
            }
            Observation::Abandoned { .. }
            | Observation::TimewaitEnd { .. }
            | Observation::Refused(_)
            | Observation::SegmentDropped(_) => None,
        };
        self.shows_cgroup(cgroup.as_deref())
    }

    /// Returns whether the cgroup of an ended handshake matches.
    pub fn shows_cgroup_of_attempt(
        &self,
        attempt: &HandshakeAttempt,
        cgroups: &mut ConnectionCgroups,
    ) -> bool {
        !self.needs_cgroup() || self.shows_cgroup(cgroups.of_attempt(attempt).as_deref())
    }

    /// Returns whether the cgroup of an open connection matches.
    pub fn shows_cgroup_of_live(
        &self,
        connection: &Connection,
        cgroups: &mut ConnectionCgroups,
        now: Timestamp,
    ) -> bool {
        !self.needs_cgroup() || self.shows_cgroup(cgroups.of_connection(connection, now).as_deref())
    }

    /// Returns whether the cgroup of a listener matches.
    pub fn shows_cgroup_of_listener(
        &self,
        listener: &ListenerReport,
        cgroups: &mut ConnectionCgroups,
        now: Timestamp,
    ) -> bool {
        !self.needs_cgroup() || self.shows_cgroup(cgroups.of_listener(listener, now).as_deref())
    }

    /// Returns whether the filter needs both ports, which the first transition of a connection may lack.
    pub(super) fn needs_ports(&self) -> bool {
        self.local_ports.is_some() || self.remote_ports.is_some() || !self.remote.is_empty()
    }

    /// Returns whether a transition matches, apart from its cgroup.
    fn shows_transition(
        &self,
        transition: &Transition,
        connection: Option<&Connection>,
        duration: Option<Nanos>,
    ) -> bool {
        let role = connection.map_or(Role::Unknown, |connection| connection.role);
        let owner = connection.map(|connection| (connection.owner.process, connection.owner.thread));
        let (owner, thread) =
            owner.filter(|(process, _)| process.is_some()).unwrap_or((transition.process, transition.thread));
        // The event may lack a port that its connection has, such as the local port at SYN_SENT.
        let local = bound(transition.local, connection.map(|connection| connection.local));
        let remote = bound(transition.remote, connection.map(|connection| connection.remote));
        self.shows_endpoints(local, remote)
            && self.shows_owner(owner.as_ref(), thread.as_ref())
            && self.netns.is_none_or(|netns| transition.netns == Some(netns))
            && self.role.is_none_or(|wanted| role == wanted)
            && (self.states.is_empty()
                || self.states.iter().any(|&state| state == transition.from || state == transition.to))
            && self.shows_duration(duration)
    }

    /// Returns whether a closed connection matches, apart from its cgroup.
    pub fn shows_connection(&self, closed: &ClosedConnection<'_>) -> bool {
        let connection = closed.connection;
        self.shows_endpoints(connection.local, connection.remote)
            && self.shows_owner(connection.owner.process.as_ref(), connection.owner.thread.as_ref())
            && self.netns.is_none_or(|netns| connection.netns == Some(netns))
            && self.role.is_none_or(|wanted| connection.role == wanted)
            && (self.states.is_empty() || closed.states().any(|span| self.states.contains(&span.state)))
            && (!self.failed || closed.close_cause.reason.is_failure())
            && self.shows_duration(closed.duration())
    }

    /// Returns whether no criterion is set.
    pub fn shows_all(&self) -> bool {
        let Self {
            local_ports,
            remote_ports,
            local,
            remote,
            pids,
            comms,
            cgroup,
            pods,
            k8s_namespaces,
            netns,
            role,
            states,
            failed,
            min_duration,
            ipv4,
        } = self;
        local_ports.is_none()
            && remote_ports.is_none()
            && local.is_empty()
            && remote.is_empty()
            && pids.is_empty()
            && comms.is_empty()
            && cgroup.is_none()
            && pods.is_empty()
            && k8s_namespaces.is_empty()
            && netns.is_none()
            && role.is_none()
            && states.is_empty()
            && !failed
            && min_duration.is_none()
            && ipv4.is_none()
    }

    /// Returns whether an observation matches, apart from its cgroup.
    pub fn shows_observation(&self, observation: &Observation<'_>) -> bool {
        match observation {
            Observation::Transition { transition, duration, connection, .. } => {
                self.shows_transition(transition, *connection, *duration)
            }
            Observation::Closed(closed) => self.shows_connection(closed),
            Observation::TimewaitEnd { event, end } => self.shows_timewait_end(event, end),
            Observation::Refused(reset) => {
                self.shows_endpoints(reset.local, reset.remote)
                    && self.shows_owner(None, None)
                    && self.netns.is_none_or(|netns| reset.netns == Some(netns))
            }
            // Neither end is known to be this host.
            Observation::SegmentDropped(dropped) => {
                let (source, destination) = (dropped.source, dropped.destination);
                (self.shows_endpoints(source, destination) || self.shows_endpoints(destination, source))
                    && self.shows_owner(None, None)
                    && self.netns.is_none_or(|netns| dropped.netns == Some(netns))
            }
            Observation::Abandoned { half_open, .. } => {
                self.shows_endpoints(half_open.local, half_open.remote)
                    && self.shows_owner(None, None)
                    && self.netns.is_none_or(|netns| half_open.netns == Some(netns))
            }
            Observation::Evicted { connection } | Observation::Accepted { connection, .. } => {
                self.shows_live(connection)
            }
        }
    }

    /// Returns whether an open connection matches, apart from its cgroup and age.
    pub fn shows_live(&self, connection: &Connection) -> bool {
        self.shows_endpoints(connection.local, connection.remote)
            && self.shows_owner(connection.owner.process.as_ref(), connection.owner.thread.as_ref())
            && self.netns.is_none_or(|netns| connection.netns == Some(netns))
            && self.role.is_none_or(|wanted| connection.role == wanted)
            && (self.states.is_empty() || self.states.contains(&connection.state()))
    }

    /// Returns whether an ended handshake matches, apart from its cgroup.
    ///
    /// Its states are SYN_SENT or SYN_RECV, and ESTABLISHED if it completed.
    pub fn shows_attempt(&self, attempt: &HandshakeAttempt) -> bool {
        let handshake_state = match attempt.role {
            Role::Server => TcpState::SynReceived,
            Role::Client | Role::Simultaneous | Role::Unknown => TcpState::SynSent,
        };
        let established = attempt.outcome == HandshakeOutcome::Established;
        let failed = match attempt.outcome {
            HandshakeOutcome::Established => false,
            HandshakeOutcome::Failed(reason) => reason.is_failure(),
            HandshakeOutcome::Abandoned => true,
        };
        self.shows_endpoints(attempt.local, attempt.remote)
            && self.shows_owner(attempt.process.as_ref(), attempt.thread.as_ref())
            && self.netns.is_none_or(|netns| attempt.netns == Some(netns))
            && self.role.is_none_or(|wanted| attempt.role == wanted)
            && (self.states.is_empty()
                || self.states.iter().any(|&state| {
                    state == handshake_state || (established && state == TcpState::Established)
                }))
            && (!self.failed || failed)
            && self.shows_duration(attempt.duration)
    }

    /// Returns whether the end of a timewait socket matches. It has neither process, role nor cgroup.
    fn shows_timewait_end(&self, event: &TimewaitEnd, end: &EndedTimewait) -> bool {
        self.shows_endpoints(event.local, event.remote)
            && self.shows_owner(None, None)
            && self.role.is_none()
            && !self.needs_cgroup()
            && self.netns.is_none_or(|netns| event.netns == Some(netns))
            && (self.states.is_empty()
                || self.states.iter().any(|&state| state == end.state || state == TcpState::Closed))
            && self.shows_duration(Some(end.duration))
    }

    /// Returns whether a stuck connection matches, apart from its cgroup.
    pub fn shows_stuck(&self, stuck: &StuckConnection) -> bool {
        self.shows_endpoints(stuck.local, stuck.remote)
            && self.shows_owner(stuck.process.as_ref(), None)
            && self.netns.is_none_or(|netns| stuck.netns == Some(netns))
            && (self.states.is_empty() || self.states.contains(&stuck.state))
            && self.shows_duration(Some(stuck.age.lower_bound()))
    }

    /// Returns whether a listener matches, apart from its cgroup. It has neither a peer, a role nor a duration.
    pub fn shows_listener(&self, listener: &ListenerReport) -> bool {
        let ListenerSnapshot { local, netns, .. } = listener.socket;
        let nobody = Endpoint { address: Ipv4Addr::UNSPECIFIED.into(), port: 0 };
        self.shows_endpoints(local, nobody)
            && self.shows_owner(listener.process.as_ref(), None)
            && self.netns.is_none_or(|wanted| netns == Some(wanted))
    }

    fn shows_endpoints(&self, local: Endpoint, remote: Endpoint) -> bool {
        self.local_ports.as_ref().is_none_or(|ports| ports.contains(local.port))
            && self.remote_ports.as_ref().is_none_or(|ports| ports.contains(remote.port))
            && (self.local.is_empty() || self.local.iter().any(|network| network.contains(&local.address)))
            && (self.remote.is_empty() || self.remote.iter().any(|network| network.contains(&remote.address)))
            && self.ipv4.is_none_or(|ipv4| local.address.is_ipv4() == ipv4)
    }

    fn shows_owner(&self, owner: Option<&Process>, thread: Option<&ThreadName>) -> bool {
        let names = [owner.map(Process::name), thread.map(ThreadName::name)];
        (self.pids.is_empty() || owner.is_some_and(|owner| self.pids.contains(&owner.pid)))
            && (self.comms.is_empty()
                || names.into_iter().flatten().any(|name| self.comms.iter().any(|comm| is_comm(name, comm))))
    }

    /// Returns whether a duration is long enough. An unknown one is not.
    pub fn shows_duration(&self, duration: Option<Nanos>) -> bool {
        self.min_duration.is_none_or(|least| duration.is_some_and(|duration| duration >= least))
    }
}

/// Compares process names by their first 15 bytes; the kernel truncates longer names.
fn is_comm(name: &[u8], wanted: &str) -> bool {
    let wanted = wanted.as_bytes();
    name == &wanted[..wanted.len().min(15)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_compared_by_their_first_15_bytes() {
        assert!(is_comm(b"a-very-long-nam", "a-very-long-name-indeed"));
        assert!(is_comm(b"curl", "curl"));
        assert!(!is_comm(b"curl", "curly"));
    }
}
