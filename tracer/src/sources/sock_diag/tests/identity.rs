//! Addresses, state, cookie and namespace of dumped sockets, and the selection by state.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::linux::fs::MetadataExt,
};

use tracer_core::event::{Endpoint, Micros, TcpState};

use crate::sources::sock_diag::{
    Channel, SockDiagError, StateSet, TimerKind,
    tests::support::{
        connect, cookie, defer_accept, established_on, inode, list, listen, pair, wait_for, wait_in,
        with_cookie,
    },
};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[test]
fn a_connection_has_its_identity_and_counters() {
    let (mut client, mut server) = pair();
    client.write_all(&[7; 1000]).unwrap();
    server.read_exact(&mut [0; 400]).unwrap();

    let received = wait_for(cookie(&server), |socket| socket.rqueue == 600);
    let sent = wait_for(cookie(&client), |socket| socket.wqueue == 0);
    assert_eq!(received.state, TcpState::Established);
    assert!(received.is_full());
    assert_eq!((received.unread_bytes(), received.unacknowledged_bytes()), (Some(600), Some(0)));
    let info = received.info.unwrap();
    assert_eq!((info.bytes_received, info.bytes_sent, info.unread_bytes), (1000, 0, 600));
    assert!(info.srtt.is_some_and(|srtt| srtt < Micros(1_000_000)));
    let info = sent.info.unwrap();
    assert_eq!((info.bytes_received, info.bytes_sent, info.unacked_bytes), (0, 1000, 0));
    assert!(info.segments_sent >= 3 && info.segments_received >= 2 && info.mss >= 536);
    assert!(info.min_rtt.is_some());

    for (socket, stream) in [(received, &server), (sent, &client)] {
        let (local, remote) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        assert_eq!(socket.local, Endpoint { address: LOCALHOST, port: local.port() });
        assert_eq!(socket.remote, Endpoint { address: LOCALHOST, port: remote.port() });
        assert_eq!(socket.inode, Some(inode(stream)));
        assert_eq!(socket.drops, Some(0));
        assert!(socket.cgroup_id.is_some());
        let netns = std::fs::metadata("/proc/self/ns/net").unwrap().st_ino();
        assert_eq!(socket.netns.map(|it| u64::from(it.0)), Some(netns));
        assert_eq!(with_cookie(socket.cookie).len(), 1);
    }
}

#[test]
fn timewait_sockets_keep_the_cookie() {
    let (client, server) = pair();
    let cookie = cookie(&client);
    drop(client);
    let orphan = wait_for(cookie, |socket| socket.state == TcpState::FinWait2 && socket.timewait);
    assert_eq!((orphan.inode, orphan.info), (None, None));
    assert_eq!((orphan.drops, orphan.cgroup_id), (None, None));
    assert_eq!((orphan.unread_bytes(), orphan.unacknowledged_bytes()), (None, None));

    drop(server);
    let ended = wait_for(cookie, |socket| socket.state == TcpState::TimeWait);
    assert!(ended.timewait && !ended.request);
    assert_eq!((ended.local, ended.remote), (orphan.local, orphan.remote));
    let timer = ended.timer.unwrap();
    assert_eq!(timer.kind, TimerKind::TimeWait);
    assert!((30_000..=60_000).contains(&timer.expires.0), "{timer:?}");
}

#[test]
fn ipv6_stays_ipv6() {
    let listener = listen("[::1]:0");
    let (client, server) = connect(&listener, "::1");
    let address = IpAddr::V6(Ipv6Addr::LOCALHOST);
    for stream in [&client, &server] {
        let found = with_cookie(cookie(stream));
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].local.address, found[0].remote.address), (address, address));
    }
}

#[test]
fn mapped_connections_are_ipv4_and_dumped_once() {
    let listener = listen("[::]:0");
    let port = listener.local_addr().unwrap().port();
    let (client, server) = connect(&listener, "127.0.0.1");
    let server_cookie = cookie(&server);

    let found = with_cookie(server_cookie);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].local, Endpoint { address: LOCALHOST, port });
    assert_eq!(found[0].remote.address, LOCALHOST);
    assert_eq!(found[0].remote.port, client.local_addr().unwrap().port());
    let found = with_cookie(cookie(&listener));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].local, Endpoint { address: Ipv6Addr::UNSPECIFIED.into(), port });
    assert_eq!(established_on(port).len(), 1);

    drop(server);
    drop(client);
    let ended = wait_for(server_cookie, |socket| socket.state == TcpState::TimeWait);
    assert_eq!(ended.local, Endpoint { address: LOCALHOST, port });
}

#[test]
fn request_sockets_are_syn_received() {
    for (bound, address) in
        [("127.0.0.1:0", LOCALHOST), ("[::]:0", LOCALHOST), ("[::1]:0", Ipv6Addr::LOCALHOST.into())]
    {
        let listener = listen(bound);
        defer_accept(&listener);
        let port = listener.local_addr().unwrap().port();
        let client = std::net::TcpStream::connect((address, port)).unwrap();
        let syn_received = StateSet::NONE.with(TcpState::SynReceived);
        let request = wait_in(syn_received, |socket| socket.local.port == port);
        assert!(request.request && !request.timewait, "{bound}");
        assert_eq!(request.state, TcpState::SynReceived);
        assert_eq!(request.local, Endpoint { address, port });
        let remote = Endpoint { address, port: client.local_addr().unwrap().port() };
        assert_eq!(request.remote, remote);
        assert_eq!(request.timer.map(|timer| timer.kind), Some(TimerKind::Retransmit));
        assert_eq!((request.inode, request.info), (None, None));
    }
}

#[test]
fn a_dump_has_only_sockets_in_the_requested_states() {
    let listener = listen("127.0.0.1:0");
    let (client, _server) = connect(&listener, "127.0.0.1");
    let listeners = list(StateSet::NONE.with(TcpState::Listen));
    assert!(listeners.iter().any(|socket| socket.cookie == cookie(&listener)));
    assert!(listeners.iter().all(|socket| socket.state == TcpState::Listen));
    let established = list(StateSet::NONE.with(TcpState::Established));
    assert!(established.iter().any(|socket| socket.cookie == cookie(&client)));
    assert_eq!(list(StateSet::NONE), []);
}

#[test]
fn a_file_that_is_not_a_namespace_is_refused() {
    let file = std::fs::File::open("/proc/self/status").unwrap();
    let error = Channel::into_namespace(&file).unwrap_err();
    assert!(matches!(error, SockDiagError::NotNamespace), "{error}");
}
