//! Complete lifecycles over every edge of the state diagram that Linux reports.

use tracer_core::{
    event::{
        Micros, Process, SocketFlags, TcpInfo,
        TcpState::{
            CloseWait, Closed, Closing, Established, FinWait1, FinWait2, LastAck, Listen, SynReceived,
            SynSent, TimeWait,
        },
    },
    lifecycle::{
        CloseReason, ClosedBy,
        DurationSource::{Measured, Modelled, Observed},
        Role,
    },
    owner::OwnerSource,
};
use tracer_core_testing::script::{
    CGROUP, CLIENT, NETNS, SECOND, SERVER, ScriptedSocket, error, fins, process, shut,
};

use crate::observed::{run, track, tracker};

const TIME_WAIT_US: u64 = 60 * SECOND;

fn curl() -> Process {
    process(100, "curl")
}

fn nginx() -> Process {
    process(200, "nginx")
}

fn worker() -> Process {
    process(201, "nginx-worker")
}

#[test]
fn a_client_that_closes_first() {
    let socket = ScriptedSocket::connected_client(1, curl())
        .info(TcpInfo { srtt: Some(Micros(190)), ..TcpInfo::default() })
        .step(1000, FinWait1)
        .by(curl())
        .step(1300, FinWait2)
        .step(1310, Closed)
        .flags(fins());
    let observed = run(&socket.events());
    assert_eq!(observed.durations_us(), [None, Some(200), Some(800), Some(300), Some(10)]);
    let closed = observed.only_closed();
    assert_eq!(
        closed.states,
        [
            (SynSent, Some(200), Observed),
            (Established, Some(800), Observed),
            (FinWait1, Some(300), Observed),
            (FinWait2, Some(10), Observed),
            (TimeWait, Some(TIME_WAIT_US), Modelled),
        ]
    );
    assert_eq!((closed.opened_us(), closed.closed_us(), closed.duration_us()), (Some(0), 1310, Some(1310)));
    assert_eq!(closed.handshake_parts(), (Some(200), Observed, None, Some(0), Some(190)));
    assert_eq!(
        (closed.close_cause.reason, closed.close_cause.closed_by),
        (CloseReason::Closed, Some(ClosedBy::Local))
    );
    assert_eq!(closed.close_cause.error, None);
    let connection = closed.connection;
    assert_eq!((connection.role, connection.incomplete, connection.gap), (Role::Client, false, false));
    assert_eq!((connection.local, connection.remote), (CLIENT, SERVER));
    assert_eq!((connection.netns, connection.cgroup_id), (Some(NETNS), Some(CGROUP)));
    assert_eq!((connection.owner.process, connection.owner.source), (Some(curl()), OwnerSource::Connect));
}

#[test]
fn a_client_whose_peer_closes_first() {
    let socket = ScriptedSocket::connected_client(1, curl())
        .step(1000, CloseWait)
        .step(1500, LastAck)
        .by(curl())
        .step(1600, Closed)
        .flags(fins());
    let observed = run(&socket.events());
    let closed = observed.only_closed();
    assert_eq!(
        closed.states,
        [
            (SynSent, Some(200), Observed),
            (Established, Some(800), Observed),
            (CloseWait, Some(500), Observed),
            (LastAck, Some(100), Observed),
        ]
    );
    assert_eq!(
        (closed.close_cause.reason, closed.close_cause.closed_by),
        (CloseReason::Closed, Some(ClosedBy::Remote))
    );
    assert_eq!(
        (closed.connection.role, closed.duration_us(), closed.after),
        (Role::Client, Some(1600), None)
    );
}

#[test]
fn a_server_whose_peer_closes_first() {
    let listener = ScriptedSocket::listener(9, 0, Some(nginx()));
    let socket = ScriptedSocket::accepted(1)
        .step(1000, CloseWait)
        .step(1500, LastAck)
        .by(worker())
        .step(1600, Closed)
        .flags(fins());
    let observed = run(listener.events().iter().chain(&socket.events()));
    let closed = observed.only_closed();
    assert_eq!(
        closed.states,
        [
            (SynReceived, Some(523), Measured),
            (Established, Some(990), Observed),
            (CloseWait, Some(500), Observed),
            (LastAck, Some(100), Observed),
        ]
    );
    // ESTABLISHED at 10 minus the measured handshake.
    assert_eq!(
        (closed.opened_us(), closed.closed_us(), closed.duration_us()),
        (Some(-513), 1600, Some(2113))
    );
    assert_eq!(closed.handshake_parts(), (Some(523), Measured, None, Some(0), Some(523)));
    assert_eq!(
        (closed.close_cause.reason, closed.close_cause.closed_by),
        (CloseReason::Closed, Some(ClosedBy::Remote))
    );
    let connection = closed.connection;
    assert_eq!(connection.role, Role::Server);
    // At LISTEN→SYN_RECV both endpoints were the listener's.
    assert_eq!((connection.local, connection.remote), (SERVER, CLIENT));
    assert_eq!((connection.owner.process, connection.owner.source), (Some(worker()), OwnerSource::Closer));
    assert_eq!(closed.after, None);
}

#[test]
fn a_server_that_closes_first() {
    let socket = ScriptedSocket::accepted(1)
        .step(1000, FinWait1)
        .by(nginx())
        .step(1300, FinWait2)
        .step(1400, Closed)
        .flags(fins());
    let observed = run(&socket.events());
    let closed = observed.only_closed();
    assert_eq!(
        closed.states,
        [
            (SynReceived, Some(523), Measured),
            (Established, Some(990), Observed),
            (FinWait1, Some(300), Observed),
            (FinWait2, Some(100), Observed),
            (TimeWait, Some(TIME_WAIT_US), Modelled),
        ]
    );
    assert_eq!(
        (closed.close_cause.reason, closed.close_cause.closed_by),
        (CloseReason::Closed, Some(ClosedBy::Local))
    );
    // No listener is known, so the closing process is the owner.
    assert_eq!(closed.connection.owner.source, OwnerSource::Closer);
}

#[test]
fn simultaneous_open() {
    let socket = ScriptedSocket::client(1)
        .step(0, SynSent)
        .by(curl())
        .step(150, SynReceived)
        .step(400, Established)
        .info(TcpInfo { srtt: Some(Micros(250)), ..TcpInfo::default() })
        .step(1000, CloseWait)
        .step(1100, LastAck)
        .by(curl())
        .step(1200, Closed)
        .flags(fins());
    let observed = run(&socket.events());
    let closed = observed.only_closed();
    assert_eq!(
        closed.states,
        [
            (SynSent, Some(150), Observed),
            (SynReceived, Some(250), Observed),
            (Established, Some(600), Observed),
            (CloseWait, Some(100), Observed),
            (LastAck, Some(100), Observed),
        ]
    );
    assert_eq!(closed.connection.role, Role::Simultaneous);
    assert_eq!(closed.handshake_parts(), (Some(400), Observed, None, Some(0), Some(250)));
    assert_eq!((closed.opened_us(), closed.duration_us()), (Some(0), Some(1200)));
    assert_eq!(closed.connection.owner.source, OwnerSource::Connect);
}

#[test]
fn simultaneous_open_that_is_reset_or_times_out() {
    for (errno, reason, by) in
        [(104, CloseReason::ResetByPeer, ClosedBy::Remote), (110, CloseReason::TimedOut, ClosedBy::Local)]
    {
        let socket = ScriptedSocket::client_in(1, curl(), SynReceived)
            .step(3_000_100, Closed)
            .flags(error(errno))
            .info(TcpInfo { retransmits: 2, ..TcpInfo::default() });
        let observed = run(&socket.events());
        let closed = observed.only_closed();
        assert_eq!(
            closed.states,
            [(SynSent, Some(100), Observed), (SynReceived, Some(3 * SECOND), Observed)],
            "{errno}"
        );
        assert_eq!((closed.close_cause.reason, closed.close_cause.closed_by), (reason, Some(by)));
        assert_eq!(closed.close_cause.error, Some(errno));
        let handshake = closed.handshake();
        assert_eq!((handshake.duration, handshake.retransmits), (None, Some(2)));
        assert!(closed.connection.never_established());
    }
}

#[test]
fn simultaneous_close() {
    let socket = ScriptedSocket::client_in(1, curl(), Closing).step(1000, Closed).flags(fins());
    let observed = run(&socket.events());
    let closed = observed.only_closed();
    assert_eq!(
        closed.states,
        [
            (SynSent, Some(200), Observed),
            (Established, Some(500), Observed),
            (FinWait1, Some(200), Observed),
            (Closing, Some(100), Observed),
            (TimeWait, Some(TIME_WAIT_US), Modelled),
        ]
    );
    assert_eq!(
        (closed.close_cause.reason, closed.close_cause.closed_by),
        (CloseReason::Closed, Some(ClosedBy::Both))
    );
    assert_eq!(closed.duration_us(), Some(1000));
}

/// RFC 9293's FIN_WAIT1→TIME_WAIT: on Linux the socket passes FIN_WAIT2 in the same softirq.
#[test]
fn fin_and_ack_in_one_segment() {
    let socket =
        ScriptedSocket::client_in(1, curl(), FinWait1).step(900, FinWait2).step(902, Closed).flags(fins());
    let observed = run(&socket.events());
    let states = &observed.only_closed().states;
    assert_eq!(states[3..], [(FinWait2, Some(2), Observed), (TimeWait, Some(TIME_WAIT_US), Modelled)]);
}

#[test]
fn a_half_closed_connection_shows_the_state_of_both_sides() {
    let client = ScriptedSocket::client_in(1, curl(), FinWait2);
    let server = ScriptedSocket::accepted(2).step(800, CloseWait);
    let listener = ScriptedSocket::listener(9, 0, Some(nginx()));
    let mut tracker = tracker(10);
    track(&mut tracker, listener.events().iter().chain(&client.events()).chain(&server.events()));
    let mut live: Vec<_> = tracker
        .connections()
        .map(|(socket, it)| (socket.0, it.state(), it.history.since(), it.owner.process))
        .collect();
    live.sort_by_key(|it| it.0);
    assert_eq!(
        live,
        [
            (1, FinWait2, Some(tracer_core_testing::script::time(900)), Some(curl())),
            (2, CloseWait, Some(tracer_core_testing::script::time(800)), Some(nginx())),
        ]
    );

    // An hour later the server closes as well.
    let hour = 3600 * SECOND;
    let server_end = server.step(hour, LastAck).by(nginx()).step(hour + 100, Closed).flags(fins());
    let client_end = client.step(hour + 50, Closed).flags(SocketFlags { attached: true, ..fins() });
    let observed = track(&mut tracker, client_end.events().iter().skip(4).chain(&server_end.events()[3..]));
    assert_eq!(observed.closed.len(), 2);
    let (client, server) = (&observed.closed[0], &observed.closed[1]);
    assert_eq!(client.states[3], (FinWait2, Some(hour + 50 - 900), Observed));
    assert_eq!(client.states[4], (TimeWait, Some(TIME_WAIT_US), Modelled));
    assert_eq!(client.close_cause.closed_by, Some(ClosedBy::Local));
    assert_eq!(server.states[2], (CloseWait, Some(hour - 800), Observed));
    assert_eq!(server.close_cause.closed_by, Some(ClosedBy::Remote));
}

/// Scripts a Fast Open child: the kernel creates it at the SYN, so its SYN_RECV is the handshake.
fn fast_open(socket: u64) -> ScriptedSocket {
    ScriptedSocket::server(socket).step(0, SynReceived)
}

#[test]
fn a_fast_open_handshake_is_observed() {
    let socket = fast_open(1)
        .step(219_175, Established)
        .info(TcpInfo { srtt: Some(Micros(219_170)), ..TcpInfo::default() })
        .step(300_000, CloseWait)
        .step(300_100, LastAck)
        .by(nginx())
        .step(300_200, Closed)
        .flags(fins());
    let observed = run(&socket.events());
    let closed = observed.only_closed();
    assert_eq!(closed.states[0], (SynReceived, Some(219_175), Observed));
    assert_eq!(closed.handshake_parts(), (Some(219_175), Observed, None, Some(0), Some(219_170)));
    assert_eq!((closed.opened_us(), closed.duration_us()), (Some(0), Some(300_200)));
}

/// SYN_RECV→FIN_WAIT1: the application closed a Fast Open child before the final ACK.
#[test]
fn a_fast_open_child_closed_by_its_application_before_the_final_ack() {
    let socket = fast_open(1)
        .step(5_000, FinWait1)
        .by(nginx())
        .step(220_000, FinWait2)
        .step(220_100, Closed)
        .flags(fins())
        .info(TcpInfo::default());
    let observed = run(&socket.events());
    let closed = observed.only_closed();
    assert_eq!(
        closed.states,
        [
            (SynReceived, Some(5_000), Observed),
            (FinWait1, Some(215_000), Observed),
            (FinWait2, Some(100), Observed),
            (TimeWait, Some(TIME_WAIT_US), Modelled),
        ]
    );
    assert_eq!(closed.connection.role, Role::Server);
    assert_eq!(
        (closed.close_cause.reason, closed.close_cause.closed_by),
        (CloseReason::Closed, Some(ClosedBy::Local))
    );
    assert_eq!((closed.opened_us(), closed.duration_us()), (Some(0), Some(220_100)));
}

/// SYN_RECV→CLOSE_WAIT: SYN, data and FIN arrived together.
#[test]
fn a_fast_open_child_closed_by_its_peer_before_the_final_ack() {
    let socket = fast_open(1)
        .step(2_000, CloseWait)
        .step(3_000, LastAck)
        .by(nginx())
        .step(90_000, Closed)
        .flags(fins())
        .info(TcpInfo::default());
    let observed = run(&socket.events());
    let closed = observed.only_closed();
    assert_eq!(
        closed.states,
        [
            (SynReceived, Some(2_000), Observed),
            (CloseWait, Some(1_000), Observed),
            (LastAck, Some(87_000), Observed),
        ]
    );
    assert_eq!(
        (closed.close_cause.reason, closed.close_cause.closed_by),
        (CloseReason::Closed, Some(ClosedBy::Remote))
    );
}

/// SYN_RECV→CLOSE: only a Fast Open child or a simultaneous open has a socket at that time.
#[test]
fn a_fast_open_child_that_is_reset_or_times_out() {
    for (errno, reason, by) in
        [(104, CloseReason::ResetByPeer, ClosedBy::Remote), (110, CloseReason::TimedOut, ClosedBy::Local)]
    {
        let info = TcpInfo { retransmits: 1, ..TcpInfo::default() };
        let flags = SocketFlags { attached: false, ..error(errno) };
        let socket = fast_open(1).step(3 * SECOND, Closed).flags(flags).info(info);
        let observed = run(&socket.events());
        assert_eq!(observed.durations_us(), [None, Some(3 * SECOND)]);
        let closed = observed.only_closed();
        assert_eq!((closed.close_cause.reason, closed.close_cause.closed_by), (reason, Some(by)));
        let handshake = closed.handshake();
        assert_eq!((handshake.duration, handshake.retransmits), (None, Some(1)));
        assert_eq!((closed.opened_us(), closed.duration_us()), (Some(0), Some(3 * SECOND)));
        assert_eq!(closed.states, [(SynReceived, Some(3 * SECOND), Observed)], "{errno}");
    }
}

#[test]
fn a_listener_is_not_a_connection() {
    let mut tracker = tracker(10);
    let socket =
        ScriptedSocket::listener(1, 0, Some(nginx())).step(7 * SECOND, Closed).by(nginx()).flags(shut());
    let observed = track(&mut tracker, &socket.events());
    assert_eq!((observed.steps.len(), observed.closed.len(), tracker.live()), (2, 0, 0));
    assert!(observed.steps.iter().all(|step| step.connection.is_none()));
    let counts = tracker.counts();
    assert_eq!((counts.transitions, counts.closed, counts.unmatched, counts.gaps), (2, 0, 0, 0));
}

/// The duration of a state is unknown only if its start was not seen.
#[test]
fn a_closed_listener_reports_how_long_it_listened() {
    let socket =
        ScriptedSocket::listener(1, 0, Some(nginx())).step(7 * SECOND, Closed).by(nginx()).flags(shut());
    assert_eq!(run(&socket.events()).durations_us(), [None, Some(7 * SECOND)]);
}

#[test]
fn a_killed_listener_reports_close_twice() {
    let killer = process(300, "ss");
    let socket = ScriptedSocket::listener(1, 0, Some(nginx()))
        .step(10, Closed)
        .by(killer)
        .flags(error(103))
        .step(11, Closed)
        .by(killer)
        .flags(error(103));
    let mut tracker = tracker(10);
    let observed = track(&mut tracker, &socket.events());
    assert_eq!(observed.steps.iter().map(|step| (step.from, step.to)).next_back(), Some((Closed, Closed)));
    assert_eq!((observed.closed.len(), tracker.live(), tracker.counts().transitions), (0, 0, 3));
}

/// LISTEN→CLOSE: the kernel aborts the connections that were not accepted.
#[test]
fn a_closed_listener_aborts_its_unaccepted_connections() {
    let listener = ScriptedSocket::listener(9, 0, Some(nginx()));
    let child = ScriptedSocket::accepted(1);
    let waiting = ScriptedSocket::accepted(2).step(100, CloseWait);
    let end = listener.clone().step(1000, Closed).by(nginx());
    let child_end = child.clone().step(1001, Closed).by(nginx()).flags(SocketFlags::default());
    let waiting_end = waiting.clone().step(1002, Closed).by(nginx()).flags(SocketFlags {
        shutdown_receive: true,
        peer_fin: true,
        ..SocketFlags::default()
    });
    let mut events = listener.events();
    events.extend(child.events());
    events.extend(waiting.events());
    for socket in [&end, &child_end, &waiting_end] {
        events.extend(socket.events().last());
    }
    let observed = run(&events);
    assert_eq!(observed.closed.len(), 2);
    for closed in &observed.closed {
        assert_eq!(
            (closed.close_cause.reason, closed.close_cause.closed_by),
            (CloseReason::Aborted, Some(ClosedBy::Local))
        );
        assert_eq!(closed.connection.owner.process, Some(nginx()));
        assert!(!closed.connection.gap && !closed.connection.incomplete);
    }
    assert_eq!(observed.steps.last().map(|step| (step.from, step.to)), Some((CloseWait, Closed)));
    assert_eq!(observed.steps[0].to, Listen);
}
