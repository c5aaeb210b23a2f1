//! Merges socket dumps into the connection table.

use hashbrown::HashMap;

use crate::{
    event::{ConnKey, ExistingSocket, ExistingTimewait, Netns, SocketId, TcpState, Timestamp, Transition},
    lifecycle::{Connection, Observation, Role, time_wait_table, tracker::Tracker},
    owner::{Owner, OwnerSource},
};

/// Maximum network namespaces of one dump.
const MAX_SCOPE: usize = 65_536;

impl Tracker {
    /// Handles one dumped socket: confirms the connection in the table, or adds it with an unknown past.
    pub(super) fn existing(&mut self, socket: &ExistingSocket, report: &mut dyn FnMut(Observation<'_>)) {
        self.begin_dump();
        if socket.state == TcpState::Listen {
            let tracked = self.listeners.dumped(socket);
            self.counts.unfollowed += u64::from(!tracked);
            return;
        }
        let key = socket.key();
        if !self.scope.is_empty() && matches!(socket.state, TcpState::SynSent | TcpState::SynReceived) {
            self.confirm_handshake(&key, socket.state);
            return;
        }
        // Sockets without a local port may share a key.
        let bound = socket.local.port != 0;
        let unconfirmed = self.unconfirmed.as_mut().filter(|_| bound);
        let confirmed = unconfirmed.and_then(|unconfirmed| unconfirmed.remove(&key));
        if let Some(slot) = confirmed.and_then(|socket| self.find(socket)) {
            let entry = &mut self.entries[slot];
            let connection = &mut entry.connection;
            // An event after the start of the dump is newer than the dump.
            if connection.state() != socket.state && entry.last_event < socket.time {
                self.counts.gaps += 1;
                connection.gap = true;
                connection.history.push(socket.state, None);
            }
            if connection.owner.source == OwnerSource::Unknown {
                connection.owner = Owner::from_process(socket.process, OwnerSource::Scan);
            }
            return;
        }
        // Cookies are small numbers, so the complement of a cookie is no valid socket id.
        let placeholder = SocketId(!socket.cookie.0);
        if self.find(placeholder).is_some_and(|slot| self.entries[slot].connection.key() == key) {
            return;
        }
        self.close_unseen(placeholder, report);
        self.counts.existing += 1;
        // Its translation, if a dump of them has preceded, belongs to an open connection from now on.
        self.backends.opened(&key, Role::Unknown);
        self.insert(placeholder, socket.time, Connection::existing(socket), report);
        if bound {
            self.dumped.insert(key, placeholder);
        }
    }

    fn begin_dump(&mut self) {
        if self.unconfirmed.is_none() {
            self.unconfirmed = Some(self.by_key());
            self.listeners.begin_dump();
        }
    }

    /// Limits the dump to this network namespace and the others that precede it. Beyond the limit a namespace is not
    /// resynced.
    pub(super) fn dump_scope(&mut self, netns: Netns) {
        if self.scope.len() < MAX_SCOPE {
            self.scope.insert(netns);
        }
    }

    /// Keeps a dumped timewait socket until the end of the dump.
    pub(super) fn existing_timewait(&mut self, socket: &ExistingTimewait) {
        if self.dumped_timewait.len() < time_wait_table::MAX_ENTRIES {
            self.dumped_timewait.push(*socket);
        } else {
            self.counts.unfollowed += 1;
        }
    }

    /// Confirms a handshake from a resync. Never adds one, because the table may hold the same handshake without its
    /// port.
    fn confirm_handshake(&mut self, key: &ConnKey, state: TcpState) {
        let known = self.unconfirmed.as_ref().and_then(|unconfirmed| unconfirmed.get(key)).copied();
        if known
            .and_then(|known| self.find(known))
            .is_some_and(|slot| self.entries[slot].connection.state() == state)
            && let Some(unconfirmed) = &mut self.unconfirmed
        {
            unconfirmed.remove(key);
        }
    }

    fn by_key(&self) -> HashMap<ConnKey, SocketId, foldhash::fast::FixedState> {
        self.entries.iter().map(|(_, entry)| (entry.connection.key(), entry.socket)).collect()
    }

    pub(super) fn dump_end(
        &mut self,
        started: Timestamp,
        timewait: bool,
        report: &mut dyn FnMut(Observation<'_>),
    ) {
        self.begin_dump();
        let scope = std::mem::take(&mut self.scope);
        let in_scope = |netns: Option<Netns>| scope.is_empty() || netns.is_some_and(|it| scope.contains(&it));
        let mut missing: Vec<SocketId> = self
            .unconfirmed
            .take()
            .into_iter()
            .flatten()
            .filter(|(key, _)| key.local.port != 0 && in_scope(key.netns))
            .map(|(_, socket)| socket)
            .collect();
        self.listeners.end_dump(started, in_scope);
        let found = std::mem::take(&mut self.dumped_timewait);
        if timewait {
            self.counts.unfollowed += self.time_wait_table.resync(started, in_scope, &found);
        }
        // The order of the map is not deterministic, but replays must be.
        missing.sort_unstable();
        for socket in missing {
            let Some(slot) = self.find(socket) else { continue };
            if self.entries[slot].last_event >= started {
                continue;
            }
            self.close_unseen(socket, report);
        }
    }

    /// Closes the connection on this socket; its close was not seen.
    fn close_unseen(&mut self, socket: SocketId, report: &mut dyn FnMut(Observation<'_>)) {
        if let Some(mut entry) = self.remove(socket) {
            self.dumped.remove(&entry.connection.key());
            entry.connection.gap = true;
            self.report_unseen_close(&entry, report);
        }
    }

    /// Assigns the socket id of `transition` to the dumped connection with the same key, and returns its slot.
    pub(super) fn bind_dumped(&mut self, transition: &Transition) -> Option<usize> {
        if self.dumped.is_empty() {
            return None;
        }
        let placeholder = self.dumped.remove(&transition.key())?;
        let hash = self.hash(placeholder);
        let entries = &self.entries;
        let occupied =
            self.index.find_entry(hash, |&slot| entries[slot as usize].socket == placeholder).ok()?;
        let (slot, _) = occupied.remove();
        let slot = slot as usize;
        self.entries[slot].socket = transition.socket;
        self.index_entry(transition.socket, slot);
        Some(slot)
    }
}
