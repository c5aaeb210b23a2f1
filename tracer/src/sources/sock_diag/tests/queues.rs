//! Queues, timers and the time since the last acknowledgement, which identify stuck connections.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Shutdown},
    time::{Duration, Instant},
};

use rustix::net::sockopt;
use tracer_core::event::{AcceptQueue, Endpoint, Millis, Nanos, TcpState};

use crate::sources::sock_diag::{
    TimerKind,
    tests::support::{
        LIMIT, begin_connect, cookie, established_on, inode, listen, pair, wait_for, with_cookie,
    },
};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[test]
fn an_accept_queue_has_its_length_and_limit() {
    let listener = listen("127.0.0.1:0");
    rustix::net::listen(&listener, 3).unwrap();
    let address = listener.local_addr().unwrap();
    let cookie = cookie(&listener);
    let connect = || std::net::TcpStream::connect(address).unwrap();

    let socket = wait_for(cookie, |_| true);
    assert_eq!(socket.state, TcpState::Listen);
    assert_eq!(socket.accept_queue, Some(AcceptQueue { length: 0, limit: 3 }));
    assert_eq!(socket.local, Endpoint { address: LOCALHOST, port: address.port() });
    assert_eq!(socket.remote, Endpoint { address: Ipv4Addr::UNSPECIFIED.into(), port: 0 });
    assert_eq!(socket.inode, Some(inode(&listener)));
    assert_eq!((socket.info, socket.since_ack), (None, None));
    assert_eq!((socket.unread_bytes(), socket.unacknowledged_bytes()), (None, None));

    let mut clients = vec![connect(), connect()];
    let socket = wait_for(cookie, |socket| socket.rqueue == 2);
    assert_eq!(socket.accept_queue, Some(AcceptQueue { length: 2, limit: 3 }));
    // A connection in the accept queue has no descriptor.
    let waiting = established_on(address.port());
    assert_eq!(waiting.len(), 2);
    assert!(waiting.iter().all(|socket| socket.is_full() && socket.inode.is_none()));

    // The queue admits one more than the limit. The SYN of the next connection gets no answer.
    clients.extend([connect(), connect()]);
    wait_for(cookie, |socket| socket.rqueue == 4);
    let shut_out = begin_connect(address);
    let socket = wait_for(super::support::cookie(&shut_out), |_| true);
    assert_eq!(socket.state, TcpState::SynSent);
    assert_eq!(socket.timer.map(|timer| timer.kind), Some(TimerKind::Retransmit));
    assert_eq!((socket.wqueue, socket.unacknowledged_bytes()), (1, Some(0)));
    assert_eq!(socket.since_ack, None);
    assert_eq!(socket.info.unwrap().srtt, None);
    let drops = wait_for(cookie, |_| true).drops.unwrap();
    assert!(drops >= 1, "{drops}");
}

#[test]
fn the_time_since_the_last_acknowledgement_grows() {
    let (client, _server) = pair();
    let socket = wait_for(cookie(&client), |socket| socket.since_ack.is_some_and(|age| age >= Millis(50)));
    assert_eq!(socket.state_age_at_least(), socket.since_ack.map(Nanos::from));
    assert!(socket.since_ack < Some(Millis(20_000)), "{socket:?}");
}

#[test]
fn a_closed_window_shows_the_pending_bytes() {
    let (mut client, server) = pair();
    client.set_nonblocking(true).unwrap();
    let mut written = 0;
    let start = Instant::now();
    // Data may move between two dumps. The counts are valid when the first and the third dump agree.
    let (stuck, reader) = loop {
        assert!(start.elapsed() < LIMIT, "{written} bytes written");
        match client.write(&[1; 8192]) {
            Ok(count) => {
                written += count;
                continue;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        let before = with_cookie(cookie(&client))[0];
        let reader = with_cookie(cookie(&server))[0];
        let after = with_cookie(cookie(&client))[0];
        let probing = after.timer.is_some_and(|timer| timer.kind == TimerKind::ZeroWindowProbe);
        if probing && before.wqueue == after.wqueue {
            break (after, reader);
        }
    };
    let accounted = stuck.unacknowledged_bytes().unwrap() + reader.unread_bytes().unwrap();
    assert_eq!(accounted as usize, written);
    assert_eq!(stuck.unacknowledged_bytes(), Some(stuck.info.unwrap().unacked_bytes));
}

#[test]
fn a_keepalive_timer_has_its_remaining_time() {
    let (client, _server) = pair();
    sockopt::set_tcp_keepidle(&client, Duration::from_secs(60)).unwrap();
    sockopt::set_socket_keepalive(&client, true).unwrap();
    let timer = wait_for(cookie(&client), |socket| {
        socket.timer.is_some_and(|timer| timer.kind == TimerKind::Keepalive)
    })
    .timer
    .unwrap();
    assert!((30_000..=60_000).contains(&timer.expires.0), "{timer:?}");
    assert_eq!(timer.retransmits, 0);
}

#[test]
fn received_and_unread_bytes_exclude_the_fin_of_the_peer() {
    let (mut client, mut server) = pair();
    client.write_all(b"hello").unwrap();
    client.shutdown(Shutdown::Write).unwrap();

    let waiting = wait_for(cookie(&server), |socket| socket.state == TcpState::CloseWait);
    assert_eq!((waiting.rqueue, waiting.unread_bytes()), (6, Some(5)));
    let info = waiting.info.unwrap();
    assert_eq!((info.bytes_received, info.unread_bytes), (5, 5));
    assert!(waiting.state_age_at_least().is_some());
    let half = wait_for(cookie(&client), |socket| socket.state == TcpState::FinWait2);
    assert!(half.is_full());
    assert_eq!(half.inode, Some(inode(&client)));
    assert_eq!(half.unacknowledged_bytes(), Some(0));

    server.read_to_end(&mut Vec::new()).unwrap();
    let waiting = wait_for(cookie(&server), |socket| socket.rqueue == 0);
    assert_eq!(waiting.state, TcpState::CloseWait);
    assert_eq!(waiting.unread_bytes(), Some(0));
}
