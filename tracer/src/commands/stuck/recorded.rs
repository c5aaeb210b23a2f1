//! Stuck connections at the end of a recording.

use std::{collections::HashMap, num::NonZeroU32};

use tracer_core::{
    counted::counted,
    event::{Netns, Process, TcpState, Timestamp},
    lifecycle::{Age, Connection, StuckConnection, Tracker},
};

use crate::{
    cli::{Shared, StuckArguments},
    commands::{
        stuck::{AtEnd, AtEndValue, report, take},
        trace,
    },
    host::CgroupResolver,
};

pub(super) fn run(shared: &Shared, arguments: &StuckArguments) -> anyhow::Result<()> {
    let value = AtEndValue::default();
    let mut resolver = None;
    trace::trace(shared, |origin| {
        resolver = Some(origin.resolver);
        AtEnd::new(shared, stuck, &value)
    })?;
    let stuck = take(&value);
    let of = format!("{} open when the recording ended", counted(stuck.len(), "socket"));
    let resolver =
        resolver.unwrap_or_else(|| CgroupResolver::recorded(crate::host::RecordedCgroups::default()));
    report(shared, arguments, stuck, resolver, &of)
}

/// Returns the connections in the table, the timewait sockets and the half-open handshakes.
fn stuck(tracker: &Tracker, now: Timestamp) -> Vec<StuckConnection> {
    let listeners: HashMap<(Option<Netns>, u16), Process> = tracker
        .listeners()
        .filter_map(|(netns, local, process)| Some(((netns, local.port), process?)))
        .collect();
    let connections = tracker.connections().map(|(_, connection)| of_connection(connection, now));
    let timewait_sockets = tracker.timewait_sockets().map(|socket| StuckConnection {
        state: socket.state,
        age: tracker.timewait_age(&socket, now),
        local: socket.local,
        remote: socket.remote,
        netns: socket.netns,
        cgroup_id: None,
        process: None,
        interface: None,
        unread_bytes: None,
        unacked_bytes: None,
        ends_in: Some(socket.timer_due.since(now)),
        not_accepted: None,
    });
    let half_opens = tracker.half_opens().map(|half_open| {
        let age = now.since(half_open.answered);
        StuckConnection {
            state: TcpState::SynReceived,
            age: if half_open.answered_exactly { Age::Observed(age) } else { Age::AtLeast(age) },
            local: half_open.local,
            remote: half_open.remote,
            netns: half_open.netns,
            cgroup_id: None,
            process: listeners.get(&(half_open.netns, half_open.local.port)).copied(),
            interface: None,
            unread_bytes: None,
            unacked_bytes: None,
            ends_in: None,
            not_accepted: None,
        }
    });
    connections.chain(timewait_sockets).chain(half_opens).collect()
}

fn of_connection(connection: &Connection, now: Timestamp) -> StuckConnection {
    StuckConnection {
        state: connection.state(),
        age: Age::of(connection, now),
        local: connection.local,
        remote: connection.remote,
        netns: connection.netns,
        cgroup_id: connection.cgroup_id,
        process: connection.owner.process,
        interface: connection.interface.map(NonZeroU32::get),
        unread_bytes: None,
        unacked_bytes: None,
        ends_in: None,
        not_accepted: None,
    }
}
