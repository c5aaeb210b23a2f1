//! The resets of connections, and the closed connections whose reset is still to come.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::{
    event::{
        Endpoint, InitialSequences, KernelName, Nanos, ResetReceived, ResetSent, SocketId, TcpInfo, Timestamp,
    },
    lifecycle::{AfterClose, CloseCause, CloseReason, ClosedBy, ClosedConnection, Connection, SegmentDrops},
};

/// Most connections with a reset that have not closed.
const MAX_RESETS: usize = 8_192;
/// Most closed connections that wait for their reset.
const MAX_HELD: usize = 8_192;
/// How long a closed connection waits. The kernel sends the reset in the call that closed the connection.
const PATIENCE: Nanos = Nanos::from_millis(20);

/// The reset that ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// The side that sent it.
    pub by: ClosedBy,
    /// The kernel's reason for sending it; none for a received reset, and before 6.10.
    pub reason: Option<KernelName>,
}

/// A closed connection whose report waits for its reset.
#[derive(Debug)]
pub(super) struct HeldClose {
    pub(super) socket: SocketId,
    pub(super) connection: Connection,
    pub(super) closed: Timestamp,
    pub(super) close_cause: CloseCause,
    pub(super) after: Option<AfterClose>,
    pub(super) info: Option<TcpInfo>,
    pub(super) drops: SegmentDrops,
    pub(super) reset: Option<Reset>,
    pub(super) accepted: Option<bool>,
    pub(super) sequences: Option<InitialSequences>,
    pub(super) backend: Option<Endpoint>,
}

impl HeldClose {
    pub(super) fn report(&self) -> ClosedConnection<'_> {
        ClosedConnection {
            connection: &self.connection,
            id: self.connection.id(self.socket),
            closed: self.closed,
            close_seen: true,
            close_cause: self.close_cause,
            after: self.after,
            info: self.info.as_ref(),
            reset: self.reset,
            drops: &self.drops,
            accepted: self.accepted,
            sequences: self.sequences,
            backend: self.backend,
        }
    }
}

/// Matches resets and connections.
///
/// The kernel sends some resets before the transition to CLOSE (`tcp_abort`, `tcp_out_of_resources`, a keepalive timeout) and
/// most after it (`__tcp_close`, `tcp_disconnect`, `tcp_v4_do_rcv`, 6.18). A received reset always precedes it (`tcp_reset`).
#[derive(Debug, Default)]
pub(super) struct Resets {
    early: HashMap<SocketId, Reset, foldhash::fast::RandomState>,
    held: VecDeque<HeldClose>,
}

impl Resets {
    /// Adds a received reset.
    pub(super) fn received(&mut self, event: &ResetReceived) {
        self.add_early(event.socket, Reset { by: ClosedBy::Remote, reason: None });
    }

    /// Adds a reset that this host sent for the connection of `socket`. Returns the closed connection that waited for it.
    pub(super) fn sent(&mut self, socket: SocketId, event: &ResetSent) -> Option<HeldClose> {
        let reset = Reset { by: ClosedBy::Local, reason: event.reason };
        if let Some(index) = self.held.iter().position(|held| held.socket == socket) {
            let mut held = self.held.remove(index)?;
            held.reset = Some(reset);
            return Some(held);
        }
        if !event.is_after_close() {
            self.add_early(socket, reset);
        }
        None
    }

    fn add_early(&mut self, socket: SocketId, reset: Reset) {
        if self.early.len() < MAX_RESETS {
            self.early.insert(socket, reset);
        }
    }

    /// Removes and returns the reset of a connection that closes or leaves the table.
    pub(super) fn take(&mut self, socket: SocketId) -> Option<Reset> {
        if self.early.is_empty() { None } else { self.early.remove(&socket) }
    }

    /// Returns whether a connection that closed for this cause without a reset so far is followed by one.
    pub(super) fn is_expected(&self, cause: CloseCause) -> bool {
        let by_reset = matches!(
            cause.reason,
            CloseReason::Aborted | CloseReason::UnreadData | CloseReason::Disconnected
        );
        by_reset && self.held.len() < MAX_HELD
    }

    /// Lets a closed connection wait for its reset.
    pub(super) fn hold(&mut self, held: HeldClose) {
        self.held.push_back(held);
    }

    /// Removes and returns a connection that has waited long enough at `now`, or whose socket begins anew.
    pub(super) fn pop_overdue(&mut self, now: Timestamp) -> Option<HeldClose> {
        let overdue = self.held.front().is_some_and(|held| now.since(held.closed) > PATIENCE);
        if overdue { self.held.pop_front() } else { None }
    }

    /// Removes and returns the waiting connection of a socket that begins anew.
    pub(super) fn pop_of(&mut self, socket: SocketId) -> Option<HeldClose> {
        let index = self.held.iter().position(|held| held.socket == socket)?;
        self.held.remove(index)
    }

    /// Removes and returns the next waiting connection.
    pub(super) fn pop(&mut self) -> Option<HeldClose> {
        self.held.pop_front()
    }
}
