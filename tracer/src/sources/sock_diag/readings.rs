//! Reads the counters of the open connections through the channels of a [`ListenerWatch`], without privileges.

use tracer_core::{
    analysis::{ConnectionCounters, ConnectionDump, ConnectionSnapshot},
    event::{TcpState, Timestamp},
};

use crate::sources::sock_diag::{ListenerWatch, SocketSnapshot, StateSet};

/// Most connections that are read in one dump.
const MAX_READ_CONNECTIONS: usize = 131_072;

/// The states in which payload is sent or received.
const STATES: StateSet = StateSet::NONE
    .with(TcpState::Established)
    .with(TcpState::FinWait1)
    .with(TcpState::FinWait2)
    .with(TcpState::CloseWait)
    .with(TcpState::LastAck)
    .with(TcpState::Closing);

impl ListenerWatch {
    /// Reads the counters of the open connections in every watched namespace, at most [`MAX_READ_CONNECTIONS`]. Stops watching
    /// a namespace whose dump fails.
    pub(crate) fn read_connections(&mut self) -> ConnectionDump {
        let mut dump = ConnectionDump::default();
        self.namespaces.retain(|namespace| {
            let read_at = crate::host::now();
            let mut each = |socket: SocketSnapshot| add(&mut dump, &socket, read_at);
            // An interrupted dump lacks some connections, which the next dump reads. After an error, the channel may still
            // hold the rest of the response.
            namespace.channel.dump(STATES, &mut each).is_ok()
        });
        dump
    }
}

/// Adds a socket with counters to the dump.
fn add(dump: &mut ConnectionDump, socket: &SocketSnapshot, read_at: Timestamp) {
    let Some(info) = &socket.info else { return };
    if dump.connections.len() >= MAX_READ_CONNECTIONS {
        dump.omitted += 1;
        return;
    }
    let counters = ConnectionCounters::from(info);
    dump.connections.push(ConnectionSnapshot { key: socket.key(), read_at, counters });
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
    };

    use tracer_core::event::Endpoint;

    use super::*;
    use crate::sources::sock_diag::Channel;

    #[test]
    fn the_bytes_of_an_open_connection_are_read() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(&[7; 1000]).unwrap();
        server.read_exact(&mut [0; 400]).unwrap();
        let own = Channel::here().unwrap().netns();
        let mut watch = ListenerWatch::open(own);
        let of = |dump: &ConnectionDump, stream: &TcpStream| {
            let local = Endpoint::from(stream.local_addr().unwrap());
            let remote = Endpoint::from(stream.peer_addr().unwrap());
            let found = dump.connections.iter().find(|it| (it.key.local, it.key.remote) == (local, remote));
            *found.unwrap()
        };
        let before = crate::host::now();
        let dump = watch.read_connections();
        let (sent, received) = (of(&dump, &client), of(&dump, &server));
        assert_eq!((sent.counters.bytes_sent, sent.counters.bytes_received), (1000, 0));
        assert_eq!((received.counters.bytes_sent, received.counters.bytes_received), (0, 1000));
        assert_eq!(received.counters.unread_bytes, 600);
        assert!(sent.counters.srtt.is_some() && sent.counters.min_rtt.is_some(), "{sent:?}");
        assert_eq!(sent.key.netns, own);
        assert!(sent.read_at >= before && sent.read_at <= crate::host::now());
        assert_eq!(dump.omitted, 0);
    }

    #[test]
    fn connections_beyond_the_limit_are_counted() {
        let mut dump = ConnectionDump::default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut sockets = Vec::new();
        let channel = Channel::here().unwrap();
        let _ = channel.dump(STATES, &mut |socket| sockets.push(socket)).unwrap();
        let socket = sockets.iter().find(|socket| socket.info.is_some()).unwrap();
        for _ in 0..MAX_READ_CONNECTIONS + 3 {
            add(&mut dump, socket, crate::host::now());
        }
        assert_eq!((dump.connections.len(), dump.omitted), (MAX_READ_CONNECTIONS, 3));
    }
}
