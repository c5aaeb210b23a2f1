//! What stood still when a recording ended, from what the recording told.

use std::{collections::HashMap, sync::Arc};

use super::{AtEnd, Told, report, take};
use crate::{
    cli::{Shared, StuckArguments},
    commands::trace,
    event::{Process, Timestamp},
    lifecycle::{Age, Connection, Standing, TcpState, Tracker},
    owner::Attribution,
};

pub(super) fn run(shared: &Shared, arguments: &StuckArguments) -> anyhow::Result<()> {
    let told = Told::default();
    let mut attribution = None;
    trace::trace(shared, |origin| {
        attribution = Some(origin.attribution);
        AtEnd { ask: standing, told: Arc::clone(&told) }
    })?;
    let standing = take(&told);
    let of = format!("{} sockets that were open when the recording ended", standing.len());
    let attribution =
        attribution.unwrap_or_else(|| Attribution::recorded(crate::owner::RecordedCgroups::default()));
    report(shared, arguments, standing, attribution, &of)
}

/// The connections in the table, the mini-sockets, and the half-open handshakes.
fn standing(tracker: &Tracker, now: Timestamp) -> Vec<Standing> {
    let listeners: HashMap<(Option<u32>, u16), Process> = tracker
        .listeners()
        .filter_map(|(netns, local, process)| Some(((netns, local.port), process?)))
        .collect();
    let connections = tracker.connections().map(|(_, connection)| of_connection(connection, now));
    let remains = tracker.remains().map(|remain| Standing {
        state: remain.state,
        age: Age::Observed(now.since(remain.since)),
        local: remain.local,
        remote: remain.remote,
        netns: remain.netns,
        cgroup_id: None,
        process: None,
        unread_bytes: None,
        unacked_bytes: None,
        ends_in_ns: Some(remain.deadline.since(now)),
    });
    let half_opens = tracker.half_opens().map(|half_open| {
        let age = now.since(half_open.answered);
        Standing {
            state: TcpState::SynReceived,
            age: if half_open.answered_exactly { Age::Observed(age) } else { Age::AtLeast(age) },
            local: half_open.local,
            remote: half_open.remote,
            netns: half_open.netns,
            cgroup_id: None,
            process: listeners.get(&(half_open.netns, half_open.local.port)).copied(),
            unread_bytes: None,
            unacked_bytes: None,
            ends_in_ns: None,
        }
    });
    connections.chain(remains).chain(half_opens).collect()
}

fn of_connection(connection: &Connection, now: Timestamp) -> Standing {
    let age = match connection.history.since() {
        Some(since) => Age::Observed(now.since(since)),
        // It was found in this state, and has not moved since.
        None if !connection.gap => Age::AtLeast(now.since(connection.first_seen)),
        None => Age::AtLeast(0),
    };
    Standing {
        state: connection.state(),
        age,
        local: connection.local,
        remote: connection.remote,
        netns: connection.netns,
        cgroup_id: connection.cgroup_id,
        process: connection.owner.process,
        unread_bytes: None,
        unacked_bytes: None,
        ends_in_ns: None,
    }
}
