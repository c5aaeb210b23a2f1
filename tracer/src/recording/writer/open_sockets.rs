//! Writes the open sockets that a tracker knows, so that a file can be read without those before it.

use std::{
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU32,
};

use tracer_core::{
    event::{
        Endpoint, Event, ExistingSocket, ExistingTimewait, SocketCookie, TcpState, Timestamp, Translated,
    },
    lifecycle::{TimewaitSocket, Tracker},
};

use crate::{host::CgroupResolver, recording::Writer};

/// Writes the listeners, connections, timewait sockets and translations in the table as a socket dump would list them.
///
/// # Errors
///
/// When the write fails.
pub(crate) fn write_open_sockets<W: Write>(
    writer: &mut Writer<W>,
    tracker: &Tracker,
    now: Timestamp,
    resolver: &mut CgroupResolver,
) -> io::Result<()> {
    for translated in tracker.translations() {
        writer.event(&Event::Translated(Translated { time: now, ..translated }), resolver)?;
    }
    for socket in existing(tracker, now) {
        writer.event(&Event::Existing(socket), resolver)?;
    }
    for socket in tracker.timewait_sockets() {
        let TimewaitSocket { state, timer_due, local, remote, netns, .. } = socket;
        let event =
            Event::ExistingTimewait(ExistingTimewait { time: now, state, timer_due, local, remote, netns });
        writer.event(&event, resolver)?;
    }
    writer.event(&Event::DumpEnd { started: now, timewait: true }, resolver)
}

/// Returns every listener and connection in the table as a socket dump would.
fn existing(tracker: &Tracker, now: Timestamp) -> impl Iterator<Item = ExistingSocket> + '_ {
    let listeners = tracker.listeners().enumerate().map(move |(index, (netns, local, process))| {
        let address = match local.address {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        ExistingSocket {
            time: now,
            cookie: SocketCookie(index as u64),
            state: TcpState::Listen,
            state_age: None,
            local,
            remote: Endpoint { address, port: 0 },
            process,
            netns,
            cgroup_id: None,
            info: None,
            interface: None,
        }
    });
    let connections = tracker.connections().map(move |(socket, connection)| ExistingSocket {
        time: now,
        // The table identifies a dumped socket by the complement of its cookie. The complement of the identity
        // therefore restores it, and the next transition finds the connection.
        cookie: SocketCookie(!socket.0),
        state: connection.state(),
        state_age: connection.history.since().map(|since| now.since(since)),
        local: connection.local,
        remote: connection.remote,
        process: connection.owner.process,
        netns: connection.netns,
        cgroup_id: connection.cgroup_id,
        info: None,
        interface: connection.interface.map(NonZeroU32::get),
    });
    listeners.chain(connections)
}
