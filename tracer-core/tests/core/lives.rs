//! Every edge of the state diagram that Linux shows, as whole lives.

use tracer_core::{
    event::{
        Process, SocketFlags, TcpInfo,
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
use tracer_core_testing::script::{CGROUP, CLIENT, Life, NETNS, SECOND, SERVER, error, fins, process, shut};

use crate::observed::{feed, run, tracker};

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
    let life = Life::connected_client(1, curl())
        .info(TcpInfo { srtt_us: Some(190), ..TcpInfo::default() })
        .step(1000, FinWait1)
        .by(curl())
        .step(1300, FinWait2)
        .step(1310, Closed)
        .flags(fins());
    let observed = run(&life.events());
    assert_eq!(observed.durations_us(), [None, Some(200), Some(800), Some(300), Some(10)]);
    let ended = observed.only();
    assert_eq!(
        ended.states,
        [
            (SynSent, Some(200), Observed),
            (Established, Some(800), Observed),
            (FinWait1, Some(300), Observed),
            (FinWait2, Some(10), Observed),
            (TimeWait, Some(TIME_WAIT_US), Modelled),
        ]
    );
    assert_eq!((ended.opened_us(), ended.closed_us(), ended.duration_us()), (Some(0), 1310, Some(1310)));
    assert_eq!(ended.handshake_parts(), (Some(200), Observed, None, Some(0), Some(190)));
    assert_eq!(
        (ended.close_cause.reason, ended.close_cause.closed_by),
        (CloseReason::Closed, Some(ClosedBy::Local))
    );
    assert_eq!(ended.close_cause.error, None);
    let connection = ended.connection;
    assert_eq!((connection.role, connection.incomplete, connection.gap), (Role::Client, false, false));
    assert_eq!((connection.local, connection.remote), (CLIENT, SERVER));
    assert_eq!((connection.netns, connection.cgroup_id), (Some(NETNS), Some(CGROUP)));
    assert_eq!((connection.owner.process, connection.owner.source), (Some(curl()), OwnerSource::Connect));
}

#[test]
fn a_client_whose_peer_closes_first() {
    let life = Life::connected_client(1, curl())
        .step(1000, CloseWait)
        .step(1500, LastAck)
        .by(curl())
        .step(1600, Closed)
        .flags(fins());
    let observed = run(&life.events());
    let ended = observed.only();
    assert_eq!(
        ended.states,
        [
            (SynSent, Some(200), Observed),
            (Established, Some(800), Observed),
            (CloseWait, Some(500), Observed),
            (LastAck, Some(100), Observed),
        ]
    );
    assert_eq!(
        (ended.close_cause.reason, ended.close_cause.closed_by),
        (CloseReason::Closed, Some(ClosedBy::Remote))
    );
    assert_eq!((ended.connection.role, ended.duration_us(), ended.after), (Role::Client, Some(1600), None));
}

#[test]
fn a_server_whose_peer_closes_first() {
    let listener = Life::listener(9, 0, Some(nginx()));
    let life = Life::accepted(1)
        .step(1000, CloseWait)
        .step(1500, LastAck)
        .by(worker())
        .step(1600, Closed)
        .flags(fins());
    let observed = run(listener.events().iter().chain(&life.events()));
    let ended = observed.only();
    assert_eq!(
        ended.states,
        [
            (SynReceived, Some(523), Measured),
            (Established, Some(990), Observed),
            (CloseWait, Some(500), Observed),
            (LastAck, Some(100), Observed),
        ]
    );
    // Counted back from ESTABLISHED at 10.
    assert_eq!((ended.opened_us(), ended.closed_us(), ended.duration_us()), (Some(-513), 1600, Some(2113)));
    assert_eq!(ended.handshake_parts(), (Some(523), Measured, None, Some(0), Some(523)));
    assert_eq!(
        (ended.close_cause.reason, ended.close_cause.closed_by),
        (CloseReason::Closed, Some(ClosedBy::Remote))
    );
    let connection = ended.connection;
    assert_eq!(connection.role, Role::Server);
    // At LISTEN→SYN_RECV both were the listener's.
    assert_eq!((connection.local, connection.remote), (SERVER, CLIENT));
    assert_eq!((connection.owner.process, connection.owner.source), (Some(worker()), OwnerSource::Closer));
    assert_eq!(ended.after, None);
}

#[test]
fn a_server_that_closes_first() {
    let life = Life::accepted(1)
        .step(1000, FinWait1)
        .by(nginx())
        .step(1300, FinWait2)
        .step(1400, Closed)
        .flags(fins());
    let observed = run(&life.events());
    let ended = observed.only();
    assert_eq!(
        ended.states,
        [
            (SynReceived, Some(523), Measured),
            (Established, Some(990), Observed),
            (FinWait1, Some(300), Observed),
            (FinWait2, Some(100), Observed),
            (TimeWait, Some(TIME_WAIT_US), Modelled),
        ]
    );
    assert_eq!(
        (ended.close_cause.reason, ended.close_cause.closed_by),
        (CloseReason::Closed, Some(ClosedBy::Local))
    );
    // Nobody was seen to listen: the closer is all that is known.
    assert_eq!(ended.connection.owner.source, OwnerSource::Closer);
}

#[test]
fn simultaneous_open() {
    let life = Life::client(1)
        .step(0, SynSent)
        .by(curl())
        .step(150, SynReceived)
        .step(400, Established)
        .info(TcpInfo { srtt_us: Some(250), ..TcpInfo::default() })
        .step(1000, CloseWait)
        .step(1100, LastAck)
        .by(curl())
        .step(1200, Closed)
        .flags(fins());
    let observed = run(&life.events());
    let ended = observed.only();
    assert_eq!(
        ended.states,
        [
            (SynSent, Some(150), Observed),
            (SynReceived, Some(250), Observed),
            (Established, Some(600), Observed),
            (CloseWait, Some(100), Observed),
            (LastAck, Some(100), Observed),
        ]
    );
    assert_eq!(ended.connection.role, Role::Simultaneous);
    assert_eq!(ended.handshake_parts(), (Some(400), Observed, None, Some(0), Some(250)));
    assert_eq!((ended.opened_us(), ended.duration_us()), (Some(0), Some(1200)));
    assert_eq!(ended.connection.owner.source, OwnerSource::Connect);
}

#[test]
fn simultaneous_open_that_is_reset_or_times_out() {
    for (errno, reason, by) in
        [(104, CloseReason::ResetByPeer, ClosedBy::Remote), (110, CloseReason::TimedOut, ClosedBy::Local)]
    {
        let life = Life::client_in(1, curl(), SynReceived)
            .step(3_000_100, Closed)
            .flags(error(errno))
            .info(TcpInfo { retransmits: 2, ..TcpInfo::default() });
        let observed = run(&life.events());
        let ended = observed.only();
        assert_eq!(
            ended.states,
            [(SynSent, Some(100), Observed), (SynReceived, Some(3 * SECOND), Observed)],
            "{errno}"
        );
        assert_eq!((ended.close_cause.reason, ended.close_cause.closed_by), (reason, Some(by)));
        assert_eq!(ended.close_cause.error, Some(errno));
        let handshake = ended.handshake();
        assert_eq!((handshake.duration_ns, handshake.retransmits), (None, Some(2)));
        assert!(ended.connection.never_established());
    }
}

#[test]
fn simultaneous_close() {
    let life = Life::client_in(1, curl(), Closing).step(1000, Closed).flags(fins());
    let observed = run(&life.events());
    let ended = observed.only();
    assert_eq!(
        ended.states,
        [
            (SynSent, Some(200), Observed),
            (Established, Some(500), Observed),
            (FinWait1, Some(200), Observed),
            (Closing, Some(100), Observed),
            (TimeWait, Some(TIME_WAIT_US), Modelled),
        ]
    );
    assert_eq!(
        (ended.close_cause.reason, ended.close_cause.closed_by),
        (CloseReason::Closed, Some(ClosedBy::Both))
    );
    assert_eq!(ended.duration_us(), Some(1000));
}

/// RFC 9293's FIN_WAIT1→TIME_WAIT: on Linux the socket passes FIN_WAIT2 in the same softirq.
#[test]
fn fin_and_ack_in_one_segment() {
    let life = Life::client_in(1, curl(), FinWait1).step(900, FinWait2).step(902, Closed).flags(fins());
    let observed = run(&life.events());
    let states = &observed.only().states;
    assert_eq!(states[3..], [(FinWait2, Some(2), Observed), (TimeWait, Some(TIME_WAIT_US), Modelled)]);
}

#[test]
fn a_half_close_held_open_shows_both_ends_as_they_are() {
    let client = Life::client_in(1, curl(), FinWait2);
    let server = Life::accepted(2).step(800, CloseWait);
    let listener = Life::listener(9, 0, Some(nginx()));
    let mut tracker = tracker(10);
    feed(&mut tracker, listener.events().iter().chain(&client.events()).chain(&server.events()));
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
    let observed = feed(&mut tracker, client_end.events().iter().skip(4).chain(&server_end.events()[3..]));
    assert_eq!(observed.ended.len(), 2);
    let (client, server) = (&observed.ended[0], &observed.ended[1]);
    assert_eq!(client.states[3], (FinWait2, Some(hour + 50 - 900), Observed));
    assert_eq!(client.states[4], (TimeWait, Some(TIME_WAIT_US), Modelled));
    assert_eq!(client.close_cause.closed_by, Some(ClosedBy::Local));
    assert_eq!(server.states[2], (CloseWait, Some(hour - 800), Observed));
    assert_eq!(server.close_cause.closed_by, Some(ClosedBy::Remote));
}

/// A Fast Open child is made at the SYN: its SYN_RECV is a real one.
fn fast_open(socket: u64) -> Life {
    Life::server(socket).step(0, SynReceived)
}

#[test]
fn fast_open_is_observed() {
    let life = fast_open(1)
        .step(219_175, Established)
        .info(TcpInfo { srtt_us: Some(219_170), ..TcpInfo::default() })
        .step(300_000, CloseWait)
        .step(300_100, LastAck)
        .by(nginx())
        .step(300_200, Closed)
        .flags(fins());
    let observed = run(&life.events());
    let ended = observed.only();
    assert_eq!(ended.states[0], (SynReceived, Some(219_175), Observed));
    assert_eq!(ended.handshake_parts(), (Some(219_175), Observed, None, Some(0), Some(219_170)));
    assert_eq!((ended.opened_us(), ended.duration_us()), (Some(0), Some(300_200)));
}

/// SYN_RECV→FIN_WAIT1: the application closed a Fast Open child before the final ACK.
#[test]
fn fast_open_closed_before_it_was_established() {
    let life = fast_open(1)
        .step(5_000, FinWait1)
        .by(nginx())
        .step(220_000, FinWait2)
        .step(220_100, Closed)
        .flags(fins())
        .info(TcpInfo::default());
    let observed = run(&life.events());
    let ended = observed.only();
    assert_eq!(
        ended.states,
        [
            (SynReceived, Some(5_000), Observed),
            (FinWait1, Some(215_000), Observed),
            (FinWait2, Some(100), Observed),
            (TimeWait, Some(TIME_WAIT_US), Modelled),
        ]
    );
    assert_eq!(ended.connection.role, Role::Server);
    assert_eq!(
        (ended.close_cause.reason, ended.close_cause.closed_by),
        (CloseReason::Closed, Some(ClosedBy::Local))
    );
    assert_eq!((ended.opened_us(), ended.duration_us()), (Some(0), Some(220_100)));
}

/// SYN_RECV→CLOSE_WAIT: SYN, data and FIN came at once.
#[test]
fn fast_open_whose_peer_has_already_closed() {
    let life = fast_open(1)
        .step(2_000, CloseWait)
        .step(3_000, LastAck)
        .by(nginx())
        .step(90_000, Closed)
        .flags(fins())
        .info(TcpInfo::default());
    let observed = run(&life.events());
    let ended = observed.only();
    assert_eq!(
        ended.states,
        [
            (SynReceived, Some(2_000), Observed),
            (CloseWait, Some(1_000), Observed),
            (LastAck, Some(87_000), Observed),
        ]
    );
    assert_eq!(
        (ended.close_cause.reason, ended.close_cause.closed_by),
        (CloseReason::Closed, Some(ClosedBy::Remote))
    );
}

/// SYN_RECV→CLOSE: only a Fast Open child or a simultaneous open is a socket by then, so the time is real.
#[test]
fn fast_open_that_is_reset_or_times_out() {
    for (errno, reason, by) in
        [(104, CloseReason::ResetByPeer, ClosedBy::Remote), (110, CloseReason::TimedOut, ClosedBy::Local)]
    {
        let info = TcpInfo { retransmits: 1, ..TcpInfo::default() };
        let flags = SocketFlags { attached: false, ..error(errno) };
        let life = fast_open(1).step(3 * SECOND, Closed).flags(flags).info(info);
        let observed = run(&life.events());
        assert_eq!(observed.durations_us(), [None, Some(3 * SECOND)]);
        let ended = observed.only();
        assert_eq!((ended.close_cause.reason, ended.close_cause.closed_by), (reason, Some(by)));
        let handshake = ended.handshake();
        assert_eq!((handshake.duration_ns, handshake.retransmits), (None, Some(1)));
        assert_eq!((ended.opened_us(), ended.duration_us()), (Some(0), Some(3 * SECOND)));
        assert_eq!(ended.states, [(SynReceived, Some(3 * SECOND), Observed)], "{errno}");
    }
}

#[test]
fn a_listener_is_no_connection() {
    let mut tracker = tracker(10);
    let life = Life::listener(1, 0, Some(nginx())).step(7 * SECOND, Closed).by(nginx()).flags(shut());
    let observed = feed(&mut tracker, &life.events());
    assert_eq!((observed.steps.len(), observed.ended.len(), tracker.live()), (2, 0, 0));
    assert!(observed.steps.iter().all(|step| step.connection.is_none()));
    let counts = tracker.counts();
    assert_eq!((counts.transitions, counts.closed, counts.unmatched, counts.gaps), (2, 0, 0, 0));
}

/// The time in the state left is unknown only when its beginning was not seen.
#[test]
fn a_listener_s_time_is_known_when_its_beginning_was_seen() {
    let life = Life::listener(1, 0, Some(nginx())).step(7 * SECOND, Closed).by(nginx()).flags(shut());
    assert_eq!(run(&life.events()).durations_us(), [None, Some(7 * SECOND)]);
}

#[test]
fn a_killed_listener_closes_twice() {
    let killer = process(300, "ss");
    let life = Life::listener(1, 0, Some(nginx()))
        .step(10, Closed)
        .by(killer)
        .flags(error(103))
        .step(11, Closed)
        .by(killer)
        .flags(error(103));
    let mut tracker = tracker(10);
    let observed = feed(&mut tracker, &life.events());
    assert_eq!(observed.steps.iter().map(|step| (step.from, step.to)).next_back(), Some((Closed, Closed)));
    assert_eq!((observed.ended.len(), tracker.live(), tracker.counts().transitions), (0, 0, 3));
}

/// LISTEN→CLOSE: the kernel aborts what nobody had accepted.
#[test]
fn a_closed_listener_takes_unaccepted_children_along() {
    let listener = Life::listener(9, 0, Some(nginx()));
    let child = Life::accepted(1);
    let waiting = Life::accepted(2).step(100, CloseWait);
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
    for life in [&end, &child_end, &waiting_end] {
        events.extend(life.events().last());
    }
    let observed = run(&events);
    assert_eq!(observed.ended.len(), 2);
    for ended in &observed.ended {
        assert_eq!(
            (ended.close_cause.reason, ended.close_cause.closed_by),
            (CloseReason::Aborted, Some(ClosedBy::Local))
        );
        assert_eq!(ended.connection.owner.process, Some(nginx()));
        assert!(!ended.connection.gap && !ended.connection.incomplete);
    }
    assert_eq!(observed.steps.last().map(|step| (step.from, step.to)), Some((CloseWait, Closed)));
    assert_eq!(observed.steps[0].to, Listen);
}
