//! Which transitions and connections are shown. A filter never hides anything from the lifecycle core.

mod first_transitions;

pub use first_transitions::{FirstTransitions, Turn};

use std::net::IpAddr;

use ipnet::IpNet;
use tracer_core::{
    analysis::{HandshakeAttempt, HandshakeOutcome},
    event::{Endpoint, Process, TcpState, Timestamp, TimewaitEnd, Transition},
    lifecycle::{ClosedConnection, Connection, EndedTimewait, Observation, Role, StuckConnection},
};

use crate::{
    host::{Cgroup, CgroupSubtree},
    report::ConnectionCgroups,
};

/// A set of ports, as `80,443,8000-8099`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSet(Vec<std::ops::RangeInclusive<u16>>);

impl PortSet {
    /// Whether it holds a port.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }
}

impl std::str::FromStr for PortSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = |text: &str| {
            text.trim().parse::<u16>().ok().filter(|&port| port != 0).ok_or_else(|| {
                format!("`{}` is not a port: use 1 to 65535, as in 80,443,8000-8099", text.trim())
            })
        };
        text.split(',')
            .map(|part| match part.split_once('-') {
                None => port(part).map(|port| port..=port),
                Some((first, last)) => {
                    let (first, last) = (port(first)?, port(last)?);
                    if first > last {
                        return Err(format!("the range {first}-{last} is empty: write {last}-{first}"));
                    }
                    Ok(first..=last)
                }
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// Parses an address or a network in CIDR notation.
///
/// # Errors
///
/// A sentence that names the text and the two forms.
pub fn parse_network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
        format!("`{text}` is neither an address nor a network: use 192.0.2.1, 10.0.0.0/8 or 2001:db8::/32")
    })
}

/// Parses a state by either of its names.
///
/// # Errors
///
/// A sentence that lists the states.
pub fn parse_state(text: &str) -> Result<TcpState, String> {
    TcpState::parse(text).ok_or_else(|| {
        let names: Vec<_> = TcpState::ALL.iter().map(|state| state.name()).collect();
        format!("`{text}` is not a TCP state: use one of {}", names.join(", "))
    })
}

/// What is shown. Every part that is set must match; an empty list is not set.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The local port.
    pub local_ports: Option<PortSet>,
    /// The remote port.
    pub remote_ports: Option<PortSet>,
    /// Networks, one of which must hold the local address.
    pub local: Vec<IpNet>,
    /// Networks, one of which must hold the remote address.
    pub remote: Vec<IpNet>,
    /// Process ids, one of which must be the owner's.
    pub pids: Vec<u32>,
    /// Process names, one of which must be the owner's.
    pub comms: Vec<String>,
    /// A cgroup that must hold the socket, itself or below it.
    pub cgroup: Option<CgroupSubtree>,
    /// Inode of the network namespace.
    pub netns: Option<u32>,
    /// The role.
    pub role: Option<Role>,
    /// For a transition, the state left or entered; for a connection, one it has been in.
    pub states: Vec<TcpState>,
    /// Only connections that failed.
    pub failed: bool,
    /// For a transition, the least time in the state left; for a connection, its least duration. What has
    /// no known duration does not match.
    pub min_duration_ns: Option<u64>,
    /// Only IPv4 (true) or only IPv6 (false); a v4-mapped peer is IPv4.
    pub ipv4: Option<bool>,
}

impl Filter {
    /// Whether a socket in this cgroup, by its path, is shown; one whose cgroup is unknown is not, when
    /// one is asked for.
    pub fn shows_cgroup(&self, cgroup: Option<&Cgroup>) -> bool {
        self.cgroup.as_ref().is_none_or(|subtree| cgroup.is_some_and(|cgroup| subtree.contains(&cgroup.path)))
    }

    /// Whether what the core reports is in the cgroup that is asked for, if one is. What has no cgroup any more, as
    /// what the kernel keeps of closed connections, is in none.
    pub fn shows_cgroup_of(&self, observation: &Observation<'_>, cgroups: &mut ConnectionCgroups) -> bool {
        if self.cgroup.is_none() {
            return true;
        }
        let cgroup = match observation {
            Observation::Transition { transition, connection, .. } => {
                cgroups.of_transition(transition, *connection)
            }
            Observation::Closed(closed) => cgroups.of_closed(closed),
            Observation::Evicted { connection } => cgroups.of_connection(connection, connection.first_seen),
            Observation::Abandoned(_) | Observation::TimewaitEnd { .. } => None,
        };
        self.shows_cgroup(cgroup.as_deref())
    }

    /// Whether an opening that is over is in the cgroup that is asked for, if one is.
    pub fn shows_cgroup_of_attempt(
        &self,
        opening: &HandshakeAttempt,
        cgroups: &mut ConnectionCgroups,
    ) -> bool {
        self.cgroup.is_none() || self.shows_cgroup(cgroups.of_attempt(opening).as_deref())
    }

    /// Whether a connection that lives now is in the cgroup that is asked for, if one is.
    pub fn shows_cgroup_of_live(
        &self,
        connection: &Connection,
        cgroups: &mut ConnectionCgroups,
        now: Timestamp,
    ) -> bool {
        self.cgroup.is_none() || self.shows_cgroup(cgroups.of_connection(connection, now).as_deref())
    }

    /// Whether it can be decided only when both ports are known.
    pub fn asks_for_ports(&self) -> bool {
        self.local_ports.is_some() || self.remote_ports.is_some() || !self.remote.is_empty()
    }

    /// Whether a transition is shown.
    pub fn shows_transition(
        &self,
        transition: &Transition,
        connection: Option<&Connection>,
        duration_ns: Option<u64>,
    ) -> bool {
        let role = connection.map_or(Role::Unknown, |connection| connection.role);
        let owner = connection.and_then(|connection| connection.owner.process).or(transition.process);
        // What the event lacks, such as the local port of a SYN_SENT, an earlier one may have told.
        let local = known(transition.local, connection.map(|connection| connection.local));
        let remote = known(transition.remote, connection.map(|connection| connection.remote));
        self.shows_endpoints(local, remote)
            && self.shows_owner(owner.as_ref())
            && self.netns.is_none_or(|netns| transition.netns == Some(netns))
            && self.role.is_none_or(|wanted| role == wanted)
            && (self.states.is_empty()
                || self.states.iter().any(|&state| state == transition.from || state == transition.to))
            && self.shows_duration(duration_ns)
    }

    /// Whether a connection that ended is shown.
    pub fn shows_connection(&self, closed: &ClosedConnection<'_>) -> bool {
        let connection = closed.connection;
        self.shows_endpoints(connection.local, connection.remote)
            && self.shows_owner(connection.owner.process.as_ref())
            && self.netns.is_none_or(|netns| connection.netns == Some(netns))
            && self.role.is_none_or(|wanted| connection.role == wanted)
            && (self.states.is_empty() || closed.states().any(|span| self.states.contains(&span.state)))
            && (!self.failed || closed.close_cause.reason.is_failure())
            && self.shows_duration(closed.duration_ns())
    }

    /// Whether it lets everything pass.
    pub fn shows_all(&self) -> bool {
        let Self {
            local_ports,
            remote_ports,
            local,
            remote,
            pids,
            comms,
            cgroup,
            netns,
            role,
            states,
            failed,
            min_duration_ns,
            ipv4,
        } = self;
        local_ports.is_none()
            && remote_ports.is_none()
            && local.is_empty()
            && remote.is_empty()
            && pids.is_empty()
            && comms.is_empty()
            && cgroup.is_none()
            && netns.is_none()
            && role.is_none()
            && states.is_empty()
            && !failed
            && min_duration_ns.is_none()
            && ipv4.is_none()
    }

    /// Whether what the core reports is shown, as far as it is about one connection. Its cgroup is not looked at.
    pub fn shows_observation(&self, observation: &Observation<'_>) -> bool {
        match observation {
            Observation::Transition { transition, duration_ns, connection } => {
                self.shows_transition(transition, *connection, *duration_ns)
            }
            Observation::Closed(closed) => self.shows_connection(closed),
            Observation::TimewaitEnd { event, end } => self.shows_timewait_end(event, end),
            Observation::Abandoned(half_open) => {
                self.shows_endpoints(half_open.local, half_open.remote)
                    && self.shows_owner(None)
                    && self.netns.is_none_or(|netns| half_open.netns == Some(netns))
            }
            Observation::Evicted { connection } => self.shows_live(connection),
        }
    }

    /// Whether a connection that lives is shown. Neither its cgroup nor its age is looked at.
    pub fn shows_live(&self, connection: &Connection) -> bool {
        self.shows_endpoints(connection.local, connection.remote)
            && self.shows_owner(connection.owner.process.as_ref())
            && self.netns.is_none_or(|netns| connection.netns == Some(netns))
            && self.role.is_none_or(|wanted| connection.role == wanted)
            && (self.states.is_empty() || self.states.contains(&connection.state()))
    }

    /// Whether an opening that is over is shown. It has been in the state that waits for the answer, and, when it
    /// was completed, is in ESTABLISHED.
    pub fn shows_attempt(&self, opening: &HandshakeAttempt) -> bool {
        let waiting = match opening.role {
            Role::Server => TcpState::SynReceived,
            Role::Client | Role::Simultaneous | Role::Unknown => TcpState::SynSent,
        };
        let established = opening.outcome == HandshakeOutcome::Established;
        let failed = match opening.outcome {
            HandshakeOutcome::Established => false,
            HandshakeOutcome::Failed(reason) => reason.is_failure(),
            HandshakeOutcome::Abandoned => true,
        };
        self.shows_endpoints(opening.local, opening.remote)
            && self.shows_owner(opening.process.as_ref())
            && self.netns.is_none_or(|netns| opening.netns == Some(netns))
            && self.role.is_none_or(|wanted| opening.role == wanted)
            && (self.states.is_empty()
                || self
                    .states
                    .iter()
                    .any(|&state| state == waiting || (established && state == TcpState::Established)))
            && (!self.failed || failed)
            && self.shows_duration(opening.duration_ns)
    }

    /// Whether the end of a mini-socket is shown. It has no process any more.
    pub fn shows_timewait_end(&self, event: &TimewaitEnd, end: &EndedTimewait) -> bool {
        self.shows_endpoints(event.local, event.remote)
            && self.shows_owner(None)
            && self.role.is_none()
            && self.cgroup.is_none()
            && self.netns.is_none_or(|netns| event.netns == Some(netns))
            && (self.states.is_empty()
                || self.states.iter().any(|&state| state == end.state || state == TcpState::Closed))
            && self.shows_duration(Some(end.duration_ns))
    }

    /// Whether a connection that stands still is shown.
    pub fn shows_stuck(&self, stuck: &StuckConnection) -> bool {
        self.shows_endpoints(stuck.local, stuck.remote)
            && self.shows_owner(stuck.process.as_ref())
            && self.netns.is_none_or(|netns| stuck.netns == Some(netns))
            && (self.states.is_empty() || self.states.contains(&stuck.state))
            && self.shows_duration(Some(stuck.age.nanoseconds()))
    }

    fn shows_endpoints(&self, local: Endpoint, remote: Endpoint) -> bool {
        self.local_ports.as_ref().is_none_or(|ports| ports.contains(local.port))
            && self.remote_ports.as_ref().is_none_or(|ports| ports.contains(remote.port))
            && (self.local.is_empty() || self.local.iter().any(|network| network.contains(&local.address)))
            && (self.remote.is_empty() || self.remote.iter().any(|network| network.contains(&remote.address)))
            && self.ipv4.is_none_or(|ipv4| local.address.is_ipv4() == ipv4)
    }

    fn shows_owner(&self, owner: Option<&Process>) -> bool {
        (self.pids.is_empty() || owner.is_some_and(|owner| self.pids.contains(&owner.pid)))
            && (self.comms.is_empty()
                || owner.is_some_and(|owner| self.comms.iter().any(|comm| is_comm(owner.name(), comm))))
    }

    fn shows_duration(&self, duration_ns: Option<u64>) -> bool {
        self.min_duration_ns.is_none_or(|least| duration_ns.is_some_and(|duration| duration >= least))
    }
}

fn known(now: Endpoint, before: Option<Endpoint>) -> Endpoint {
    if now.port == 0 { before.unwrap_or(now) } else { now }
}

/// The kernel keeps the first 15 bytes of a name, so a longer one is compared by those.
fn is_comm(name: &[u8], wanted: &str) -> bool {
    let wanted = wanted.as_bytes();
    name == &wanted[..wanted.len().min(15)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ports_and_ranges() {
        let ports: PortSet = "80, 443,8000-8099".parse().unwrap();
        for inside in [80, 443, 8000, 8050, 8099] {
            assert!(ports.contains(inside), "{inside}");
        }
        for outside in [0, 79, 81, 7999, 8100] {
            assert!(!ports.contains(outside), "{outside}");
        }
    }

    #[test]
    fn wrong_ports_are_named() {
        for (text, part) in
            [("70000", "`70000`"), ("0", "`0`"), ("http", "`http`"), ("", "``"), ("90-80", "80-90")]
        {
            let error = text.parse::<PortSet>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn networks_and_addresses() {
        assert_eq!(parse_network("10.0.0.0/8").unwrap().prefix_len(), 8);
        assert_eq!(parse_network("192.0.2.1").unwrap().prefix_len(), 32);
        assert_eq!(parse_network("::1").unwrap().prefix_len(), 128);
        assert!(parse_network("10.0.0/8").unwrap_err().contains("`10.0.0/8`"));
        assert!(parse_state("open").unwrap_err().contains("syn_sent"));
    }

    #[test]
    fn long_names_are_compared_as_the_kernel_keeps_them() {
        assert!(is_comm(b"a-very-long-nam", "a-very-long-name-indeed"));
        assert!(is_comm(b"curl", "curl"));
        assert!(!is_comm(b"curl", "curly"));
    }

    proptest! {
        #[test]
        fn any_text_is_ports_or_an_error(text in ".{0,40}") {
            let _ = text.parse::<PortSet>();
            let _ = parse_network(&text);
            let _ = parse_state(&text);
        }
    }
}
