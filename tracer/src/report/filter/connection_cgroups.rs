//! The cgroups of connections, and with them their containers.

use std::{sync::Arc, time::Duration};

use tracer_core::{
    analysis::{HandshakeAttempt, ListenerReport},
    event::{Timestamp, Transition},
    lifecycle::{ClosedConnection, Connection, Observation},
};

use crate::host::{Cgroup, CgroupResolver};

/// Resolves the cgroups of connections, and remembers them after the cgroup is removed.
#[derive(Debug)]
pub struct ConnectionCgroups(CgroupResolver);

impl ConnectionCgroups {
    /// Creates a lookup that uses `resolver`.
    pub fn new(resolver: CgroupResolver) -> Self {
        Self(resolver)
    }

    /// Resolves the cgroup of a connection that has just started, while the cgroup exists.
    pub fn observe(&mut self, observation: &Observation<'_>) {
        if let Some((transition, connection)) = observation.started() {
            let now = Duration::from_nanos(transition.time.0);
            self.0.note(connection.cgroup_id, connection.owner.process.as_ref(), now);
        }
    }

    /// Returns the cgroup of a connection at the time `now`, if it can be resolved.
    pub fn of_connection(&mut self, connection: &Connection, now: Timestamp) -> Option<Arc<Cgroup>> {
        let process = connection.owner.process.as_ref();
        self.0.cgroup(connection.cgroup_id, process, Duration::from_nanos(now.0))
    }

    /// Returns the cgroup of a closed connection.
    pub fn of_closed(&mut self, closed: &ClosedConnection<'_>) -> Option<Arc<Cgroup>> {
        self.of_connection(closed.connection, closed.closed)
    }

    /// Returns the cgroup of a connection whose handshake ended.
    pub fn of_attempt(&mut self, attempt: &HandshakeAttempt) -> Option<Arc<Cgroup>> {
        self.0.cgroup(attempt.cgroup_id, attempt.process.as_ref(), Duration::from_nanos(attempt.ended.0))
    }

    /// Returns the cgroup of a listener at the time `now`.
    pub fn of_listener(&mut self, listener: &ListenerReport, now: Timestamp) -> Option<Arc<Cgroup>> {
        self.0.cgroup(listener.socket.cgroup_id, listener.process.as_ref(), Duration::from_nanos(now.0))
    }

    /// Returns the cgroup of a transition's socket: by the id of the transition, else of the connection.
    pub(super) fn of_transition(
        &mut self,
        transition: &Transition,
        connection: Option<&Connection>,
    ) -> Option<Arc<Cgroup>> {
        let id = transition.cgroup_id.or(connection.and_then(|connection| connection.cgroup_id));
        let process = connection.and_then(|connection| connection.owner.process).or(transition.process);
        self.0.cgroup(id, process.as_ref(), Duration::from_nanos(transition.time.0))
    }
}
