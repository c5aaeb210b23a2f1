//! Dumps the accept queues of listeners with sock_diag, at most once a second.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracer_core::event::{Netns, TcpState};

use crate::{
    agent::metrics::LiveQueues,
    host::{NetnsLimits, enumerate_netns},
    sources::sock_diag::{Channel, DumpReport, SockDiagError, SocketSnapshot, StateSet},
};

/// How long the result of a dump is reused.
const MAX_AGE: Duration = Duration::from_secs(1);

/// A shared handle that dumps the listeners of one network namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct QueueScan(Arc<Mutex<ScanState>>);

#[derive(Debug, Default)]
struct ScanState {
    channel: Option<Channel>,
    /// The namespace is this process's own, so a failed channel can be reopened without privileges.
    own: bool,
    dumped_at: Option<Instant>,
    queues: LiveQueues,
}

impl QueueScan {
    /// Opens a sock_diag channel into a network namespace, by default this process's own. Another namespace requires
    /// privileges, so call this before they are dropped. Without a channel, the scan finds no listeners and logs a
    /// warning.
    pub(crate) fn open(netns: Option<Netns>) -> Self {
        let (channel, own) = match Channel::here() {
            Ok(here) if netns.is_none() || netns == here.netns() => (Some(here), true),
            Ok(_) => (netns.and_then(warned_channel_into), false),
            Err(error) => {
                tracing::warn!("accept queues come only from arriving connections: {error}");
                (None, false)
            }
        };
        Self(Arc::new(Mutex::new(ScanState { channel, own, ..ScanState::default() })))
    }

    /// Returns the queues, at most [`MAX_AGE`] old. May block for the duration of a dump.
    pub(crate) fn queues(&self) -> LiveQueues {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.dumped_at.is_none_or(|dumped_at| dumped_at.elapsed() >= MAX_AGE) {
            state.dump();
        }
        state.queues.clone()
    }
}

impl ScanState {
    fn dump(&mut self) {
        self.dumped_at = Some(Instant::now());
        if self.channel.is_none() && self.own {
            match Channel::here() {
                Ok(channel) => self.channel = Some(channel),
                Err(error) => tracing::warn!("the listening sockets could not be dumped: {error}"),
            }
        }
        let Self { channel, queues, .. } = self;
        let Some(channel) = channel else {
            queues.fail();
            return;
        };
        queues.begin(channel.netns());
        match dump(channel, queues) {
            Ok(report) => {
                queues.end();
                if report.interrupted || report.malformed > 0 {
                    tracing::debug!("the dump of the listening sockets is incomplete");
                    queues.fail();
                }
            }
            Err(error) => {
                tracing::warn!("the listening sockets could not be dumped: {error}");
                queues.begin(None);
                queues.fail();
                // The socket may still hold the rest of the response.
                self.channel = None;
            }
        }
    }
}

/// Dumps the listeners. Repeats an interrupted dump once, and returns the last report.
fn dump(channel: &Channel, queues: &mut LiveQueues) -> Result<DumpReport, SockDiagError> {
    let mut attempt = || {
        let mut each = |socket: SocketSnapshot| {
            if let Some(queue) = socket.accept_queue {
                queues.see(socket.local.port, queue);
            }
        };
        channel.dump(StateSet::NONE.with(TcpState::Listen), &mut each)
    };
    let report = attempt()?;
    if report.interrupted { attempt() } else { Ok(report) }
}

/// Opens a channel into another namespace. Logs an error and returns `None`.
fn warned_channel_into(netns: Netns) -> Option<Channel> {
    match channel_into(netns) {
        Ok(channel) => Some(channel),
        Err(error) => {
            tracing::warn!("accept queues come only from arriving connections: {error}");
            None
        }
    }
}

fn channel_into(netns: Netns) -> Result<Channel, String> {
    let namespaces = enumerate_netns(Path::new("/proc"), NetnsLimits::default())
        .map_err(|error| format!("the network namespaces cannot be listed: {error}"))?
        .namespaces;
    let namespace = namespaces
        .into_iter()
        .find(|it| it.netns == netns)
        .ok_or_else(|| format!("no process or mount with the network namespace {netns} was found"))?;
    let namespace =
        namespace.open().map_err(|error| format!("cannot open the network namespace {netns}: {error}"))?;
    Channel::into_namespace(namespace).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_is_reused_for_a_second_and_a_failed_channel_is_replaced() {
        let scan = QueueScan::open(None);
        scan.queues();
        let mut state = scan.0.lock().unwrap();
        let first = state.dumped_at.unwrap();
        state.channel = None;
        drop(state);
        scan.queues();
        assert_eq!(scan.0.lock().unwrap().dumped_at, Some(first));
        scan.0.lock().unwrap().dumped_at = first.checked_sub(MAX_AGE);
        scan.queues();
        assert!(scan.0.lock().unwrap().channel.is_some());
    }

    #[test]
    fn a_dump_without_a_channel_is_a_failure() {
        // No namespace has this inode.
        let scan = QueueScan::open(Some(Netns(1)));
        assert_eq!(scan.queues().failures(), 1);
        assert!(scan.0.lock().unwrap().channel.is_none());
    }
}
