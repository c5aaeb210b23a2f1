//! What each transition does to the table: begins, advances or closes a connection, or concerns a listener.

use crate::{
    event::{ConnKey, TcpInfo, TcpState, Transition},
    lifecycle::{
        CloseCause, CloseReason, ClosedConnection, Connection, HalfOpen, Handshake, Observation, Role,
        SegmentDrops,
        close_reason::sent_nothing,
        resets::HeldClose,
        tracker::{
            Tracker,
            calls::{correct_owner, was_accepted},
        },
    },
    owner::{Owner, OwnerSource},
};

impl Tracker {
    pub(super) fn transition(&mut self, transition: &Transition, report: &mut dyn FnMut(Observation<'_>)) {
        self.counts.transitions += 1;
        match (transition.from, transition.to) {
            (TcpState::Closed, TcpState::Listen) => self.listen(transition, report),
            (TcpState::Listen, TcpState::Closed) => {
                let since = self.listeners.close(transition);
                let duration = since.map(|since| transition.time.since(since));
                self.close_previous_connection(transition, report);
                report(Observation::without_connection(transition, duration));
            }
            // `ss -K` on a listener, or MPTCP. A connection in the table means that its close was missed.
            (TcpState::Closed, TcpState::Closed) => {
                self.close_previous_connection(transition, report);
                report(Observation::without_connection(transition, None));
            }
            (TcpState::Closed, TcpState::SynSent) => {
                let owner = Owner::from_process(transition.process, OwnerSource::Connect);
                let owner = owner.with_thread(transition.thread);
                self.begin(transition, Connection::begin(transition, Role::Client, owner), report);
            }
            (TcpState::Listen, TcpState::SynReceived) => {
                let listener = self.listeners.of_child(transition);
                let owner = Owner::from_process(listener.process, OwnerSource::Listener);
                let owner = owner.with_thread(listener.thread);
                let mut connection = Connection::begin(transition, Role::Server, owner);
                connection.defer_accept |= listener.defer_accept;
                self.begin(transition, connection, report);
            }
            (_, TcpState::Closed) => self.close(transition, report),
            (from, to) if from == to => self.repeat(transition, report),
            _ => self.advance(transition, report),
        }
    }

    fn listen(&mut self, transition: &Transition, report: &mut dyn FnMut(Observation<'_>)) {
        self.close_previous_connection(transition, report);
        self.counts.unfollowed += u64::from(!self.listeners.insert(transition));
        report(Observation::without_connection(transition, None));
    }

    fn begin(
        &mut self,
        transition: &Transition,
        connection: Connection,
        report: &mut dyn FnMut(Observation<'_>),
    ) {
        self.close_previous_connection(transition, report);
        let slot = self.insert(transition.socket, transition.time, connection, report);
        report(Observation::Transition {
            transition,
            duration: None,
            connection: Some(&self.entries[slot].connection),
            drops: &SegmentDrops::NONE,
            half_open: None,
            backend: None,
        });
    }

    /// Removes what the table still holds for this socket: a listener, or a connection whose close was missed.
    fn close_previous_connection(
        &mut self,
        transition: &Transition,
        report: &mut dyn FnMut(Observation<'_>),
    ) {
        if let Some(held) = self.resets.pop_of(transition.socket) {
            report(Observation::Closed(held.report()));
        }
        self.listeners.remove(transition.socket, transition.time);
        if let Some(mut old) = self.remove(transition.socket) {
            old.connection.gap = true;
            self.report_unseen_close(&old, report);
        }
        // A client may begin with the endpoints of a living connection: the kernel enters SYN_SENT before it checks the
        // 4-tuple, and then fails with EADDRNOTAVAIL (`tcp_v4_connect`, 6.18 tcp_ipv4.c).
        if !self.dumped.is_empty() && transition.to != TcpState::SynSent {
            let key = transition.key();
            if let Some(mut old) = self.dumped.remove(&key).and_then(|socket| self.remove(socket)) {
                old.connection.gap = true;
                self.report_unseen_close(&old, report);
            }
        }
    }

    /// Handles a transition to the same state: the application called `close()` after `shutdown()`.
    fn repeat(&mut self, transition: &Transition, report: &mut dyn FnMut(Observation<'_>)) {
        let slot = self.find_or_adopt(transition, report);
        let connection = &mut self.entries[slot].connection;
        connection.update(transition);
        correct_owner(connection, transition);
        let duration = connection.history.since().map(|since| transition.time.since(since));
        report(Observation::Transition {
            transition,
            duration,
            connection: Some(connection),
            drops: &SegmentDrops::NONE,
            half_open: None,
            backend: None,
        });
    }

    fn advance(&mut self, transition: &Transition, report: &mut dyn FnMut(Observation<'_>)) {
        let slot = self.find_or_adopt(transition, report);
        let connection = &mut self.entries[slot].connection;
        connection.update(transition);
        let duration = connection.history.since().map(|since| transition.time.since(since));
        let mut drops = &SegmentDrops::NONE;
        let mut half_open = None;
        let mut backend = None;
        match (transition.from, transition.to) {
            (TcpState::SynSent, TcpState::SynReceived) if connection.role == Role::Client => {
                connection.role = Role::Simultaneous;
            }
            (_, TcpState::Established) if transition.flags.is_some_and(|flags| flags.repair) => {
                // A restore sends no segment, so it is no handshake, and either side may have opened the connection.
                connection.role = Role::Unknown;
            }
            // So it is after a client that sent no data to a listener with `TCP_DEFER_ACCEPT`, which ignores the earlier
            // ACK.
            (TcpState::Established, TcpState::CloseWait) if connection.handshake_ended_by_fin(transition) => {
                connection.handshake = connection.handshake.map(Handshake::ended_by_fin);
            }
            (_, TcpState::Established) => {
                let key = connection.key();
                half_open = self.complete_half_open(&key, transition, report);
                let connection = &mut self.entries[slot].connection;
                connection.handshake = Handshake::completed(connection, transition, half_open.as_ref());
                drops = self.dropped_segments.established(transition.socket, connection, transition.time);
                backend = self.backends.opened(&key, connection.role);
                if self.time_wait_table.reuse(&key) {
                    self.counts.time_wait_reused += 1;
                    connection.reused_time_wait = true;
                }
            }
            _ => {}
        }
        let connection = &mut self.entries[slot].connection;
        connection.history.push(transition.to, Some(transition.time));
        correct_owner(connection, transition);
        report(Observation::Transition {
            transition,
            duration,
            connection: Some(connection),
            drops,
            half_open: half_open.as_ref(),
            backend,
        });
    }

    /// Removes the half-open handshake that the transition to ESTABLISHED completes. One that a dead request left
    /// under the same key was abandoned.
    fn complete_half_open(
        &mut self,
        key: &ConnKey,
        transition: &Transition,
        report: &mut dyn FnMut(Observation<'_>),
    ) -> Option<HalfOpen> {
        let half_open = self.half_opens.complete(key)?;
        if half_open.belongs_to(transition) {
            return Some(half_open);
        }
        self.abandon(half_open, report);
        None
    }

    pub(super) fn abandon(&mut self, half_open: HalfOpen, report: &mut dyn FnMut(Observation<'_>)) {
        self.counts.abandoned_handshakes += 1;
        self.abandoned.count(&half_open);
        let drops = self.dropped_segments.of_handshake(&half_open.key(), Role::Server, self.now);
        report(Observation::Abandoned { half_open, drops });
    }

    fn close(&mut self, transition: &Transition, report: &mut dyn FnMut(Observation<'_>)) {
        let slot = self.find_or_adopt(transition, report);
        let connection = &mut self.entries[slot].connection;
        connection.update(transition);
        let duration = connection.history.since().map(|since| transition.time.since(since));
        let close_cause = CloseCause::classify(connection, transition);
        if connection.never_established() {
            connection.handshake = Handshake::failed(connection, transition.info.as_ref());
        }
        if close_cause.reason != CloseReason::Killed {
            correct_owner(connection, transition);
        }
        let after = (close_cause.reason == CloseReason::Closed)
            .then(|| {
                let peer_fin = transition.flags.map(|flags| flags.peer_fin);
                self.options.time_wait.after_close(transition.from, peer_fin)
            })
            .flatten();
        report(Observation::Transition {
            transition,
            duration,
            connection: Some(connection),
            drops: &SegmentDrops::NONE,
            half_open: None,
            backend: None,
        });
        self.counts.closed += 1;
        let reset = self.resets.take(transition.socket);
        if let Some(entry) = self.remove(transition.socket) {
            let id = entry.connection.id(transition.socket);
            let drops = self.dropped_segments.closed(transition.socket, &entry.connection, transition.time);
            let backend = self.backends.closed(&entry.connection);
            if !self.dumped.is_empty() && !sent_nothing(transition) {
                // A dumped connection whose placeholder is its real socket id, as in a continued recording.
                self.dumped.remove(&entry.connection.key());
            }
            if let Some(after) = after
                && !self.time_wait_table.insert(entry.connection.key(), id, transition.time, after)
            {
                self.counts.unfollowed += 1;
            }
            // A client that was not established has no sample. `tcp_disconnect` keeps the minimum of the descriptor's
            // earlier connection (6.18 tcp.c).
            let without_samples = transition
                .info
                .filter(|_| transition.from == TcpState::SynSent)
                .map(|info| TcpInfo { srtt: None, min_rtt: None, ..info });
            let info = without_samples.as_ref().or(transition.info.as_ref());
            let accepted = was_accepted(&entry.connection, transition);
            if self.options.resets && reset.is_none() && self.resets.is_expected(close_cause) {
                self.resets.hold(HeldClose {
                    socket: transition.socket,
                    connection: entry.connection,
                    closed: transition.time,
                    close_cause,
                    after,
                    info: info.copied(),
                    drops: *drops,
                    reset,
                    accepted,
                    sequences: transition.sequences,
                    backend,
                });
                return;
            }
            report(Observation::Closed(ClosedConnection {
                connection: &entry.connection,
                id,
                closed: transition.time,
                close_seen: true,
                close_cause,
                after,
                info,
                reset,
                drops,
                accepted,
                sequences: transition.sequences,
                backend,
            }));
        }
    }
}
