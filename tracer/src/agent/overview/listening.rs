//! The processes that listen on each port.

use tracer_core::{
    event::{Endpoint, Process},
    lifecycle::Tracker,
};

/// The names of the processes that listen, by port, in every network namespace.
///
/// Has at most one entry of 18 bytes for each listener of the tracker's table, which has a limit.
#[derive(Clone, Debug, Default)]
pub(super) struct Listening(Vec<(u16, [u8; 16])>);

impl Listening {
    /// Collects the listeners of the tracker's table.
    pub(super) fn of(tracker: &Tracker) -> Self {
        Self::new(tracker.listeners().map(|(_, local, process)| (local, process)))
    }

    fn new(listeners: impl Iterator<Item = (Endpoint, Option<Process>)>) -> Self {
        let mut names: Vec<_> =
            listeners.filter_map(|(local, process)| Some((local.port, process?.comm))).collect();
        names.sort_unstable();
        names.dedup();
        Self(names)
    }

    /// Returns the names of the processes that listen on a port, NUL-padded, in order.
    pub(super) fn on(&self, port: u16) -> impl Iterator<Item = [u8; 16]> {
        let from = self.0.partition_point(|&(other, _)| other < port);
        self.0[from..].iter().take_while(move |&&(other, _)| other == port).map(|&(_, name)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_has_the_name_of_each_process_once() {
        let listener = |port, name: Option<&[u8]>| {
            let process = name.map(|name| {
                let mut comm = [0; 16];
                comm[..name.len()].copy_from_slice(name);
                Process { pid: 1, uid: 0, comm }
            });
            (Endpoint { address: "::".parse().unwrap(), port }, process)
        };
        let listening = Listening::new(
            [
                listener(443, Some(b"nginx")),
                listener(80, Some(b"nginx")),
                listener(443, Some(b"envoy")),
                listener(443, Some(b"nginx")),
                listener(22, None),
            ]
            .into_iter(),
        );
        let on = |port| -> Vec<String> {
            listening.on(port).map(|comm| String::from_utf8_lossy(&comm[..5]).into_owned()).collect()
        };
        assert_eq!(on(443), ["envoy", "nginx"]);
        assert_eq!(on(80), ["nginx"]);
        assert!(on(22).is_empty() && on(444).is_empty());
    }
}
