//! What the core reports.

use crate::{
    event::{TcpInfo, TcpState, Timestamp, TimewaitEnd, Transition},
    lifecycle::{AfterClose, CloseCause, Connection, EndedTimewait, HalfOpen, StateSpan},
};

/// A connection whose life has ended, as far as its application is concerned: TIME_WAIT and an
/// orphaned FIN_WAIT2 are the kernel's business, and come after.
#[derive(Clone, Copy, Debug)]
pub struct ClosedConnection<'a> {
    /// What was known at the end.
    pub connection: &'a Connection,
    /// When it ended; when that was not seen, its last event.
    pub closed: Timestamp,
    /// Its end was seen.
    pub close_seen: bool,
    /// Why it ended, and by whom.
    pub close_cause: CloseCause,
    /// What the kernel keeps of it afterwards.
    pub after: Option<AfterClose>,
    /// The kernel's own account, where the mode allows.
    pub info: Option<&'a TcpInfo>,
}

impl ClosedConnection<'_> {
    /// When its opening began; none when that was not seen.
    ///
    /// A server's socket appears only at the end of the handshake, so the measured handshake is counted
    /// back from there.
    pub fn opened(&self) -> Option<Timestamp> {
        let connection = self.connection;
        if connection.incomplete {
            return None;
        }
        let measured = connection
            .handshake
            .filter(|handshake| handshake.replaces(TcpState::SynReceived))
            .and_then(|handshake| handshake.duration_ns);
        match (measured, connection.history.entered(TcpState::Established)) {
            (Some(handshake), Some(established)) => Some(Timestamp(established.0.saturating_sub(handshake))),
            _ => Some(connection.first_seen),
        }
    }

    /// Nanoseconds from opening to end; none when either was not seen.
    pub fn duration_ns(&self) -> Option<u64> {
        self.opened().filter(|_| self.close_seen).map(|opened| self.closed.since(opened))
    }

    /// Every state with the time spent in it, those after the end included.
    ///
    /// A server's SYN_RECV carries the measured handshake, not the microseconds that the kernel's
    /// socket spends in it. The FIN_WAIT2 of a socket that the kernel took over lasts beyond the end.
    pub fn states(&self) -> impl Iterator<Item = StateSpan> + '_ {
        let handshake = self.connection.handshake;
        let after = self.after;
        let mut spans = self.connection.history.spans(self.closed).collect::<arrayvec::ArrayVec<_, 8>>();
        for span in &mut spans {
            if let Some(handshake) = handshake
                && handshake.replaces(span.state)
            {
                span.duration_ns = handshake.duration_ns;
                span.source = handshake.source;
            }
        }
        if !self.close_seen
            && let Some(last) = spans.last_mut()
        {
            last.duration_ns = None;
        }
        if let Some(after) = after {
            let mut span = after.span();
            if let Some(last) = spans.last().copied().filter(|last| last.state == after.state) {
                // The same state, first with a socket, then without.
                spans.pop();
                span.duration_ns = last.duration_ns.map(|before| before.saturating_add(after.duration_ns));
            }
            // Room is left: a history holds one less.
            let _ = spans.try_push(span);
        }
        spans.into_iter()
    }
}

/// One thing the core has to report.
#[derive(Clone, Copy, Debug)]
pub enum Observation<'a> {
    /// A socket changed its state.
    Transition {
        /// The change.
        transition: &'a Transition,
        /// Nanoseconds spent in the state left; none when its beginning was not seen. For a server's
        /// SYN_RECV it is the kernel's microseconds, not the handshake.
        duration_ns: Option<u64>,
        /// The connection after the change; none for a listener or an unknown socket.
        connection: Option<&'a Connection>,
    },
    /// A connection ended.
    Closed(ClosedConnection<'a>),
    /// A handshake that this host answered was never completed.
    Abandoned(HalfOpen),
    /// What the kernel kept of a closed connection has ended, where a hook sees it.
    TimewaitEnd {
        /// The end.
        event: &'a TimewaitEnd,
        /// What it ended.
        end: EndedTimewait,
    },
    /// A live connection was forgotten because the table was full.
    Evicted {
        /// What was known of it.
        connection: &'a Connection,
    },
}

impl<'a> Observation<'a> {
    /// The transition that begins a connection, with the connection; none for anything else.
    pub fn begun(&self) -> Option<(&'a Transition, &'a Connection)> {
        match *self {
            Self::Transition { transition, connection: Some(connection), .. }
                if matches!(transition.from, TcpState::Closed | TcpState::Listen) =>
            {
                Some((transition, connection))
            }
            _ => None,
        }
    }
}
