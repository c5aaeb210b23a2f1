//! `listeners`: queues, drops and handshakes of listening sockets.

use rstest::rstest;
use serde_json::Value;
use tcptrace_tests::{
    Listener, ListenerDrops, Mode, Namespace, Tracer, sockets,
    tracer::TracerOutput,
    tun::{Direction, Relay, SERVER, Segment, SegmentKind, Verdict},
    wait,
};

use crate::support::{drops_by_ss, overflow, overflows};

fn rows(ended: &TracerOutput) -> (Vec<Listener>, Vec<ListenerDrops>) {
    let (mut listeners, mut drops) = (Vec::new(), Vec::new());
    for row in ended.rows::<Value>() {
        if row["type"] == "listener" {
            listeners.push(serde_json::from_value(row).unwrap());
        } else {
            assert_eq!(row["type"], "listener_drops");
            drops.push(serde_json::from_value(row).unwrap());
        }
    }
    (listeners, drops)
}

#[rstest]
fn a_listener_that_does_not_accept_comes_first(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::alone();
    let _inhabitant = namespace.inhabit();
    let healthy = namespace.run("healthy", || sockets::listen("127.0.0.1:0"));
    let hanging = namespace.run("hanging", || sockets::listen_with("127.0.0.1:0", 1, |_| {}));
    let (to, port) = (sockets::local(&hanging), sockets::port(&hanging));
    overflow(&namespace, to, 5);
    let (drops_before, overflows_before) = (drops_by_ss(&namespace, port), overflows(&namespace));
    assert!(drops_before > 0);

    let tracer = Tracer::json("listeners", &namespace, mode, &[]);
    overflow(&namespace, to, 50);
    namespace.run("client", || {
        for _ in 0..3 {
            let client = sockets::connect(sockets::local(&healthy));
            drop(sockets::accept(&healthy));
            drop(client);
        }
    });
    let ended = tracer.interrupt();
    let (listeners, drops) = rows(&ended);
    let [first, second] = &listeners[..] else { panic!("{listeners:#?}") };
    assert_eq!((first.local_address.as_str(), first.local_port), ("127.0.0.1", Some(port)));
    assert_eq!(
        (first.accept_queue, first.accept_queue_limit, first.accept_queue_peak),
        (Some(2), Some(1), Some(2))
    );
    let drops_after = drops_by_ss(&namespace, port);
    assert!(drops_after - drops_before >= 48, "{drops_before} to {drops_after}");
    assert_eq!((first.drops, first.drops_during), (Some(drops_after), Some(drops_after - drops_before)));
    assert_eq!((first.half_open, first.established), (Some(0), Some(0)), "the queue was full before the run");
    assert_eq!((first.pid, first.netns), (Some(std::process::id()), Some(namespace.inode())));
    assert_eq!((second.local_port, second.established), (Some(sockets::port(&healthy)), Some(3)));
    assert_eq!((second.drops, second.drops_during, second.accept_queue), (Some(0), Some(0), Some(0)));
    let traced = mode == Mode::Btf;
    for row in [first, second] {
        assert_eq!(row.abandoned, traced.then_some(0), "{row:#?}");
    }
    assert_eq!((first.accept_wait_p50_us, first.accept_wait_p99_us), (None, None));
    // Nobody reads, so the wait is known only where the hook of `accept()` is.
    assert_eq!(second.accept_wait_p50_us.is_some(), second.accept_wait_p99_us.is_some(), "{second:#?}");
    assert!(second.handshake_p50_us.is_some(), "{second:#?}");
    let [causes] = &drops[..] else { panic!("{drops:#?}") };
    assert_eq!(causes.netns, Some(namespace.inode()));
    assert_eq!(causes.listen_overflows, Some(overflows(&namespace) - overflows_before));
    assert_eq!(causes.listen_drops, Some(u64::from(drops_after - drops_before)));
    assert_eq!((causes.syn_queue_full_drops, causes.syn_cookies_sent), (Some(0), Some(0)));
}

/// Drops everything that the client sends except its SYN.
fn drop_all_but_syn(segment: &Segment) -> Verdict {
    match (segment.direction, segment.kind) {
        (Direction::ToServer, SegmentKind::Syn) | (Direction::ToClient, _) => Verdict::Pass,
        (Direction::ToServer, _) => Verdict::Drop,
    }
}

#[test]
fn half_open_handshakes_count_for_the_wildcard_listener() {
    let relay = Relay::alone(drop_all_but_syn);
    let _inhabitant = relay.server.inhabit();
    let tracer = Tracer::json("listeners", &relay.server, Mode::Btf, &["--port", "5000"]);
    let _listener = relay.server.run("server", || sockets::listen("0.0.0.0:5000"));
    let _other = relay.server.run("server", || sockets::listen("0.0.0.0:5001"));
    let to = sockets::address(&format!("{SERVER}:5000"));
    let _clients: Vec<_> =
        (0..4).map(|_| relay.client.run("client", || sockets::begin_connect(to))).collect();
    let half_open = || relay.server.sockets_in(sockets::SYN_RECEIVED);
    wait::until("the half-open handshakes", || (half_open() == 4).then_some(()));
    let (listeners, _) = rows(&tracer.interrupt());
    assert_eq!(half_open(), 4);
    let [row] = &listeners[..] else { panic!("{listeners:#?}") };
    assert_eq!((row.local_address.as_str(), row.half_open), ("0.0.0.0", Some(4)));
    assert_eq!((row.drops_during, row.established), (Some(0), Some(0)), "it began during the run");
    assert_eq!(row.pid, Some(std::process::id()));
}

#[test]
fn listeners_that_share_an_address_keep_their_own_queues() {
    let namespace = Namespace::alone();
    let _inhabitant = namespace.inhabit();
    let share = |socket: &socket2::Socket| socket.set_reuse_port(true).unwrap();
    let first = namespace.run("first", || sockets::listen_with("127.0.0.1:0", 7, share));
    let to = sockets::local(&first);
    let _second = namespace.run("second", || sockets::listen_with(&to.to_string(), 9, share));
    let tracer = Tracer::json("listeners", &namespace, Mode::Btf, &[]);
    let _clients: Vec<_> = (0..6).map(|_| namespace.run("client", || sockets::connect(to))).collect();
    let (listeners, _) = rows(&tracer.interrupt());
    let mut limits: Vec<_> = listeners.iter().map(|row| row.accept_queue_limit).collect();
    limits.sort_unstable();
    assert_eq!(limits, [Some(7), Some(9)]);
    assert_eq!(listeners.iter().filter_map(|row| row.accept_queue).sum::<u32>(), 6);
    for row in &listeners {
        assert_eq!((row.established, row.abandoned, row.half_open), (None, None, None), "{row:#?}");
        assert_eq!(row.accept_queue_peak, row.accept_queue);
    }
}

#[test]
fn a_namespace_without_a_process_is_named_as_the_cause_of_an_empty_list() {
    let namespace = Namespace::new();
    let _listener = namespace.run("server", || sockets::listen("127.0.0.1:0"));
    let ended = Tracer::json("listeners", &namespace, Mode::Btf, &[]).interrupt();
    assert_eq!(ended.text(), "");
    let cause = format!("no process or mount with the network namespace {} was found", namespace.inode());
    assert!(ended.stderr.contains(&cause), "{}", ended.stderr);
}
