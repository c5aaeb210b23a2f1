//! What the overview can be filtered by: a process, a remote address or a port; and bounded tables of them.

use std::{
    hash::{Hash, Hasher},
    net::IpAddr,
};

use hashbrown::{HashMap, hash_map::Entry};
use tracer_core::{
    analysis::{GroupKey, HandshakeAttempt},
    escape::escape,
    event::{Endpoint, Process},
    lifecycle::{Connection, Role},
};

/// Longest name of a process (`TASK_COMM_LEN` without the NUL).
const NAME_BYTES: usize = 15;

/// An attribute of a connection that the overview can be filtered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Facet {
    /// The name of its process, NUL-padded.
    Process([u8; 16]),
    /// Its remote address.
    Remote(IpAddr),
    /// The port of its service: the local port of a server, the remote port of a client.
    Port(u16),
}

/// One number for each facet, because every transition looks up three: the derived hash takes several steps.
impl Hash for Facet {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(match self {
            Self::Process(comm) => u128::from_ne_bytes(*comm),
            Self::Remote(IpAddr::V4(address)) => u128::from(address.to_bits()) << 32,
            Self::Remote(IpAddr::V6(address)) => address.to_bits(),
            Self::Port(port) => u128::from(*port),
        });
    }
}

/// A filter that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// The kind is unknown.
    #[error("`{0}` is no filter: use process, remote or port")]
    Kind(String),
    /// The value does not fit the kind.
    #[error("`{1}` is no value of the filter {0}: use a name of at most 15 bytes, an IP address, or a port")]
    Value(&'static str, String),
    /// There is more than one filter.
    #[error("give one filter: process, remote or port")]
    Several,
}

impl Facet {
    /// Parses the parameters of a query, which have at most one filter.
    ///
    /// # Errors
    ///
    /// When a parameter is unknown or has an invalid value, and when there are several.
    pub fn of_query(parameters: &[(String, String)]) -> Result<Option<Self>, FilterError> {
        match parameters {
            [] => Ok(None),
            [(kind, value)] => Self::parse(kind, value).map(Some),
            _ => Err(FilterError::Several),
        }
    }

    fn parse(kind: &str, value: &str) -> Result<Self, FilterError> {
        let invalid = |kind| FilterError::Value(kind, value.to_owned());
        match kind {
            "process" if (1..=NAME_BYTES).contains(&value.len()) => {
                let mut comm = [0; 16];
                comm[..value.len()].copy_from_slice(value.as_bytes());
                Ok(Self::Process(comm))
            }
            "process" => Err(invalid("process")),
            "remote" => value.parse().map(Self::Remote).map_err(|_| invalid("remote")),
            "port" => value.parse().map(Self::Port).map_err(|_| invalid("port")),
            other => Err(FilterError::Kind(other.to_owned())),
        }
    }

    /// Returns the name of the kind in the query.
    pub(super) const fn kind(self) -> &'static str {
        match self {
            Self::Process(_) => "process",
            Self::Remote(_) => "remote",
            Self::Port(_) => "port",
        }
    }

    /// Returns the value as text, escaped.
    pub(super) fn value(self) -> String {
        match self {
            Self::Process(comm) => process_name(&comm),
            Self::Remote(address) => address.to_string(),
            Self::Port(port) => port.to_string(),
        }
    }

    /// Returns the facets of a connection.
    pub(super) fn of(connection: &Connection) -> [Option<Self>; 3] {
        Self::of_parts(connection.role, connection.local, connection.remote, connection.owner.process)
    }

    /// Returns the facets of an open connection. One from before the start, of which only the ends are known, belongs to
    /// the service of its local port if a socket listens there.
    pub(super) fn of_open(connection: &Connection, listens: impl Fn(u16) -> bool) -> [Option<Self>; 3] {
        let is_served = connection.role == Role::Unknown && listens(connection.local.port);
        let role = if is_served { Role::Server } else { connection.role };
        Self::of_parts(role, connection.local, connection.remote, connection.owner.process)
    }

    /// Returns the facets of a handshake.
    pub(super) fn of_attempt(attempt: &HandshakeAttempt) -> [Option<Self>; 3] {
        Self::of_parts(attempt.role, attempt.local, attempt.remote, attempt.process)
    }

    fn of_parts(
        role: Role,
        local: Endpoint,
        remote: Endpoint,
        process: Option<Process>,
    ) -> [Option<Self>; 3] {
        let port = if role == Role::Server { local.port } else { remote.port };
        [
            process.map(|process| Self::Process(process.comm)),
            // A child socket may not have its peer's address yet.
            Some(Self::Remote(remote.address)).filter(|_| !remote.address.is_unspecified()),
            Some(Self::Port(port)).filter(|_| port != 0),
        ]
    }

    /// Returns whether a group of handshakes has the facet. Groups by service have ports only.
    pub(super) fn is_of_group(self, key: &GroupKey) -> bool {
        match (self, key) {
            (Self::Process(comm), GroupKey::Process(Some(name))) => comm == *name,
            (Self::Remote(address), GroupKey::Remote(remote)) => address == *remote,
            (
                Self::Port(port),
                GroupKey::Service(Endpoint { port: service, .. })
                | GroupKey::Served(service)
                | GroupKey::Unserved(service),
            ) => port == *service,
            _ => false,
        }
    }
}

/// Returns a process name without padding, escaped.
pub(super) fn process_name(comm: &[u8; 16]) -> String {
    escape(Process { pid: 0, uid: 0, comm: *comm }.name())
}

/// The most processes, remote addresses and ports of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct FacetLimits(pub(super) [usize; 3]);

/// Values by facet, bounded.
#[derive(Clone, Debug)]
pub(super) struct FacetTable<T> {
    limits: FacetLimits,
    used: [usize; 3],
    values: HashMap<Facet, T, foldhash::fast::RandomState>,
    /// Updates of further facets, which have no place.
    overflow: u64,
}

impl<T: Default> FacetTable<T> {
    pub(super) fn new(limits: FacetLimits) -> Self {
        Self { limits, used: [0; 3], values: HashMap::default(), overflow: 0 }
    }

    /// Returns the value of a facet; none, which is counted, if the table is full.
    pub(super) fn slot(&mut self, facet: Facet) -> Option<&mut T> {
        let kind = match facet {
            Facet::Process(_) => 0,
            Facet::Remote(_) => 1,
            Facet::Port(_) => 2,
        };
        match self.values.entry(facet) {
            Entry::Occupied(entry) => Some(entry.into_mut()),
            Entry::Vacant(_) if self.used[kind] >= self.limits.0[kind] => {
                self.overflow += 1;
                None
            }
            Entry::Vacant(entry) => {
                self.used[kind] += 1;
                Some(entry.insert(T::default()))
            }
        }
    }

    pub(super) fn get(&self, facet: Facet) -> Option<&T> {
        self.values.get(&facet)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Facet, &T)> {
        self.values.iter().map(|(facet, value)| (*facet, value))
    }

    pub(super) fn overflow(&self) -> u64 {
        self.overflow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(parameters: &[(&str, &str)]) -> Result<Option<Facet>, FilterError> {
        let parameters: Vec<_> =
            parameters.iter().map(|&(kind, value)| (kind.to_owned(), value.to_owned())).collect();
        Facet::of_query(&parameters)
    }

    #[test]
    fn a_query_has_at_most_one_filter() {
        assert_eq!(query(&[]), Ok(None));
        assert_eq!(query(&[("port", "443")]), Ok(Some(Facet::Port(443))));
        assert_eq!(query(&[("remote", "::1")]), Ok(Some(Facet::Remote("::1".parse().unwrap()))));
        assert_eq!(query(&[("process", "nginx")]).unwrap().unwrap().value(), "nginx");
        assert_eq!(query(&[("port", "1"), ("remote", "::1")]), Err(FilterError::Several));
        for (kind, value) in
            [("port", "65536"), ("remote", "localhost"), ("process", "a name with 16 b"), ("pid", "1")]
        {
            assert!(query(&[(kind, value)]).unwrap_err().to_string().contains(kind), "{kind}");
        }
    }

    #[test]
    fn a_full_table_counts_what_has_no_place() {
        let mut table = FacetTable::<u32>::new(FacetLimits([1, 1, 2]));
        for port in [1, 2, 3, 1] {
            if let Some(count) = table.slot(Facet::Port(port)) {
                *count += 1;
            }
        }
        assert!(
            table.slot(Facet::Remote("::1".parse().unwrap())).is_some(),
            "kinds have places of their own"
        );
        assert_eq!(
            (table.get(Facet::Port(1)), table.get(Facet::Port(3)), table.overflow()),
            (Some(&2), None, 1)
        );
    }
}
