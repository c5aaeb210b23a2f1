//! The sources of the opt-in labels' values: the connection, the lists and the cgroup look-up.

use std::{fmt, sync::Arc};

use tracer_core::{
    analysis::HandshakeAttempt,
    event::{CgroupId, Endpoint, Process, Timestamp},
    lifecycle::{Connection, Role},
};

use crate::{
    agent::metrics::{Label, Networks, Services},
    host::Cgroup,
};

/// Finds the cgroup of a connection. An implementation may read files; `agent::metrics` does not.
pub(crate) trait CgroupLookup: fmt::Debug + Send {
    /// Looks up the cgroup of a new connection early, while the cgroup still exists.
    fn note(&mut self, cgroup_id: Option<CgroupId>, process: Option<&Process>, now: Timestamp);

    /// Returns the cgroup of a connection, or `None` when it is unknown.
    fn cgroup(
        &mut self,
        cgroup_id: Option<CgroupId>,
        process: Option<&Process>,
        now: Timestamp,
    ) -> Option<Arc<Cgroup>>;
}

/// The enabled opt-in labels and the sources of their values.
#[derive(Debug, Default)]
pub struct LabelSources {
    pub(super) labels: Vec<Label>,
    pub(super) networks: Networks,
    pub(super) services: Services,
    cgroups: Option<Box<dyn CgroupLookup>>,
}

impl LabelSources {
    /// Enables labels. Duplicates count once; the order on the page is that of [`Label::ALL`].
    pub fn new(labels: &[Label]) -> Self {
        let labels = Label::ALL.into_iter().filter(|label| labels.contains(label)).collect();
        Self { labels, ..Self::default() }
    }

    /// Sets the list behind `remote_cidr`.
    #[must_use]
    pub fn with_networks(self, networks: Networks) -> Self {
        Self { networks, ..self }
    }

    /// Sets the list behind `service`.
    #[must_use]
    pub fn with_services(self, services: Services) -> Self {
        Self { services, ..self }
    }

    /// Sets the look-up behind `container`, `cgroup` and the labels of Kubernetes.
    #[must_use]
    pub(crate) fn with_cgroups(self, cgroups: Box<dyn CgroupLookup>) -> Self {
        Self { cgroups: Some(cgroups), ..self }
    }

    /// The cgroup look-up, if an enabled label needs it.
    fn needed_cgroups(&mut self) -> Option<&mut dyn CgroupLookup> {
        let needed = self.labels.iter().any(|label| {
            matches!(
                label,
                Label::Container | Label::Cgroup | Label::K8sNamespace | Label::K8sPod | Label::K8sWorkload
            )
        });
        match &mut self.cgroups {
            Some(cgroups) if needed => Some(&mut **cgroups),
            _ => None,
        }
    }

    /// Looks up the cgroup of a new connection early, if a label needs it.
    pub(super) fn note(&mut self, connection: &Connection, now: Timestamp) {
        if let Some(cgroups) = self.needed_cgroups() {
            cgroups.note(connection.cgroup_id, connection.owner.process.as_ref(), now);
        }
    }

    /// Returns the cgroup of a connection, if a label needs it.
    pub(super) fn cgroup(&mut self, inputs: &LabelInputs, now: Timestamp) -> Option<Arc<Cgroup>> {
        self.needed_cgroups()?.cgroup(inputs.cgroup_id, inputs.process.as_ref(), now)
    }
}

/// The properties of a connection that determine its label values.
#[derive(Clone, Copy)]
pub(super) struct LabelInputs {
    pub(super) role: Role,
    pub(super) local: Endpoint,
    pub(super) remote: Endpoint,
    pub(super) process: Option<Process>,
    pub(super) cgroup_id: Option<CgroupId>,
}

impl LabelInputs {
    pub(super) fn of(connection: &Connection) -> Self {
        Self {
            role: connection.role,
            local: connection.local,
            remote: connection.remote,
            process: connection.owner.process,
            cgroup_id: connection.cgroup_id,
        }
    }

    pub(super) fn of_attempt(attempt: &HandshakeAttempt) -> Self {
        let HandshakeAttempt { role, local, remote, process, cgroup_id, .. } = *attempt;
        Self { role, local, remote, process, cgroup_id }
    }

    /// Returns the server's port, or `None` when the role does not say which side the server is.
    pub(super) fn service_port(&self) -> Option<u16> {
        match self.role {
            Role::Server => Some(self.local.port),
            Role::Client => Some(self.remote.port),
            Role::Simultaneous | Role::Unknown => None,
        }
    }
}
