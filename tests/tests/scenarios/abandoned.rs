//! Handshakes that the server answers and the client never completes. Only mode btf hears of them.

use std::time::Duration;

use tcptrace_tests::{
    Connection, Mode, Namespace, Tracer,
    sockets::{self, Pair},
    tracer::Ended,
    tun::{Direction, Kind, Relay, SERVER, Segment, Verdict},
    wait,
};

use crate::support::assert_states;

const ABANDONED: &str = "handshakes abandoned by their clients";
/// With one resend, a second after the first SYN-ACK, the kernel would give up two seconds later; the
/// program waits for two more.
const OVERDUE: Duration = Duration::from_millis(4200);

/// Nothing of the client but its SYN reaches the server.
fn silence(segment: &Segment) -> Verdict {
    match (segment.direction, segment.kind) {
        (Direction::ToServer, Kind::Syn) | (Direction::ToClient, _) => Verdict::Pass,
        (Direction::ToServer, _) => Verdict::Drop,
    }
}

/// Opens and resets a connection within the namespace, so that there are events.
fn visit(namespace: &Namespace) {
    let Pair { client, server, listener: _listener } = sockets::pair(namespace, "127.0.0.1:0");
    sockets::reset_on_close(&client);
    drop(client);
    sockets::wait_for_error(&server);
}

/// Connects through the relay, whatever becomes of it, and does `then` with what happens. The lines are
/// those of the server on port 5000.
fn handshake(
    rule: impl Fn(&Segment) -> Verdict + Send + 'static,
    then: impl FnOnce(&Relay, &socket2::Socket),
) -> (Vec<Connection>, Ended) {
    let relay = Relay::alone(rule);
    relay.server.sysctl("net.ipv4.tcp_synack_retries", "1");
    let tracer = Tracer::json("connections", &relay.server, Mode::Btf, &["--local-port", "5000"]);
    let to = sockets::address(&format!("{SERVER}:5000"));
    let listener = relay.server.run("server", || sockets::listen(&to.to_string()));
    let client = relay.client.run("client", || sockets::begin_connect(to));
    then(&relay, &client);
    drop((client, listener));
    visit(&relay.server);
    let ended = tracer.interrupt();
    (ended.rows(), ended)
}

fn resent(relay: &Relay) {
    wait::until("the resent SYN-ACK", || relay.segment(Direction::ToClient, Kind::SynAck, 1));
}

#[test]
fn a_silent_client_is_counted() {
    let (rows, ended) = handshake(silence, |relay, _| {
        resent(relay);
        wait::pause(OVERDUE);
    });
    assert_eq!(rows, []);
    assert_eq!(ended.counted(ABANDONED), Some(1), "{}", ended.stderr);
    assert_eq!(ended.abandoned_at(&format!("{SERVER}:5000")), Some(1), "{}", ended.stderr);
}

/// Each listener has its own count, and the worst is named first.
#[test]
fn silent_clients_are_counted_by_listener() {
    let relay = Relay::alone(silence);
    relay.server.sysctl("net.ipv4.tcp_synack_retries", "1");
    let tracer = Tracer::connections(&relay.server, Mode::Btf);
    let [few, many] = [5001, 5002].map(|port| format!("{SERVER}:{port}"));
    let listeners = [&few, &many].map(|on| relay.server.run("server", || sockets::listen(on)));
    let clients = [&many, &few, &many, &many]
        .map(|to| relay.client.run("client", || sockets::begin_connect(sockets::address(to))));
    // Four that answer, and one again for each.
    wait::until("the resent SYN-ACKs", || relay.segment(Direction::ToClient, Kind::SynAck, 7));
    wait::pause(OVERDUE);
    drop((clients, listeners));
    visit(&relay.server);
    let ended = tracer.interrupt();
    assert_eq!(ended.counted(ABANDONED), Some(4), "{}", ended.stderr);
    assert_eq!((ended.abandoned_at(&many), ended.abandoned_at(&few)), (Some(3), Some(1)), "{}", ended.stderr);
    let place = |listener: &str| ended.stderr.find(listener);
    assert!(place(&many) < place(&few), "{}", ended.stderr);
}

/// The resend itself does not say that nobody will answer.
#[test]
fn a_late_client_is_not_counted() {
    let rule = |segment: &Segment| match (segment.direction, segment.kind) {
        (Direction::ToServer, Kind::Ack) => Verdict::Hold,
        _ => Verdict::Pass,
    };
    let (rows, ended) = handshake(rule, |relay, client| {
        resent(relay);
        relay.rule(|_| Verdict::Pass);
        relay.release();
        wait::until("the server's socket", || (relay.server.sockets_in(1 << 1) == 1).then_some(()));
        wait::pause(OVERDUE);
        sockets::reset_on_close(client);
    });
    let [row] = &rows[..] else { panic!("{rows:#?}") };
    assert_states(row, &["syn_received", "established"]);
    assert!(row.handshake() >= Duration::from_secs(1), "{row:#?}");
    assert_eq!(ended.counted(ABANDONED), None, "{}", ended.stderr);
    assert!(!ended.stderr.contains(ABANDONED), "{}", ended.stderr);
}

/// The client's kernel answers a SYN-ACK that it does not know: the handshake is over before a resend,
/// and nothing of it is told.
#[test]
fn a_reset_handshake_leaves_nothing() {
    let rule = |segment: &Segment| match (segment.direction, segment.kind) {
        (Direction::ToClient, Kind::SynAck) => Verdict::Hold,
        _ => Verdict::Pass,
    };
    let (rows, ended) = handshake(rule, |relay, client| {
        wait::until("the SYN-ACK", || relay.segment(Direction::ToClient, Kind::SynAck, 0));
        sockets::disconnect(client);
        relay.rule(|_| Verdict::Pass);
        relay.release();
        wait::until("the reset", || relay.segment(Direction::ToServer, Kind::Reset, 0)?.passed);
        wait::until("its end", || (relay.server.sockets_in(1 << 3) == 0).then_some(()));
    });
    assert_eq!(rows, []);
    assert_eq!(ended.counted(ABANDONED), None, "{}", ended.stderr);
}
