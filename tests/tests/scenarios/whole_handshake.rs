//! Where a handshake was lost, who would not take it, and how long it waited for `accept()`.

use std::{
    fs,
    time::{Duration, Instant},
};

use rstest::rstest;
use tcptrace_tests::{
    Mode, Namespace, Tracer, program,
    rows::Connection,
    sockets::{self, Pair},
    wait,
};

use crate::support::assert_close;

/// Whether this kernel's BTF has this enumerator or function.
fn kernel_has(name: &str) -> bool {
    let types = fs::read("/sys/kernel/btf/vmlinux").unwrap();
    let name = format!("\0{name}\0");
    types.windows(name.len()).any(|text| text == name.as_bytes())
}

/// Whether drops have reasons (5.17).
fn drops_have_reasons() -> bool {
    kernel_has("SKB_DROP_REASON_NETFILTER_DROP")
}

fn drops(connection: &Connection) -> Vec<(&str, &str, u32)> {
    connection
        .syn_drops
        .iter()
        .map(|drop| (drop.segment.as_str(), drop.reason.as_str(), drop.count))
        .collect()
}

/// A client whose SYNs a rule of its own host drops, on the way out or on the way in.
///
/// A kernel that runs no tracing program while process 1 is current hides a drop at a resend when the timer interrupts
/// that process, so one attempt in a few must have them all.
#[rstest]
fn dropped_syns_are_named(#[values("output", "input")] hook: &str) {
    const ATTEMPTS: usize = 3;
    let namespace = Namespace::new();
    namespace.sysctl("net.ipv4.tcp_syn_retries", "1");
    let _listener = namespace.run("server", || sockets::listen("127.0.0.1:5000"));
    namespace.filter(hook, "tcp dport 5000 drop");
    let mut missed = Vec::new();
    for _ in 0..ATTEMPTS {
        let tracer = Tracer::connections(&namespace, Mode::Btf);
        let error =
            namespace.run("client", || sockets::try_connect(sockets::address("127.0.0.1:5000"))).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT));
        let [client] = tracer.finish(1).try_into().unwrap();
        assert_close(&client, "timed_out", Some("local"), Some("ETIMEDOUT"));
        if !drops_have_reasons() {
            assert_eq!(drops(&client), []);
            return;
        }
        // Every SYN was dropped, the first and those of `tcp_syn_retries` and `tcp_syn_linear_timeouts`.
        let sent = u32::from(client.syn_retransmits.unwrap()) + 1;
        let &[("syn", "netfilter_drop", dropped)] = drops(&client).as_slice() else {
            panic!("{:?}", client.syn_drops);
        };
        assert!(client.syn_drops[0].location.as_ref().is_some_and(|function| !function.is_empty()));
        if dropped == sent {
            return;
        }
        assert!(dropped < sent, "{dropped} of {sent}");
        missed.push((dropped, sent));
    }
    panic!("each attempt missed a drop: {missed:?}");
}

/// A SYN-ACK that a rule drops: the client's and the server's handshake have the drop, and both complete.
#[test]
fn a_dropped_syn_ack_is_on_both_sides() {
    if !drops_have_reasons() {
        return tcptrace_tests::speed::not_possible("drops have no reasons before 5.17");
    }
    let namespace = Namespace::new();
    let listener = namespace.run("server", || sockets::listen("127.0.0.1:5000"));
    // The first only: the second passes the limit of the rule.
    namespace.filter(
        "input",
        "tcp sport 5000 tcp flags & (syn | ack) == (syn | ack) limit rate 1/hour burst 1 packets drop",
    );
    let tracer = Tracer::connections(&namespace, Mode::Btf);
    let client = namespace.run("client", || sockets::connect(sockets::local(&listener)));
    let server = sockets::accept(&listener);
    namespace.run("client", || drop(client));
    sockets::wait_for_end(&server);
    namespace.run("server", || drop(server));
    let (client, server) = tracer.finish_both();
    for side in [&client, &server] {
        assert_eq!(drops(side), [("syn_ack", "netfilter_drop", 1)], "{side:?}");
    }
}

/// The next hop answers no neighbour request.
#[test]
fn a_missing_neighbour_is_named() {
    if !drops_have_reasons() || !kernel_has("SKB_DROP_REASON_NEIGH_FAILED") {
        return tcptrace_tests::speed::not_possible("neighbours have no reasons on this kernel");
    }
    let namespace = Namespace::new();
    namespace.ip("link add near type veth peer name far");
    namespace.ip("addr add 10.99.0.1/24 dev near");
    namespace.ip("link set near up");
    namespace.ip("link set far up");
    let tracer = Tracer::connections(&namespace, Mode::Btf);
    let error =
        namespace.run("client", || sockets::try_connect(sockets::address("10.99.0.9:5000"))).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EHOSTUNREACH));
    let [client] = tracer.finish(1).try_into().unwrap();
    assert_close(&client, "unreachable", Some("remote"), Some("EHOSTUNREACH"));
    let dropped = drops(&client);
    assert!(matches!(dropped[..], [("syn", "neigh_failed", 1..)]), "{dropped:?}");
}

/// A listener whose accept queue is full drops SYNs, which the kernel does not report as drops.
#[test]
fn a_full_accept_queue_is_named_where_its_hook_attaches() {
    let namespace = Namespace::new();
    namespace.sysctl("net.ipv4.tcp_syn_retries", "1");
    let tracer = Tracer::connections(&namespace, Mode::Btf);
    // One more than the backlog fits into the queue.
    let listener = namespace.run("late", || sockets::listen_with("127.0.0.1:5000", 0, |_| {}));
    let first = namespace.run("client", || sockets::connect(sockets::local(&listener)));
    let is_queued = || (namespace.sockets_in(sockets::ESTABLISHED) == 2).then_some(());
    wait::until("the connection in the accept queue", is_queued);
    let error =
        namespace.run("client", || sockets::try_connect(sockets::local(&listener))).expect_err("it is full");
    assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT));
    let [refused] = tracer.finish(1).try_into().unwrap();
    assert_close(&refused, "timed_out", Some("local"), Some("ETIMEDOUT"));
    if program::finds("hook accept_queue_full") {
        let sent = u32::from(refused.syn_retransmits.unwrap()) + 1;
        assert_eq!(drops(&refused), [("syn", "accept_queue_full", sent)]);
        assert_eq!(refused.syn_drops[0].location.as_deref(), Some("tcp_conn_request"));
    } else {
        assert_eq!(drops(&refused), []);
    }
    drop((first, listener));
}

/// A SYN to a port without a listener makes no socket. It is refused, not dropped.
#[test]
fn a_refused_syn_is_an_attempt_at_this_host() {
    let namespace = Namespace::new();
    let groups = Tracer::json("handshakes", &namespace, Mode::Btf, &["--role", "server"]);
    let connections = Tracer::connections(&namespace, Mode::Btf);
    for _ in 0..3 {
        namespace
            .run("client", || sockets::try_connect(sockets::address("127.0.0.1:5001")))
            .expect_err("nobody listens");
    }
    let clients = connections.finish(3);
    for client in &clients {
        assert_close(client, "refused", Some("remote"), Some("ECONNREFUSED"));
        assert_eq!(drops(client), []);
        assert_eq!(client.reset_by.as_deref(), Some("remote"));
    }
    let output = groups.interrupt();
    let rows: Vec<serde_json::Value> = output.rows();
    let group = rows.iter().find(|row| row["type"] == "handshake_group");
    // Before 6.10 the kernel reports no reset without a socket.
    if kernel_has("SK_RST_REASON_NO_SOCKET") {
        let group = group.unwrap();
        assert_eq!(group["group"], "port 5001 here, nobody listens");
        assert_eq!((&group["count"], &group["failed"]), (&3.into(), &3.into()));
        assert_eq!(output.counted("SYNs refused because nobody listens"), Some(3));
    }
}

/// Each way in which this host resets a connection.
#[test]
fn resets_have_a_sender_and_a_reason() {
    let namespace = Namespace::new();
    let tracer = Tracer::connections(&namespace, Mode::Btf);
    let Pair { client, server, listener: _listener } = sockets::pair(&namespace, "127.0.0.1:5000");
    sockets::reset_on_close(&server);
    namespace.run("server", || drop(server));
    assert_eq!(sockets::wait_for_error(&client), libc::ECONNRESET);
    let (client, server) = tracer.finish_both();
    assert_close(&server, "aborted", Some("local"), None);
    assert_eq!(server.reset_by.as_deref(), Some("local"));
    assert_eq!(server.reset_reason.is_some(), kernel_has("SK_RST_REASON_NOT_SPECIFIED"), "{server:?}");
    assert_close(&client, "reset_by_peer", Some("remote"), Some("ECONNRESET"));
    assert_eq!((client.reset_by.as_deref(), client.reset_reason.as_deref()), (Some("remote"), None));
}

/// The reason for a close with unread data is the kernel's own.
#[test]
fn unread_data_has_its_reason() {
    let namespace = Namespace::new();
    let tracer = Tracer::connections(&namespace, Mode::Btf);
    let Pair { client, server, listener: _listener } = sockets::pair(&namespace, "127.0.0.1:5000");
    sockets::send(&client, b"unread");
    sockets::wait_for_data(&server);
    namespace.run("server", || drop(server));
    assert_eq!(sockets::wait_for_error(&client), libc::ECONNRESET);
    let (_, server) = tracer.finish_both();
    assert_close(&server, "unread_data", Some("local"), None);
    assert_eq!(server.reset_by.as_deref(), Some("local"));
    if kernel_has("SK_RST_REASON_TCP_ABORT_ON_CLOSE") {
        assert_eq!(server.reset_reason.as_deref(), Some("tcp_abort_on_close"));
    }
}

/// The listener accepts late, and the process reads later still.
#[test]
fn a_late_accept_is_the_wait_of_the_connection() {
    const LATE: Duration = Duration::from_millis(300);
    let namespace = Namespace::new();
    let tracer = Tracer::connections(&namespace, Mode::Btf);
    let listener = namespace.run("server", || sockets::listen("127.0.0.1:5000"));
    let began = Instant::now();
    let client = namespace.run("client", || sockets::connect(sockets::local(&listener)));
    let both_established = || (namespace.sockets_in(sockets::ESTABLISHED) == 2).then_some(());
    wait::until("the connection in the accept queue", both_established);
    let established = Instant::now();
    std::thread::sleep(LATE);
    let accepting = Instant::now();
    let server = namespace.run("late", || sockets::accept(&listener));
    let accepted = Instant::now();
    std::thread::sleep(LATE);
    sockets::send(&client, b"request");
    namespace.run("reader", || sockets::receive(&server, 7));
    namespace.run("client", || drop(client));
    sockets::wait_for_end(&server);
    namespace.run("server", || drop(server));
    let (client, server) = tracer.finish_both();
    assert_eq!((client.accept_wait_us, client.accepted), (None, None));
    assert_eq!(server.accepted, Some(true));
    let wait = Duration::from_secs_f64(server.accept_wait_us.unwrap() / 1e6);
    let read = Duration::from_secs_f64(server.first_read_us.unwrap() / 1e6);
    assert!(read >= 2 * LATE && wait >= LATE && wait <= read, "{wait:?} {read:?}");
    match server.accept_wait_source.as_deref() {
        Some("accept") => {
            assert!(wait >= accepting - established && wait <= accepted - began, "{wait:?}");
            assert!(wait + LATE <= read, "{wait:?} {read:?}");
            assert_eq!(server.owner_source, "accept");
        }
        source => {
            assert_eq!(source, Some("first_read"));
            assert_eq!(wait, read);
        }
    }
}

/// Each process waits before it uses the connection: the client before its request, the server before its answer.
#[test]
fn the_first_write_and_read_of_each_end_are_timed() {
    const LATE: Duration = Duration::from_millis(200);
    let namespace = Namespace::new();
    let tracer = Tracer::connections(&namespace, Mode::Btf);
    let Pair { client, server, listener: _listener } = sockets::pair(&namespace, "127.0.0.1:5000");
    std::thread::sleep(LATE);
    namespace.run("client", || sockets::send(&client, b"request"));
    namespace.run("server", || sockets::receive(&server, 7));
    std::thread::sleep(LATE);
    namespace.run("server", || sockets::send(&server, b"answer"));
    namespace.run("client", || sockets::receive(&client, 6));
    // Only the first of each counts.
    std::thread::sleep(LATE);
    namespace.run("client", || sockets::send(&client, b"again"));
    namespace.run("server", || sockets::receive(&server, 5));
    namespace.run("client", || drop(client));
    sockets::wait_for_end(&server);
    namespace.run("server", || drop(server));
    let (client, server) = tracer.finish_both();
    let [request, received, answer, answered] =
        [client.first_write_us, server.first_read_us, server.first_write_us, client.first_read_us]
            .map(|us| Duration::from_secs_f64(us.expect("the hooks attach on every kernel") / 1e6));
    let lasted = Duration::from_secs_f64(client.duration_us.unwrap() / 1e6);
    assert!(request >= LATE && received >= LATE, "{request:?} {received:?}");
    assert!(answer >= received + LATE && answered >= request + LATE, "{received:?} {answer:?} {answered:?}");
    assert!(answered + LATE <= lasted, "{answered:?} {lasted:?}");
}

/// Nobody accepts the connection before its listener closes.
#[test]
fn a_connection_that_nobody_accepts_says_so() {
    let namespace = Namespace::new();
    let tracer = Tracer::connections(&namespace, Mode::Btf);
    let listener = namespace.run("server", || sockets::listen("127.0.0.1:5000"));
    let client = namespace.run("client", || sockets::connect(sockets::local(&listener)));
    namespace.run("server", || drop(listener));
    assert_eq!(sockets::wait_for_error(&client), libc::ECONNRESET);
    let (_, server) = tracer.finish_both();
    assert_eq!((server.accepted, server.accept_wait_us), (Some(false), None));
    assert_eq!(server.reset_by.as_deref(), Some("local"));
}
