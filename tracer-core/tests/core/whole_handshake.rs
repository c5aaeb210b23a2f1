//! Resets with their reason, waits for `accept()`, and segments that the host dropped.

use tracer_core::{
    analysis::{HandshakeAttempt, HandshakeOutcome},
    event::{
        Call, Endpoint, Event, HandshakeSegment, KernelName, Nanos, Process, ResetReceived, ResetSent,
        SegmentDropped, SocketFlags, SocketId, TcpState, Timestamp, Transition,
    },
    lifecycle::{
        AcceptWait, CloseReason, ClosedBy, Observation, ObservedDrops, Reset, Tracker, TrackerOptions,
    },
    owner::OwnerSource,
};

const MS: u64 = 1_000_000;
const SOCKET: SocketId = SocketId(7);

fn endpoint(port: u16) -> Endpoint {
    Endpoint { address: "192.0.2.1".parse().expect("an address"), port }
}

fn step(at: u64, from: TcpState, to: TcpState) -> Transition {
    let flags = Some(SocketFlags { attached: true, ..SocketFlags::default() });
    Transition { flags, ..Transition::new(Timestamp(at), SOCKET, from, to, endpoint(80), endpoint(4000)) }
}

fn process(pid: u32) -> Process {
    Process { pid, uid: 0, comm: *b"server\0\0\0\0\0\0\0\0\0\0" }
}

fn reset(at: u64, socket: Option<SocketId>, state: TcpState, reason: &str) -> Event {
    Event::ResetSent(ResetSent {
        time: Timestamp(at),
        socket,
        state: Some(state),
        local: endpoint(80),
        remote: endpoint(4000),
        netns: None,
        reason: Some(KernelName::new(reason.as_bytes())),
    })
}

/// What a run reports: the resets and acceptance of closed connections, with the time of the event that made the report; and
/// waits for `accept()`.
#[derive(Debug, Default, PartialEq)]
struct Reported {
    closed: Vec<(u64, Option<Reset>, Option<bool>)>,
    waits: Vec<(AcceptWait, u32)>,
    refused: u32,
}

fn run(options: TrackerOptions, events: &[Event]) -> Reported {
    let mut tracker = Tracker::new(options);
    let mut reported = Reported::default();
    let mut see = |at: u64, observation: Observation<'_>| match observation {
        Observation::Closed(closed) => reported.closed.push((at, closed.reset, closed.accepted)),
        Observation::Accepted { connection, wait } => {
            reported.waits.push((wait, connection.owner.process.map_or(0, |process| process.pid)));
        }
        Observation::Refused(_) => reported.refused += 1,
        _ => {}
    };
    for event in events {
        tracker.observe(event, &mut |observation| see(event.time().0, observation));
    }
    tracker.finish(&mut |observation| see(u64::MAX, observation));
    reported
}

fn resets() -> TrackerOptions {
    TrackerOptions { resets: true, ..TrackerOptions::default() }
}

fn accepted_connection() -> Vec<Event> {
    vec![
        Event::Transition(step(0, TcpState::Listen, TcpState::SynReceived)),
        Event::Transition(step(MS, TcpState::SynReceived, TcpState::Established)),
    ]
}

fn aborted(at: u64) -> Event {
    // SO_LINGER 0.
    let flags = Some(SocketFlags {
        attached: true,
        linger_zero: true,
        shutdown_send: true,
        shutdown_receive: true,
        ..SocketFlags::default()
    });
    Event::Transition(Transition { flags, ..step(at, TcpState::Established, TcpState::Closed) })
}

#[test]
fn a_reset_after_the_close_is_waited_for() {
    let mut events = accepted_connection();
    events.push(aborted(5 * MS));
    events.push(reset(5 * MS + 1_000, Some(SOCKET), TcpState::Closed, "tcp_abort_on_linger"));
    let expected = Reset { by: ClosedBy::Local, reason: Some(KernelName::new(b"tcp_abort_on_linger")) };
    assert_eq!(run(resets(), &events).closed, [(5 * MS + 1_000, Some(expected), Some(true))]);
    // Without the hook nothing waits.
    assert_eq!(run(TrackerOptions::default(), &events).closed, [(5 * MS, None, Some(true))]);
}

#[test]
fn a_reset_that_does_not_come_delays_the_report_at_most_20_ms() {
    let mut events = accepted_connection();
    events.push(aborted(5 * MS));
    let then = |time| [events.as_slice(), &[Event::Time(Timestamp(time))]].concat();
    assert_eq!(run(resets(), &then(25 * MS)).closed, [(u64::MAX, None, Some(true))]);
    assert_eq!(run(resets(), &then(25 * MS + 1)).closed, [(25 * MS + 1, None, Some(true))]);
    // The kernel may use the socket's memory for the next connection at once.
    let next = Event::Transition(step(6 * MS, TcpState::Listen, TcpState::SynReceived));
    assert_eq!(run(resets(), &[events.as_slice(), &[next]].concat()).closed, [(6 * MS, None, Some(true))]);
}

#[test]
fn a_reset_before_the_close_names_its_sender() {
    let error = |error| Some(SocketFlags { error, attached: true, ..SocketFlags::default() });
    let close = |error_number| {
        Event::Transition(Transition {
            flags: error(error_number),
            ..step(5 * MS, TcpState::Established, TcpState::Closed)
        })
    };
    let received = Event::ResetReceived(ResetReceived { time: Timestamp(5 * MS - 1), socket: SOCKET });
    let events = [accepted_connection(), vec![received, close(104)]].concat();
    assert_eq!(
        run(resets(), &events).closed,
        [(5 * MS, Some(Reset { by: ClosedBy::Remote, reason: None }), Some(true))]
    );
    let killed = reset(5 * MS - 1, Some(SOCKET), TcpState::Established, "tcp_state");
    let events = [accepted_connection(), vec![killed, close(103)]].concat();
    let expected = Reset { by: ClosedBy::Local, reason: Some(KernelName::new(b"tcp_state")) };
    assert_eq!(run(resets(), &events).closed, [(5 * MS, Some(expected), Some(true))]);
}

#[test]
fn accept_ends_the_wait_and_a_read_is_only_an_upper_bound() {
    let read =
        Event::FirstRead(Call { time: Timestamp(9 * MS), socket: SOCKET, process: process(2), thread: None });
    let accept =
        Event::Accepted(Call { time: Timestamp(4 * MS), socket: SOCKET, process: process(1), thread: None });
    let events = [accepted_connection(), vec![accept, read]].concat();
    let observed = AcceptWait::Observed(Nanos::from_millis(3));
    // The connection counts once, although another process reads later.
    assert_eq!(run(resets(), &events).waits, [(observed, 1)]);
    let events = [accepted_connection(), vec![read]].concat();
    let at_most = AcceptWait::AtMost(Nanos::from_millis(8));
    assert_eq!(run(resets(), &events).waits, [(at_most, 2)]);
}

/// Concurrent calls may each be reported as the first.
#[test]
fn only_the_first_read_and_write_count() {
    let call = |time| Call { time: Timestamp(time * MS), socket: SOCKET, process: process(1), thread: None };
    let calls = [
        Event::FirstWrite(call(4)),
        Event::FirstRead(call(6)),
        Event::FirstWrite(call(8)),
        Event::FirstRead(call(9)),
    ];
    let events = [accepted_connection(), calls.to_vec()].concat();
    let mut tracker = Tracker::new(resets());
    let mut waits = 0;
    for event in &events {
        tracker.observe(event, &mut |observation| {
            waits += usize::from(matches!(observation, Observation::Accepted { .. }));
        });
    }
    let (_, connection) = tracker.connections().next().expect("it is open");
    assert_eq!(connection.first_write(), Some(Nanos::from_millis(3)));
    assert_eq!(connection.first_read(), Some(Nanos::from_millis(5)));
    assert_eq!(waits, 1);
}

/// A server may accept in one process and serve in another.
#[test]
fn the_acceptor_owns_a_connection_until_another_process_uses_it() {
    let accept =
        Event::Accepted(Call { time: Timestamp(4 * MS), socket: SOCKET, process: process(1), thread: None });
    let read = |pid| {
        Event::FirstRead(Call {
            time: Timestamp(9 * MS),
            socket: SOCKET,
            process: process(pid),
            thread: None,
        })
    };
    let close = |pid| {
        Event::Transition(Transition {
            process: Some(process(pid)),
            ..step(20 * MS, TcpState::Established, TcpState::FinWait1)
        })
    };
    let owner = |later: &[Event]| {
        let mut tracker = Tracker::new(TrackerOptions::default());
        for event in [accepted_connection(), vec![accept], later.to_vec()].concat() {
            tracker.observe(&event, &mut |_| ());
        }
        let (_, connection) = tracker.connections().next().expect("it is open");
        (connection.owner.process.map(|process| process.pid), connection.owner.source)
    };
    assert_eq!(owner(&[]), (Some(1), OwnerSource::Accept));
    assert_eq!(owner(&[read(1), close(1)]), (Some(1), OwnerSource::Accept));
    assert_eq!(owner(&[read(2), close(1)]), (Some(2), OwnerSource::Reader));
    assert_eq!(owner(&[close(3)]), (Some(3), OwnerSource::Closer));
}

#[test]
fn a_connection_that_no_process_accepted_says_so() {
    let flags = Some(SocketFlags { error: 104, ..SocketFlags::default() });
    let gone =
        Event::Transition(Transition { flags, ..step(5 * MS, TcpState::Established, TcpState::Closed) });
    let events = [accepted_connection(), vec![gone]].concat();
    assert_eq!(run(resets(), &events).closed, [(5 * MS, None, Some(false))]);
    // Without the socket's fields it is unknown.
    let bare = Event::Transition(Transition {
        flags: None,
        ..step(5 * MS, TcpState::Established, TcpState::Closed)
    });
    let events = [accepted_connection(), vec![bare]].concat();
    assert_eq!(run(TrackerOptions::default(), &events).closed, [(5 * MS, None, None)]);
}

#[test]
fn a_refused_syn_is_an_attempt_that_nobody_serves() {
    let mut tracker = Tracker::new(resets());
    let mut attempts = Vec::new();
    tracker.observe(&reset(MS, None, TcpState::Closed, "no_socket"), &mut |observation| {
        attempts.extend(HandshakeAttempt::ended_by(&observation));
    });
    assert_eq!(attempts.len(), 1);
    assert_eq!(attempts[0].outcome, HandshakeOutcome::Failed(CloseReason::Refused));
    assert!(attempts[0].unserved && attempts[0].local == endpoint(80));
    assert_eq!(tracker.counts().inbound_refused, 1);
}

#[test]
fn the_drops_of_a_failed_handshake_are_with_its_attempt() {
    let options = TrackerOptions { drops: ObservedDrops::All, ..TrackerOptions::default() };
    let mut tracker = Tracker::new(options);
    let syn = |time, reason: &str| {
        Event::SegmentDropped(SegmentDropped {
            time: Timestamp(time),
            socket: Some(SOCKET),
            source: endpoint(80),
            destination: endpoint(4000),
            netns: None,
            segment: HandshakeSegment::Syn,
            reason: KernelName::new(reason.as_bytes()),
            function: None,
        })
    };
    let timed_out = Transition {
        flags: Some(SocketFlags { error: 110, ..SocketFlags::default() }),
        ..step(3_000 * MS, TcpState::SynSent, TcpState::Closed)
    };
    let events = [
        Event::Transition(step(0, TcpState::Closed, TcpState::SynSent)),
        syn(1, "netfilter_drop"),
        syn(1_000 * MS, "netfilter_drop"),
        // Answered with a reset, so not lost.
        syn(1_001 * MS, "no_socket"),
        syn(1_002 * MS, "not_specified"),
        Event::Transition(timed_out),
    ];
    let mut attempts = Vec::new();
    for event in &events {
        tracker.observe(event, &mut |observation| attempts.extend(HandshakeAttempt::ended_by(&observation)));
    }
    assert_eq!(attempts.len(), 1);
    let drops: Vec<_> = attempts[0].drops.iter().map(|drop| (drop.reason.to_string(), drop.count)).collect();
    assert_eq!(drops, [("netfilter_drop".to_owned(), 2)]);
    assert_eq!(attempts[0].drops.observed, ObservedDrops::All);
    assert_eq!(tracker.counts().segments_dropped, 2);
}
