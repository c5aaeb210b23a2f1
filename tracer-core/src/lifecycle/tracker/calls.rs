//! What the calls of processes tell about a connection: who owns it, whether and when it was accepted, and its first uses.

use crate::{
    event::{Call, Process, TcpState, Transition},
    lifecycle::{AcceptWait, Connection, Observation, Role, tracker::Tracker},
    owner::{Owner, OwnerSource},
};

impl Tracker {
    pub(super) fn first_read(&mut self, call: &Call, report: &mut dyn FnMut(Observation<'_>)) {
        let Some(slot) = self.find(call.socket) else { return };
        let connection = &mut self.entries[slot].connection;
        if gives_way_to(&connection.owner, call.process) {
            connection.owner =
                Owner::from_process(Some(call.process), OwnerSource::Reader).with_thread(call.thread);
        }
        // Of several processes that read at once, each may be reported.
        if connection.first_read().is_some() {
            return;
        }
        connection.read(call.time);
        // Without the hook for `accept()`, or if its record is lost.
        if let Some(wait @ AcceptWait::AtMost(_)) = connection.accept_wait() {
            report(Observation::Accepted { connection, wait });
        }
    }

    pub(super) fn first_write(&mut self, call: &Call) {
        let Some(slot) = self.find(call.socket) else { return };
        let connection = &mut self.entries[slot].connection;
        if connection.first_write().is_none() {
            connection.write(call.time);
        }
    }

    pub(super) fn accepted(&mut self, call: &Call, report: &mut dyn FnMut(Observation<'_>)) {
        let Some(slot) = self.find(call.socket) else { return };
        let connection = &mut self.entries[slot].connection;
        if matches!(connection.owner.source, OwnerSource::Listener | OwnerSource::Unknown) {
            connection.owner =
                Owner::from_process(Some(call.process), OwnerSource::Accept).with_thread(call.thread);
        }
        connection.accept(call.time);
        if let Some(wait) = connection.accept_wait() {
            report(Observation::Accepted { connection, wait });
        }
    }
}

/// Returns whether a process accepted the connection that `last` closes; none when unknown.
///
/// An application's `close()` of an accepted connection sends a FIN first, or resets the connection while it still has its
/// descriptor (`__tcp_close`, 6.18 tcp.c).
pub(super) fn was_accepted(connection: &Connection, last: &Transition) -> Option<bool> {
    if connection.role != Role::Server {
        return None;
    }
    if connection.accept_wait().is_some() {
        return Some(true);
    }
    let open = matches!(last.from, TcpState::SynReceived | TcpState::Established | TcpState::CloseWait);
    match last.flags {
        Some(flags) if open => Some(flags.attached),
        _ => None,
    }
}

/// Returns whether a process that reads from an accepted connection or closes it is its owner instead of the known one.
///
/// The process that accepts may pass the descriptor on, to a worker for each connection.
fn gives_way_to(owner: &Owner, process: Process) -> bool {
    match owner.source {
        OwnerSource::Listener | OwnerSource::Unknown => true,
        OwnerSource::Accept => owner.process.is_none_or(|acceptor| acceptor.pid != process.pid),
        _ => false,
    }
}

/// Makes the closing process the owner if the owner was unknown, derived from the listener, or accepted the connection for
/// another process.
///
/// A client keeps the process that connected. Kernel workers own no connections.
pub(super) fn correct_owner(connection: &mut Connection, transition: &Transition) {
    let Some(process) = transition.process else { return };
    if gives_way_to(&connection.owner, process) && !process.name().starts_with(b"kworker/") {
        connection.owner =
            Owner::from_process(Some(process), OwnerSource::Closer).with_thread(transition.thread);
    }
}
