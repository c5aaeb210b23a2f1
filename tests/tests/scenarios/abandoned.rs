//! Handshakes that the server answers and the client never completes. Only mode btf traces them.

use std::time::Duration;

use tcptrace_tests::{
    Connection, Mode, Tracer, sockets,
    tracer::TracerOutput,
    tun::{Direction, Relay, SERVER, Segment, SegmentKind, Verdict},
    wait,
};

use crate::support::{assert_states, open_and_reset};

const ABANDONED: &str = "handshakes abandoned by their clients";
/// With one retransmit, a second after the first SYN-ACK, the kernel gives up two seconds later. The program
/// waits two more seconds.
const OVERDUE: Duration = Duration::from_millis(4200);

/// Drops everything that the client sends except its SYN.
fn drop_all_but_syn(segment: &Segment) -> Verdict {
    match (segment.direction, segment.kind) {
        (Direction::ToServer, SegmentKind::Syn) | (Direction::ToClient, _) => Verdict::Pass,
        (Direction::ToServer, _) => Verdict::Drop,
    }
}

/// Starts a connect through the relay and runs `then`. Returns the rows of the server on port 5000.
fn handshake(
    rule: impl Fn(&Segment) -> Verdict + Send + 'static,
    then: impl FnOnce(&Relay, &socket2::Socket),
) -> (Vec<Connection>, TracerOutput) {
    let relay = Relay::alone(rule);
    relay.server.sysctl("net.ipv4.tcp_synack_retries", "1");
    let tracer = Tracer::json("connections", &relay.server, Mode::Btf, &["--local-port", "5000"]);
    let to = sockets::address(&format!("{SERVER}:5000"));
    let listener = relay.server.run("server", || sockets::listen(&to.to_string()));
    let client = relay.client.run("client", || sockets::begin_connect(to));
    then(&relay, &client);
    drop((client, listener));
    open_and_reset(&relay.server);
    let ended = tracer.interrupt();
    (ended.rows(), ended)
}

fn wait_for_retransmit(relay: &Relay) {
    wait::until("the retransmitted SYN-ACK", || relay.segment(Direction::ToClient, SegmentKind::SynAck, 1));
}

#[test]
fn silent_client_is_counted_as_abandoned() {
    let (rows, ended) = handshake(drop_all_but_syn, |relay, _| {
        wait_for_retransmit(relay);
        wait::pause(OVERDUE);
    });
    assert_eq!(rows, []);
    assert_eq!(ended.counted(ABANDONED), Some(1), "{}", ended.stderr);
    assert_eq!(ended.abandoned_at(&format!("{SERVER}:5000")), Some(1), "{}", ended.stderr);
}

/// Each listener has its own count; the report lists the highest count first.
#[test]
fn abandoned_handshakes_are_counted_per_listener() {
    let relay = Relay::alone(drop_all_but_syn);
    relay.server.sysctl("net.ipv4.tcp_synack_retries", "1");
    let tracer = Tracer::connections(&relay.server, Mode::Btf);
    let [few, many] = [5001, 5002].map(|port| format!("{SERVER}:{port}"));
    let listeners = [&few, &many].map(|on| relay.server.run("server", || sockets::listen(on)));
    let clients = [&many, &few, &many, &many]
        .map(|to| relay.client.run("client", || sockets::begin_connect(sockets::address(to))));
    // Four SYN-ACKs, and one retransmit of each.
    wait::until("the retransmitted SYN-ACKs", || relay.segment(Direction::ToClient, SegmentKind::SynAck, 7));
    wait::pause(OVERDUE);
    drop((clients, listeners));
    open_and_reset(&relay.server);
    let ended = tracer.interrupt();
    assert_eq!(ended.counted(ABANDONED), Some(4), "{}", ended.stderr);
    assert_eq!((ended.abandoned_at(&many), ended.abandoned_at(&few)), (Some(3), Some(1)), "{}", ended.stderr);
    let position = |listener: &str| ended.stderr.find(listener);
    assert!(position(&many) < position(&few), "{}", ended.stderr);
}

/// A retransmit alone does not count as abandoned: the client may still answer.
#[test]
fn late_client_is_not_counted_as_abandoned() {
    let rule = |segment: &Segment| match (segment.direction, segment.kind) {
        (Direction::ToServer, SegmentKind::Ack) => Verdict::Hold,
        _ => Verdict::Pass,
    };
    let (rows, ended) = handshake(rule, |relay, client| {
        wait_for_retransmit(relay);
        relay.rule(|_| Verdict::Pass);
        relay.release();
        wait::until("the server's socket", || {
            (relay.server.sockets_in(sockets::ESTABLISHED) == 1).then_some(())
        });
        wait::pause(OVERDUE);
        sockets::reset_on_close(client);
    });
    let [row] = &rows[..] else { panic!("{rows:#?}") };
    assert_states(row, &["syn_received", "established"]);
    assert!(row.handshake() >= Duration::from_secs(1), "{row:#?}");
    assert_eq!(ended.counted(ABANDONED), None, "{}", ended.stderr);
    assert!(!ended.stderr.contains(ABANDONED), "{}", ended.stderr);
}

/// The client's kernel resets an unknown SYN-ACK. The handshake ends before a retransmit, and nothing is
/// reported.
#[test]
fn reset_handshake_is_not_reported() {
    let rule = |segment: &Segment| match (segment.direction, segment.kind) {
        (Direction::ToClient, SegmentKind::SynAck) => Verdict::Hold,
        _ => Verdict::Pass,
    };
    let (rows, ended) = handshake(rule, |relay, client| {
        wait::until("the SYN-ACK", || relay.segment(Direction::ToClient, SegmentKind::SynAck, 0));
        sockets::disconnect(client);
        relay.rule(|_| Verdict::Pass);
        relay.release();
        wait::until("the reset", || relay.segment(Direction::ToServer, SegmentKind::Reset, 0)?.passed);
        wait::until("the request to end", || {
            (relay.server.sockets_in(sockets::SYN_RECEIVED) == 0).then_some(())
        });
    });
    assert_eq!(rows, []);
    assert_eq!(ended.counted(ABANDONED), None, "{}", ended.stderr);
}
