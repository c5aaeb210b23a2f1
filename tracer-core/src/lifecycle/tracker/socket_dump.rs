//! Looks at the host: what they find is merged with what the events have told.

use hashbrown::HashMap;

use crate::{
    event::{ExistingSocket, SocketId, TcpState, Timestamp, Transition},
    lifecycle::{Connection, Observation, half_open::ConnKey, tracker::Tracker},
    owner::{Owner, OwnerSource},
};

impl Tracker {
    /// A socket that was there before: it is in the table already, or its past is unknown.
    pub(super) fn existing(&mut self, socket: &ExistingSocket, report: &mut dyn FnMut(Observation<'_>)) {
        if self.unconfirmed.is_none() {
            self.unconfirmed = Some(self.by_key());
            self.listeners.look();
        }
        if socket.state == TcpState::Listen {
            self.listeners.found(socket.netns, socket.local, socket.process);
            return;
        }
        let ends = (socket.netns, socket.local, socket.remote);
        if !self.scope.is_empty() && matches!(socket.state, TcpState::SynSent | TcpState::SynReceived) {
            self.still_opens(&ends, socket.state);
            return;
        }
        // Those that still have no port may share their ends with others.
        let bound = socket.local.port != 0;
        let unconfirmed = self.unconfirmed.as_mut().filter(|_| bound);
        let known = unconfirmed.and_then(|unconfirmed| unconfirmed.remove(&ends));
        if let Some(key) = known.and_then(|known| self.find(known)) {
            let entry = &mut self.entries[key];
            let connection = &mut entry.connection;
            // What happened since the look began is newer than what the look found.
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
        // The complement of a cookie, a small number, is no socket's identity.
        let placeholder = SocketId(!socket.cookie);
        if self.find(placeholder).is_some_and(|key| self.entries[key].connection.ends() == ends) {
            return;
        }
        self.end_unseen(placeholder, report);
        self.counts.existing += 1;
        self.insert(placeholder, socket.time, Connection::existing(socket), report);
        if bound {
            self.found.insert(ends, placeholder);
        }
    }

    /// A later look found this opening. It adds none: in the table the same one may still be without its port.
    fn still_opens(&mut self, ends: &ConnKey, state: TcpState) {
        let known = self.unconfirmed.as_ref().and_then(|unconfirmed| unconfirmed.get(ends)).copied();
        if known
            .and_then(|known| self.find(known))
            .is_some_and(|key| self.entries[key].connection.state() == state)
            && let Some(unconfirmed) = &mut self.unconfirmed
        {
            unconfirmed.remove(ends);
        }
    }

    fn by_key(&self) -> HashMap<ConnKey, SocketId, foldhash::fast::FixedState> {
        self.entries.iter().map(|(_, entry)| (entry.connection.ends(), entry.socket)).collect()
    }

    pub(super) fn snapshot_end(&mut self, started: Timestamp, report: &mut dyn FnMut(Observation<'_>)) {
        let scope = std::mem::take(&mut self.scope);
        let in_scope = |netns: Option<u32>| scope.is_empty() || netns.is_some_and(|it| scope.contains(&it));
        let mut vanished: Vec<SocketId> = self
            .unconfirmed
            .take()
            .unwrap_or_else(|| self.by_key())
            .into_iter()
            .filter(|((netns, local, _), _)| local.port != 0 && in_scope(*netns))
            .map(|(_, socket)| socket)
            .collect();
        // The map has no order of its own, and a replay must be the same every time.
        vanished.sort_unstable();
        for socket in vanished {
            let Some(key) = self.find(socket) else { continue };
            if self.entries[key].last_event >= started {
                continue;
            }
            self.end_unseen(socket, report);
        }
    }

    /// Whatever lived on this socket has ended unseen.
    fn end_unseen(&mut self, socket: SocketId, report: &mut dyn FnMut(Observation<'_>)) {
        if let Some(mut entry) = self.remove(socket) {
            self.found.remove(&entry.connection.ends());
            entry.connection.gap = true;
            self.report_unseen_close(&entry, report);
        }
    }

    /// The first transition of a connection that was found by a look tells which socket it is.
    pub(super) fn bind_found(&mut self, transition: &Transition) -> Option<usize> {
        if self.found.is_empty() {
            return None;
        }
        let placeholder = self.found.remove(&(transition.netns, transition.local, transition.remote))?;
        let hash = self.hash(placeholder);
        let entries = &self.entries;
        let found = self.index.find_entry(hash, |&key| entries[key as usize].socket == placeholder).ok()?;
        let (key, _) = found.remove();
        let key = key as usize;
        self.entries[key].socket = transition.socket;
        self.index_entry(transition.socket, key);
        Some(key)
    }
}
