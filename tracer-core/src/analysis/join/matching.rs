//! Finds the two ends of each handshake.

use hashbrown::HashMap;

use crate::{
    analysis::{
        HandshakeOutcome,
        join::{ClockBounds, HandshakeEnd},
    },
    event::Endpoint,
    lifecycle::{CloseReason, Role},
};

/// How far apart two records of one reset may be, nanoseconds.
const SAME_RESET: i64 = 500_000_000;

/// What the two ends of a handshake were matched by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MatchedBy {
    /// Both initial sequence numbers.
    Sequences,
    /// The client's initial sequence number and a port: the client knows no other number, because it got no answer.
    ClientSequence,
    /// Both endpoints and the time: the server refused the SYN and has no number.
    Endpoints,
}

impl MatchedBy {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Sequences, Self::ClientSequence, Self::Endpoints];

    /// Returns the name in machine output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sequences => "sequence_numbers",
            Self::ClientSequence => "client_sequence_number",
            Self::Endpoints => "endpoints",
        }
    }
}

/// What became of an end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Place {
    /// It has no other end in the other recording.
    #[default]
    Unmatched,
    /// Several ends of the other recording fit.
    Ambiguous,
    /// It belongs to a pair. A server may have several half-open handshakes of one client, of which the first is in the pair.
    Matched,
}

/// The indices of two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) client: usize,
    pub(super) server: usize,
    pub(super) by: MatchedBy,
}

/// Matches the clients of one recording with the servers of another.
pub(super) struct Matching<'a> {
    clients: &'a [HandshakeEnd],
    servers: &'a [HandshakeEnd],
    /// The servers' ends by the client's and the server's number.
    by_number: Vec<((u32, u32), usize)>,
    pub(super) pairs: Vec<Pair>,
    pub(super) client_places: HashMap<usize, Place, foldhash::fast::FixedState>,
    pub(super) server_places: HashMap<usize, Place, foldhash::fast::FixedState>,
}

impl<'a> Matching<'a> {
    /// Matches by both numbers.
    pub(super) fn new(clients: &'a [HandshakeEnd], servers: &'a [HandshakeEnd]) -> Self {
        let mut by_number: Vec<_> = of_role(servers, Role::Server)
            .filter_map(|(index, end)| match end.numbers()? {
                (Some(client), Some(server)) => Some(((client, server), index)),
                _ => None,
            })
            .collect();
        by_number.sort_unstable();
        let mut matching = Self {
            clients,
            servers,
            by_number,
            pairs: Vec::new(),
            client_places: HashMap::default(),
            server_places: HashMap::default(),
        };
        for (index, end) in of_role(clients, Role::Client) {
            if let Some((Some(client), Some(server))) = end.numbers() {
                let fitting = matching.servers_between((client, server), (client, server));
                matching.choose(index, fitting, MatchedBy::Sequences);
            }
        }
        matching
    }

    /// Matches by the client's number the clients that got no answer, and by endpoints those that were refused.
    /// `server_ahead` bounds the clocks at a time of the client.
    pub(super) fn match_failures(&mut self, server_ahead: impl Fn(&HandshakeEnd) -> Option<ClockBounds>) {
        for (index, end) in of_role(self.clients, Role::Client) {
            if let Some((Some(client), None)) = end.numbers() {
                let fitting = self.servers_between((client, 0), (client, u32::MAX));
                let fitting = fitting.into_iter().filter(|&server| {
                    let server = &self.servers[server];
                    server.outcome == HandshakeOutcome::Abandoned
                        && (server.local.port == end.remote.port || server.remote.port == end.local.port)
                });
                self.choose(index, fitting.collect(), MatchedBy::ClientSequence);
            }
        }
        let mut refusals: HashMap<(Endpoint, Endpoint), Vec<usize>, foldhash::fast::FixedState> =
            HashMap::default();
        for (index, end) in of_role(self.servers, Role::Server).filter(|(_, end)| end.unserved) {
            refusals.entry((end.remote, end.local)).or_default().push(index);
        }
        let refused = HandshakeOutcome::Failed(CloseReason::Refused);
        for (index, end) in of_role(self.clients, Role::Client).filter(|(_, end)| end.outcome == refused) {
            let (Some(found), Some(ahead)) = (refusals.get(&(end.local, end.remote)), server_ahead(end))
            else {
                continue;
            };
            let is_same = |server: &HandshakeEnd| {
                let apart = server.ended.0.saturating_sub(ahead.middle()).saturating_sub(end.ended.0);
                apart.saturating_abs() <= SAME_RESET.saturating_add(ahead.uncertainty())
            };
            let fitting = found.iter().copied().filter(|&server| is_same(&self.servers[server])).collect();
            self.choose(index, fitting, MatchedBy::Endpoints);
        }
    }

    fn servers_between(&self, first: (u32, u32), last: (u32, u32)) -> Vec<usize> {
        let start = self.by_number.partition_point(|(numbers, _)| *numbers < first);
        let fitting = self.by_number.iter().skip(start).take_while(|(numbers, _)| *numbers <= last);
        fitting.map(|&(_, index)| index).filter(|index| !self.server_places.contains_key(index)).collect()
    }

    /// Makes a pair of the client and the best of the fitting servers, if that is one connection.
    fn choose(&mut self, client: usize, mut fitting: Vec<usize>, by: MatchedBy) {
        fitting.retain(|server| !self.server_places.contains_key(server));
        if fitting.is_empty() || self.client_places.contains_key(&client) {
            return;
        }
        let servers = self.servers;
        let end = &self.clients[client];
        let is_same = |server: &HandshakeEnd| {
            (server.local.port, server.remote.port) == (end.remote.port, end.local.port)
        };
        if fitting.iter().any(|&server| is_same(&servers[server])) {
            fitting.retain(|&server| is_same(&servers[server]));
        }
        // A client that retries for a minute opens a second request; both have the same endpoints.
        let ends = |server: &usize| (servers[*server].local, servers[*server].remote, servers[*server].netns);
        let established = fitting.iter().filter(|&&server| servers[server].is_established()).count();
        let is_one = fitting.iter().all(|server| ends(server) == ends(&fitting[0])) && established <= 1;
        let best = fitting
            .iter()
            .copied()
            .min_by_key(|&server| (!servers[server].is_established(), servers[server].ended));
        let place = if is_one { Place::Matched } else { Place::Ambiguous };
        if let Some(server) = best.filter(|_| is_one) {
            self.pairs.push(Pair { client, server, by });
        }
        self.client_places.insert(client, place);
        self.server_places.extend(fitting.into_iter().map(|server| (server, place)));
    }
}

fn of_role(ends: &[HandshakeEnd], role: Role) -> impl Iterator<Item = (usize, &HandshakeEnd)> {
    ends.iter().enumerate().filter(move |(_, end)| end.role == role)
}
