//! The cgroup, and with it the container, of what the core reports.

use std::{sync::Arc, time::Duration};

use tracer_core::{
    analysis::HandshakeAttempt,
    event::{Timestamp, Transition},
    lifecycle::{ClosedConnection, Connection, Observation},
};

use crate::host::{Cgroup, CgroupResolver};

/// Finds the cgroups of connections, and keeps them beyond the end of either.
#[derive(Debug)]
pub struct ConnectionCgroups(CgroupResolver);

impl ConnectionCgroups {
    /// Asks `resolver` about the ids and processes of connections.
    pub fn new(resolver: CgroupResolver) -> Self {
        Self(resolver)
    }

    /// When a connection has begun, looks its cgroup up while it certainly exists.
    pub fn observe(&mut self, observation: &Observation<'_>) {
        if let Some((transition, connection)) = observation.begun() {
            let now = Duration::from_nanos(transition.time.0);
            self.0.note(connection.cgroup_id, connection.owner.process.as_ref(), now);
        }
    }

    /// The cgroup of a connection at a moment; none when nothing leads to one.
    pub fn of_connection(&mut self, connection: &Connection, now: Timestamp) -> Option<Arc<Cgroup>> {
        let process = connection.owner.process.as_ref();
        self.0.cgroup(connection.cgroup_id, process, Duration::from_nanos(now.0))
    }

    /// The cgroup of a connection that has ended.
    pub fn of_closed(&mut self, closed: &ClosedConnection<'_>) -> Option<Arc<Cgroup>> {
        self.of_connection(closed.connection, closed.closed)
    }

    /// The cgroup of a connection whose opening is over.
    pub fn of_attempt(&mut self, opening: &HandshakeAttempt) -> Option<Arc<Cgroup>> {
        self.0.cgroup(opening.cgroup_id, opening.process.as_ref(), Duration::from_nanos(opening.ended.0))
    }

    /// The cgroup of the socket that changed its state: as the transition tells it, else as the connection does.
    pub fn of_transition(
        &mut self,
        transition: &Transition,
        connection: Option<&Connection>,
    ) -> Option<Arc<Cgroup>> {
        let id = transition.cgroup_id.or(connection.and_then(|connection| connection.cgroup_id));
        let process = connection.and_then(|connection| connection.owner.process).or(transition.process);
        self.0.cgroup(id, process.as_ref(), Duration::from_nanos(transition.time.0))
    }
}
