//! The reports of the tracker.

use crate::{
    event::{
        ConnectionId, Endpoint, InitialSequences, Nanos, ResetSent, SegmentDropped, TcpInfo, TcpState,
        Timestamp, TimewaitEnd, Transition,
    },
    lifecycle::{
        AfterClose, CloseCause, Connection, EndedTimewait, HalfOpen, Reset, SegmentDrops, StateSpan,
    },
};

/// A connection that reached CLOSE.
///
/// The socket is gone for the application. TIME_WAIT and an orphaned FIN_WAIT2 follow the close;
/// [`after`](Self::after) describes them.
#[derive(Clone, Copy, Debug)]
pub struct ClosedConnection<'a> {
    /// The connection at its close.
    pub connection: &'a Connection,
    /// The identity of the connection.
    pub id: ConnectionId,
    /// The time of the close. When the close was not seen, the time of the last event.
    pub closed: Timestamp,
    /// The close was seen.
    pub close_seen: bool,
    /// The reason of the close and the side that caused it.
    pub close_cause: CloseCause,
    /// The timewait socket that the kernel keeps afterwards.
    pub after: Option<AfterClose>,
    /// The kernel's connection statistics, if the tracing mode reads them.
    pub info: Option<&'a TcpInfo>,
    /// The reset that ended the connection; none if there was none, or without the hooks for resets.
    pub reset: Option<Reset>,
    /// The segments of its handshake that this host dropped.
    pub drops: &'a SegmentDrops,
    /// Whether a process accepted the connection; none for a client, and when unknown.
    pub accepted: Option<bool>,
    /// The initial sequence numbers of a client whose handshake failed, if a SYN was sent.
    pub sequences: Option<InitialSequences>,
    /// The backend behind the remote address of a client, if this host translated it and the source reports that.
    pub backend: Option<Endpoint>,
}

/// How long a connection waited for `accept()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptWait {
    /// From ESTABLISHED to the return of `accept()`.
    Observed(Nanos),
    /// From ESTABLISHED to the first read, which is later than `accept()`.
    AtMost(Nanos),
}

impl AcceptWait {
    /// Returns the duration.
    pub const fn duration(self) -> Nanos {
        match self {
            Self::Observed(duration) | Self::AtMost(duration) => duration,
        }
    }

    /// Returns the name of the event that ended the wait, in machine output.
    pub const fn source(self) -> &'static str {
        match self {
            Self::Observed(_) => "accept",
            Self::AtMost(_) => "first_read",
        }
    }
}

impl ClosedConnection<'_> {
    /// Returns when the handshake started: see [`Connection::opened`].
    pub fn opened(&self) -> Option<Timestamp> {
        self.connection.opened()
    }

    /// Returns the time from the start of the handshake to the close; none when either was not seen.
    pub fn duration(&self) -> Option<Nanos> {
        self.opened().filter(|_| self.close_seen).map(|opened| self.closed.since(opened))
    }

    /// Iterates over all states with the time spent in each, including the state after the close.
    ///
    /// A server's SYN_RECV has the measured duration of the handshake, not the microseconds that the kernel's socket
    /// spends in the state. An orphaned FIN_WAIT2 lasts beyond the close.
    pub fn states(&self) -> impl Iterator<Item = StateSpan> + '_ {
        let handshake = self.connection.handshake;
        let after = self.after;
        let mut spans = self.connection.history.spans(self.closed).collect::<arrayvec::ArrayVec<_, 8>>();
        for span in &mut spans {
            if let Some(handshake) = handshake
                && handshake.replaces(span.state)
            {
                span.duration = handshake.duration;
                span.source = handshake.source;
            }
        }
        if !self.close_seen
            && let Some(last) = spans.last_mut()
        {
            last.duration = None;
        }
        if let Some(after) = after {
            let mut span = after.span();
            if let Some(last) = spans.last().copied().filter(|last| last.state == after.state) {
                // FIN_WAIT2 continues in the timewait socket.
                spans.pop();
                span.duration = last.duration.map(|before| before.saturating_add(after.duration));
            }
            // Cannot fail: the capacity is one more than that of a history.
            let _ = spans.try_push(span);
        }
        spans.into_iter()
    }
}

/// A report of the [`Tracker`](crate::lifecycle::Tracker).
#[derive(Clone, Copy, Debug)]
pub enum Observation<'a> {
    /// A socket changed state.
    Transition {
        /// The state change.
        transition: &'a Transition,
        /// The time spent in the previous state; none when its start was not seen. For a server's SYN_RECV this is
        /// the time the kernel's socket spent in the state, not the duration of the handshake.
        duration: Option<Nanos>,
        /// The connection after the change; none for a listener or an unknown socket.
        connection: Option<&'a Connection>,
        /// At ESTABLISHED: the segments of the handshake that this host dropped.
        drops: &'a SegmentDrops,
        /// At a server's ESTABLISHED: the half-open handshake before it, if a retransmission of its SYN-ACK was seen.
        half_open: Option<&'a HalfOpen>,
        /// At a client's ESTABLISHED: the backend behind the remote address, as in [`ClosedConnection`].
        backend: Option<Endpoint>,
    },
    /// A process accepted a connection, or read from it first where `accept()` is not observed.
    Accepted {
        /// The connection.
        connection: &'a Connection,
        /// How long it waited.
        wait: AcceptWait,
    },
    /// This host refused a SYN: nobody listens on its port.
    Refused(&'a ResetSent),
    /// This host dropped a segment of a handshake.
    SegmentDropped(&'a SegmentDropped),
    /// A connection closed.
    Closed(ClosedConnection<'a>),
    /// A handshake that this host answered was never completed by the client.
    Abandoned {
        /// The handshake.
        half_open: HalfOpen,
        /// Its segments that this host dropped.
        drops: &'a SegmentDrops,
    },
    /// The kernel removed a timewait socket. Only a source with the hook for it reports this.
    TimewaitEnd {
        /// The event of the kernel.
        event: &'a TimewaitEnd,
        /// The state and the lifetime of the removed socket.
        end: EndedTimewait,
    },
    /// A live connection was evicted because the table was full.
    Evicted {
        /// The connection at its eviction.
        connection: &'a Connection,
    },
}

impl<'a> Observation<'a> {
    /// Returns the observation of a listener's transition, which has no connection.
    pub(super) const fn without_connection(transition: &'a Transition, duration: Option<Nanos>) -> Self {
        Self::Transition {
            transition,
            duration,
            connection: None,
            drops: &SegmentDrops::NONE,
            half_open: None,
            backend: None,
        }
    }

    /// Returns the transition that starts a connection, with the connection; none for any other observation.
    pub fn started(&self) -> Option<(&'a Transition, &'a Connection)> {
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
