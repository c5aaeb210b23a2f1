//! Queues, timers and quiet: what tells a stuck connection.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Shutdown as Half},
    time::{Duration, Instant},
};

use rustix::net::sockopt;
use tracer_core::event::{AcceptQueue, Endpoint, TcpState};

use crate::sources::sock_diag::{
    Filter, Shutdown, TimerKind,
    tests::support::{LIMIT, begin_connect, cookie, inode, list, listen, named, pair, wait_for},
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
    assert_eq!((socket.info, socket.activity, socket.sending), (None, None, None));
    assert_eq!((socket.unread_bytes(), socket.unacknowledged_bytes()), (None, None));
    assert_eq!(socket.v6_only, None);

    let mut clients = vec![connect(), connect()];
    let socket = wait_for(cookie, |socket| socket.rqueue == 2);
    assert_eq!(socket.accept_queue, Some(AcceptQueue { length: 2, limit: 3 }));
    // A connection not accepted yet has no descriptor.
    let filter = Filter { local_port: Some(address.port()), ..Filter::default() };
    let waiting = list(&filter);
    let waiting: Vec<_> = waiting.iter().filter(|socket| socket.state == TcpState::Established).collect();
    assert_eq!(waiting.len(), 2);
    assert!(waiting.iter().all(|socket| socket.is_full() && socket.inode.is_none()));

    // One more than the limit gets in, the next waits for an answer to its SYN.
    clients.extend([connect(), connect()]);
    wait_for(cookie, |socket| socket.rqueue == 4);
    let shut_out = begin_connect(address);
    let socket = wait_for(super::support::cookie(&shut_out), |_| true);
    assert_eq!(socket.state, TcpState::SynSent);
    assert_eq!(socket.timer.map(|timer| timer.kind), Some(TimerKind::Retransmit));
    assert_eq!((socket.wqueue, socket.unacknowledged_bytes()), (1, Some(0)));
    assert_eq!(socket.activity, None);
    assert_eq!(socket.info.unwrap().srtt_us, None);
    let drops = wait_for(cookie, |_| true).memory.unwrap().drops;
    assert!(drops >= 1, "{drops}");
}

#[test]
fn idle_time_grows_from_the_last_segment() {
    let (client, _server) = pair();
    let socket =
        wait_for(cookie(&client), |socket| socket.activity.is_some_and(|activity| activity.idle_ms() >= 50));
    let activity = socket.activity.unwrap();
    assert_eq!(socket.state_age_at_least_ms(), Some(activity.ack_received_ms));
    assert!(activity.ack_received_ms < 20_000, "{activity:?}");
}

#[test]
fn a_closed_window_shows_what_waits() {
    let (mut client, server) = pair();
    client.set_nonblocking(true).unwrap();
    let mut written = 0;
    let start = Instant::now();
    // Data moves between two dumps: the account is taken when the first and the third agree.
    let (stuck, reader) = loop {
        assert!(start.elapsed() < LIMIT, "{written} bytes written");
        match client.write(&[1; 8192]) {
            Ok(count) => {
                written += count;
                continue;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        let before = named(cookie(&client))[0];
        let reader = named(cookie(&server))[0];
        let after = named(cookie(&client))[0];
        let probing = after.timer.is_some_and(|timer| timer.kind == TimerKind::ZeroWindowProbe);
        if probing && before.wqueue == after.wqueue {
            break (after, reader);
        }
    };
    let accounted = stuck.unacknowledged_bytes().unwrap() + reader.unread_bytes().unwrap();
    assert_eq!(accounted as usize, written);
    let sending = stuck.sending.unwrap();
    assert!(sending.not_sent_bytes > 0 && sending.rto_us > 0, "{sending:?}");
    assert!(sending.peer_window.unwrap() < 65536, "{sending:?}");
    assert_eq!(stuck.unacknowledged_bytes(), Some(stuck.info.unwrap().unacked_bytes));
}

#[test]
fn a_keepalive_timer_has_its_rest() {
    let (client, _server) = pair();
    sockopt::set_tcp_keepidle(&client, Duration::from_secs(60)).unwrap();
    sockopt::set_socket_keepalive(&client, true).unwrap();
    let timer = wait_for(cookie(&client), |socket| {
        socket.timer.is_some_and(|timer| timer.kind == TimerKind::Keepalive)
    })
    .timer
    .unwrap();
    assert!((30_000..=60_000).contains(&timer.expires_ms), "{timer:?}");
    assert_eq!(timer.retransmits, 0);
}

#[test]
fn close_wait_tells_whether_the_end_was_read() {
    let (mut client, mut server) = pair();
    client.write_all(b"hello").unwrap();
    client.shutdown(Half::Write).unwrap();

    let waiting = wait_for(cookie(&server), |socket| socket.state == TcpState::CloseWait);
    assert_eq!((waiting.rqueue, waiting.unread_bytes()), (6, Some(5)));
    assert_eq!(waiting.end_of_stream_unread(), Some(true));
    assert_eq!(waiting.shutdown, Some(Shutdown { receive: true, send: false }));
    assert!(waiting.state_age_at_least_ms().is_some());
    let half = wait_for(cookie(&client), |socket| socket.state == TcpState::FinWait2);
    assert!(half.is_full());
    assert_eq!(half.inode, Some(inode(&client)));
    assert_eq!(half.shutdown, Some(Shutdown { receive: false, send: true }));
    assert_eq!(half.unacknowledged_bytes(), Some(0));

    server.read_to_end(&mut Vec::new()).unwrap();
    let waiting = wait_for(cookie(&server), |socket| socket.rqueue == 0);
    assert_eq!(waiting.state, TcpState::CloseWait);
    assert_eq!((waiting.unread_bytes(), waiting.end_of_stream_unread()), (Some(0), Some(false)));
}
