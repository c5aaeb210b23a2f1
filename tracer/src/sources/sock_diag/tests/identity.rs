//! Which socket it is: addresses, state, cookie, owner, and the filters on them.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::linux::fs::MetadataExt,
};

use tracer_core::event::{Endpoint, TcpState};

use crate::sources::sock_diag::{
    Filter, Shutdown, SockDiagError, StateSet, TimerKind, dump_namespace,
    tests::support::{connect, cookie, defer_accept, inode, list, listen, named, pair, wait_for, wait_in},
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
    assert_eq!(received.end_of_stream_unread(), Some(false));
    let info = received.info.unwrap();
    assert_eq!((info.bytes_received, info.bytes_sent, info.unread_bytes), (1000, 0, 600));
    assert!(info.srtt_us.is_some_and(|srtt| srtt < 1_000_000));
    let info = sent.info.unwrap();
    assert_eq!((info.bytes_received, info.bytes_sent, info.unacked_bytes), (0, 1000, 0));
    assert!(info.segments_sent >= 3 && info.segments_received >= 2 && info.mss >= 536);
    assert!(info.min_rtt_us.is_some());

    for (socket, stream) in [(received, &server), (sent, &client)] {
        let (local, remote) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        assert_eq!(socket.local, Endpoint { address: LOCALHOST, port: local.port() });
        assert_eq!(socket.remote, Endpoint { address: LOCALHOST, port: remote.port() });
        assert_eq!(socket.inode, Some(inode(stream)));
        assert_eq!(socket.uid, Some(rustix::process::getuid().as_raw()));
        assert_eq!(socket.interface, None);
        assert_eq!(socket.shutdown, Some(Shutdown { receive: false, send: false }));
        assert!(socket.memory.unwrap().receive_limit > 0);
        assert!(socket.cgroup_id.is_some());
        let netns = std::fs::metadata("/proc/self/ns/net").unwrap().st_ino();
        assert_eq!(socket.netns.map(u64::from), Some(netns));
        assert_eq!(named(socket.cookie).len(), 1);
    }
}

#[test]
fn mini_sockets_keep_the_cookie() {
    let (client, server) = pair();
    let cookie = cookie(&client);
    drop(client);
    let orphan = wait_for(cookie, |socket| socket.state == TcpState::FinWait2 && socket.mini);
    assert_eq!((orphan.inode, orphan.uid), (None, None));
    assert_eq!((orphan.info, orphan.memory, orphan.cgroup_id), (None, None, None));
    assert_eq!((orphan.unread_bytes(), orphan.unacknowledged_bytes()), (None, None));

    drop(server);
    let ended = wait_for(cookie, |socket| socket.state == TcpState::TimeWait);
    assert!(ended.mini && !ended.request);
    assert_eq!((ended.local, ended.remote), (orphan.local, orphan.remote));
    let timer = ended.timer.unwrap();
    assert_eq!(timer.kind, TimerKind::TimeWait);
    assert!((30_000..=60_000).contains(&timer.expires_ms), "{timer:?}");
}

#[test]
fn ipv6_stays_ipv6() {
    let listener = listen("[::1]:0");
    let (client, server) = connect(&listener, "::1");
    let address = IpAddr::V6(Ipv6Addr::LOCALHOST);
    for stream in [&client, &server] {
        let found = named(cookie(stream));
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].local.address, found[0].remote.address), (address, address));
    }
    let filter =
        Filter { ipv6: false, local_port: Some(listener.local_addr().unwrap().port()), ..Filter::default() };
    assert_eq!(list(&filter), []);
}

#[test]
fn mapped_connections_are_ipv4_and_come_once() {
    let listener = listen("[::]:0");
    let port = listener.local_addr().unwrap().port();
    let (client, server) = connect(&listener, "127.0.0.1");
    let server_cookie = cookie(&server);

    let found = named(server_cookie);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].local, Endpoint { address: LOCALHOST, port });
    assert_eq!(found[0].remote.address, LOCALHOST);
    assert_eq!(found[0].remote.port, client.local_addr().unwrap().port());
    let found = named(cookie(&listener));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].local, Endpoint { address: Ipv6Addr::UNSPECIFIED.into(), port });
    assert_eq!(found[0].v6_only, Some(false));

    let on_port = Filter { local_port: Some(port), ..Filter::default() };
    let cookies = |filter| list(&filter).iter().map(|socket| socket.cookie).collect::<Vec<_>>();
    assert_eq!(cookies(Filter { ipv6: false, ..on_port }), [server_cookie]);
    assert_eq!(cookies(Filter { ipv4: false, ..on_port }), [cookie(&listener)]);

    drop(server);
    drop(client);
    let ended = wait_for(server_cookie, |socket| socket.state == TcpState::TimeWait);
    assert_eq!(ended.local, Endpoint { address: LOCALHOST, port });
}

#[test]
fn half_open_requests_are_syn_received() {
    for (bound, address) in
        [("127.0.0.1:0", LOCALHOST), ("[::]:0", LOCALHOST), ("[::1]:0", Ipv6Addr::LOCALHOST.into())]
    {
        let listener = listen(bound);
        defer_accept(&listener);
        let port = listener.local_addr().unwrap().port();
        let client = std::net::TcpStream::connect((address, port)).unwrap();
        let filter = Filter {
            local_port: Some(port),
            states: StateSet::NONE.with(TcpState::SynReceived),
            ..Filter::default()
        };
        let request = wait_in(&filter, |_| true);
        assert!(request.request && !request.mini, "{bound}");
        assert_eq!(request.state, TcpState::SynReceived);
        assert_eq!(request.local, Endpoint { address, port });
        let remote = Endpoint { address, port: client.local_addr().unwrap().port() };
        assert_eq!(request.remote, remote);
        assert_eq!(request.timer.map(|timer| timer.kind), Some(TimerKind::Retransmit));
        assert_eq!((request.inode, request.uid, request.info), (None, None, None));
    }
}

#[test]
fn filters_choose_by_state_and_port() {
    let listener = listen("127.0.0.1:0");
    let port = listener.local_addr().unwrap().port();
    let (client, server) = connect(&listener, "127.0.0.1");
    let cookies = |filter: Filter| {
        let mut cookies: Vec<_> = list(&filter).iter().map(|socket| socket.cookie).collect();
        cookies.sort_unstable();
        cookies
    };
    let [listener, client, server] = [cookie(&listener), cookie(&client), cookie(&server)];
    let mut both = [listener, server];
    both.sort_unstable();
    let all = Filter::default();
    assert_eq!(cookies(Filter { local_port: Some(port), ..all }), both);
    assert_eq!(cookies(Filter { remote_port: Some(port), ..all }), [client]);
    let listening = StateSet::NONE.with(TcpState::Listen);
    assert_eq!(cookies(Filter { local_port: Some(port), states: listening, ..all }), [listener]);
    assert!(cookies(Filter { local_port: Some(port), states: StateSet::NONE, ..all }).is_empty());
}

#[test]
fn a_file_that_is_no_namespace_is_refused() {
    let file = std::fs::File::open("/proc/self/status").unwrap();
    let error = dump_namespace(&file, &mut |_| {}, &Filter::default()).unwrap_err();
    assert!(matches!(error, SockDiagError::NotNamespace), "{error}");
}
