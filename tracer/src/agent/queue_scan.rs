//! Looking at the accept queues of listeners that can be looked at, at most once a second.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracer_core::event::TcpState;

use crate::{
    agent::metrics::LiveQueues,
    host::{NetnsLimits, enumerate_netns},
    sources::sock_diag::{Channel, Filter, SockDiagError, StateSet},
};

/// How long a look is good for.
const LASTING: Duration = Duration::from_secs(1);

/// Who looks, and what was found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listeners(Arc<Mutex<QueueScan>>);

#[derive(Debug, Default)]
struct QueueScan {
    channel: Option<Channel>,
    /// It is this process's own namespace, so a channel that failed can be opened again without privileges.
    own: bool,
    looked: Option<Instant>,
    found: LiveQueues,
}

impl Listeners {
    /// Opens what is needed for looking into a network namespace, or that of this process; while the privileges are
    /// there that entering another one takes. Where it cannot be looked into, nothing will be found.
    pub(crate) fn open(netns: Option<u32>) -> Self {
        let (channel, own) = match Channel::here() {
            Ok(here) if netns.is_none() || netns == here.netns() => (Some(here), true),
            Ok(_) => (netns.and_then(another), false),
            Err(error) => {
                tracing::warn!("accept queues are shown as connections find them: {error}");
                (None, false)
            }
        };
        Self(Arc::new(Mutex::new(QueueScan { channel, own, ..QueueScan::default() })))
    }

    /// The queues, as they were at most a second ago. Takes as long as the kernel does.
    pub(crate) fn queues(&self) -> LiveQueues {
        let mut look = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if look.looked.is_none_or(|looked| looked.elapsed() >= LASTING) {
            look.look();
        }
        look.found.clone()
    }
}

impl QueueScan {
    fn look(&mut self) {
        self.looked = Some(Instant::now());
        if self.channel.is_none() && self.own {
            self.channel = Channel::here().ok();
        }
        let Self { channel, found, .. } = self;
        let Some(channel) = channel else { return };
        found.begin(channel.netns());
        match walk(channel, found) {
            Ok(()) => found.end(),
            Err(error) => {
                tracing::warn!("the listening sockets could not be looked at: {error}");
                found.begin(None);
                // The rest of an answer may still be in it.
                self.channel = None;
            }
        }
    }
}

/// Takes the listeners in; after an interrupted walk once more.
fn walk(channel: &Channel, found: &mut LiveQueues) -> Result<(), SockDiagError> {
    let filter = Filter { states: StateSet::NONE.with(TcpState::Listen), ..Filter::default() };
    for _ in 0..2 {
        let mut each = |socket: crate::sources::sock_diag::SocketSnapshot| {
            if let Some(queue) = socket.accept_queue {
                found.see(socket.local.port, queue);
            }
        };
        if !channel.dump(&mut each, &filter)?.interrupted {
            break;
        }
    }
    Ok(())
}

/// A channel into another namespace; none when it cannot be found or entered.
fn another(netns: u32) -> Option<Channel> {
    let namespaces = enumerate_netns(Path::new("/proc"), NetnsLimits::default()).ok()?.namespaces;
    let namespace = namespaces.into_iter().find(|it| it.inode == netns)?.open().ok()?;
    match Channel::into_namespace(namespace) {
        Ok(channel) => Some(channel),
        Err(error) => {
            tracing::warn!("accept queues are shown as connections find them: {error}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_lasts_a_second_and_a_failed_channel_is_replaced() {
        let listeners = Listeners::open(None);
        listeners.queues();
        let mut look = listeners.0.lock().unwrap();
        let first = look.looked.unwrap();
        look.channel = None;
        drop(look);
        listeners.queues();
        assert_eq!(listeners.0.lock().unwrap().looked, Some(first));
        listeners.0.lock().unwrap().looked = first.checked_sub(LASTING);
        listeners.queues();
        assert!(listeners.0.lock().unwrap().channel.is_some());
    }

    #[test]
    fn where_nobody_can_look_nothing_is_found() {
        // No namespace has this number.
        let listeners = Listeners::open(Some(1));
        listeners.queues();
        assert!(listeners.0.lock().unwrap().channel.is_none());
    }
}
