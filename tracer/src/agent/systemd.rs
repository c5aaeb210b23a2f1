//! Notifies systemd. Without systemd, the notifications go nowhere.

use std::{sync::Arc, time::Duration};

use sd_notify::NotifyState;
use tokio::task::JoinHandle;

use crate::agent::publisher::SnapshotHandle;

/// Reports that tracing has started.
pub(crate) fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Changes the status that `systemctl status` shows.
pub(crate) fn status(text: &str) {
    notify(&[NotifyState::Status(text)]);
}

/// Reports that the agent is stopping.
pub(crate) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Feeds the watchdog twice per interval while the tracing thread reads events. Otherwise systemd restarts the agent.
pub(crate) fn watchdog(snapshots: Arc<SnapshotHandle>) -> Option<JoinHandle<()>> {
    let limit = sd_notify::watchdog_enabled()?;
    let interval = (limit / 2).max(Duration::from_millis(10));
    Some(tokio::spawn(async move {
        let mut ticks = tokio::time::interval(interval);
        loop {
            ticks.tick().await;
            if snapshots.is_alive() || snapshots.has_ended() {
                notify(&[NotifyState::Watchdog]);
            } else {
                tracing::error!("the tracing thread is stalled; the watchdog is not notified");
            }
        }
    }))
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!("systemd could not be notified: {error}");
    }
}
