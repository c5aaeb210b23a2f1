//! Reads the accept queues and the drops of listeners when a page is made, at most once a second.

use std::{
    io,
    os::fd::AsFd as _,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracer_core::event::{Netns, TcpState};

use crate::{
    agent::metrics::{ListenerFigures, LiveQueues, PortDropCounter},
    host::{ListenDrops, NetnsLimits, NetstatFile, enumerate_netns},
    sources::sock_diag::{Channel, DumpReport, SockDiagError, SocketSnapshot, StateSet, in_namespace},
};

/// How long the result of a dump is reused.
const MAX_AGE: Duration = Duration::from_secs(1);

/// A shared handle that reads the listeners of one network namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListenerScan(Arc<Mutex<ScanState>>);

#[derive(Debug, Default)]
struct ScanState {
    channel: Option<Channel>,
    /// The namespace is this process's own, so a failed channel can be reopened without privileges.
    own: bool,
    dumped_at: Option<Instant>,
    queues: LiveQueues,
    drops: PortDropCounter,
    netstat: Option<NetstatFile>,
    /// The kernel's counts when the scan was opened.
    first_causes: ListenDrops,
    causes: ListenDrops,
}

impl ListenerScan {
    /// Opens a sock_diag channel into a network namespace, by default this process's own, and takes the first dump: drops
    /// count from here. Another namespace requires privileges, so call this before they are dropped. Without a channel,
    /// the scan finds no listeners and logs a warning.
    pub(crate) fn open(netns: Option<Netns>) -> Self {
        let mut state = ScanState::default();
        match Channel::here() {
            Ok(here) if netns.is_none() || netns == here.netns() => {
                (state.channel, state.own) = (Some(here), true);
                state.netstat = warned_netstat(NetstatFile::here());
            }
            Ok(_) => {
                if let Some((channel, netstat)) = netns.and_then(warned_channel_into) {
                    (state.channel, state.netstat) = (Some(channel), warned_netstat(netstat));
                }
            }
            Err(error) => tracing::warn!("accept queues come only from arriving connections: {error}"),
        }
        state.first_causes = state.read_causes().unwrap_or_default();
        state.dump();
        Self(Arc::new(Mutex::new(state)))
    }

    /// Returns the figures, at most [`MAX_AGE`] old. May block for the duration of a dump.
    pub(crate) fn figures(&self) -> ListenerFigures {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.dumped_at.is_none_or(|dumped_at| dumped_at.elapsed() >= MAX_AGE) {
            state.dump();
        }
        ListenerFigures { queues: state.queues.clone(), drops: state.drops.copy(), causes: state.causes }
    }
}

impl ScanState {
    fn dump(&mut self) {
        self.dumped_at = Some(Instant::now());
        if let Some(causes) = self.read_causes() {
            self.causes = causes.since(&self.first_causes);
        }
        if self.channel.is_none() && self.own {
            match Channel::here() {
                Ok(channel) => self.channel = Some(channel),
                Err(error) => tracing::warn!("the listening sockets could not be dumped: {error}"),
            }
        }
        let Self { channel, queues, drops, .. } = self;
        let Some(channel) = channel else {
            queues.fail();
            return;
        };
        queues.begin(channel.netns());
        drops.begin();
        match dump(channel, queues, drops) {
            Ok(report) => {
                let is_complete = report == DumpReport::default();
                queues.end();
                drops.end(is_complete);
                if !is_complete {
                    tracing::debug!("the dump of the listening sockets is incomplete");
                    queues.fail();
                }
            }
            Err(error) => {
                tracing::warn!("the listening sockets could not be dumped: {error}");
                queues.begin(None);
                queues.fail();
                drops.end(false);
                // The socket may still hold the rest of the response.
                self.channel = None;
            }
        }
    }

    fn read_causes(&self) -> Option<ListenDrops> {
        match self.netstat.as_ref()?.read() {
            Ok(causes) => Some(causes),
            Err(error) => {
                tracing::debug!("/proc/net/netstat could not be read: {error}");
                None
            }
        }
    }
}

/// Dumps the listeners. Repeats an interrupted dump once, and returns the last report.
fn dump(
    channel: &Channel,
    queues: &mut LiveQueues,
    drops: &mut PortDropCounter,
) -> Result<DumpReport, SockDiagError> {
    let mut attempt = || {
        let mut each = |socket: SocketSnapshot| {
            if let Some(queue) = socket.accept_queue {
                queues.see(socket.local.port, queue);
            }
            if let Some(count) = socket.drops {
                drops.see(socket.cookie, socket.local.port, count);
            }
        };
        channel.dump(StateSet::NONE.with(TcpState::Listen), &mut each)
    };
    let report = attempt()?;
    if report.interrupted { attempt() } else { Ok(report) }
}

/// Logs an error and returns `None`.
fn warned_netstat(opened: io::Result<NetstatFile>) -> Option<NetstatFile> {
    match opened {
        Ok(file) => Some(file),
        Err(error) => {
            tracing::warn!("the causes of drops by listeners are unknown: /proc/net/netstat: {error}");
            None
        }
    }
}

/// Opens a channel into another namespace. Logs an error and returns `None`.
fn warned_channel_into(netns: Netns) -> Option<(Channel, io::Result<NetstatFile>)> {
    match channel_into(netns) {
        Ok(opened) => Some(opened),
        Err(error) => {
            tracing::warn!("accept queues come only from arriving connections: {error}");
            None
        }
    }
}

fn channel_into(netns: Netns) -> Result<(Channel, io::Result<NetstatFile>), String> {
    let namespaces = enumerate_netns(Path::new("/proc"), NetnsLimits::default())
        .map_err(|error| format!("the network namespaces cannot be listed: {error}"))?
        .namespaces;
    let namespace = namespaces
        .into_iter()
        .find(|it| it.netns == netns)
        .ok_or_else(|| format!("no process or mount with the network namespace {netns} was found"))?;
    let namespace =
        namespace.open().map_err(|error| format!("cannot open the network namespace {netns}: {error}"))?;
    let channel = Channel::into_namespace(&namespace).map_err(|error| error.to_string())?;
    let netstat =
        in_namespace(namespace.as_fd(), || Ok(NetstatFile::here())).map_err(|error| error.to_string())?;
    Ok((channel, netstat))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_is_reused_for_a_second_and_a_failed_channel_is_replaced() {
        let scan = ListenerScan::open(None);
        scan.figures();
        let mut state = scan.0.lock().unwrap();
        let first = state.dumped_at.unwrap();
        state.channel = None;
        drop(state);
        scan.figures();
        assert_eq!(scan.0.lock().unwrap().dumped_at, Some(first));
        scan.0.lock().unwrap().dumped_at = first.checked_sub(MAX_AGE);
        scan.figures();
        assert!(scan.0.lock().unwrap().channel.is_some());
    }

    #[test]
    fn the_drops_of_this_namespace_count_from_the_start() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let scan = ListenerScan::open(None);
        let ListenerFigures { drops, causes, .. } = scan.figures();
        let port = listener.local_addr().unwrap().port();
        let drops = format!("{drops:?}");
        assert!(drops.contains(&format!("({port}, 0)")), "{drops}");
        assert!(causes.listen_overflows.is_some() && causes.listen_drops.is_some(), "{causes:?}");
    }

    #[test]
    fn a_dump_without_a_channel_is_a_failure() {
        // No namespace has this inode.
        let scan = ListenerScan::open(Some(Netns(1)));
        assert_eq!(scan.figures().queues.failures(), 1);
        assert!(scan.0.lock().unwrap().channel.is_none());
    }
}
