//! What systemd is told; without systemd nobody listens.

use std::{sync::Arc, time::Duration};

use sd_notify::NotifyState;
use tokio::task::JoinHandle;

use crate::agent::publisher::SnapshotHandle;

/// Tracing has begun.
pub(crate) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// It ends.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tells systemd that all is well, twice in the time that it gives, while events are being read; when they
/// are not, systemd starts the daemon anew.
pub(crate) fn watchdog(snapshots: Arc<SnapshotHandle>) -> Option<JoinHandle<()>> {
    let limit = sd_notify::watchdog_enabled()?;
    let every = (limit / 2).max(Duration::from_millis(10));
    Some(tokio::spawn(async move {
        let mut ticks = tokio::time::interval(every);
        loop {
            ticks.tick().await;
            if snapshots.is_alive() || snapshots.has_ended() {
                tell(&[NotifyState::Watchdog]);
            } else {
                tracing::error!("no events have been read for some seconds; the watchdog is not told");
            }
        }
    }))
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!("systemd could not be told: {error}");
    }
}
