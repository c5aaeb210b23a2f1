//! Events of whole connections, and the observations the core makes of them.

use tracer_core::{
    event::{
        Event, Micros, Netns, SocketFlags, SocketId, TcpInfo,
        TcpState::{
            self, CloseWait, Closed, Closing, Established, FinWait1, FinWait2, LastAck, Listen, SynReceived,
            SynSent,
        },
        Timestamp, Transition,
    },
    lifecycle::{Observation, Tracker, TrackerOptions},
};

use crate::attempts::{MS, SECOND, US, end, process};

const BEGIN: u64 = 1_000 * SECOND;

fn flags(error: u16) -> SocketFlags {
    SocketFlags {
        error,
        shutdown_receive: true,
        shutdown_send: true,
        peer_fin: error == 0,
        ..SocketFlags::default()
    }
}

/// Returns the transitions of one socket: each step is a time in nanoseconds and the state entered. `error` is the
/// socket's error at its close.
pub(crate) fn socket_events(
    socket: u64,
    first: TcpState,
    steps: &[(u64, TcpState)],
    error: u16,
) -> Vec<Event> {
    let mut from = first;
    let port = u16::try_from(socket % 20_000).unwrap() + 20_000;
    let mut events = Vec::new();
    for &(at, to) in steps {
        let server = first == Listen || to == Listen || from == Listen;
        let (local, remote) = match (from, to) {
            (_, Listen) | (Listen, Closed) => (end("0.0.0.0", 443), end("0.0.0.0", 0)),
            _ if server || first == Listen => (end("10.0.0.1", 443), end("10.0.0.2", port)),
            (Closed, SynSent) => (end("10.0.0.1", 0), end("10.0.0.9", 8080)),
            _ => (end("10.0.0.1", port), end("10.0.0.9", 8080)),
        };
        let info = TcpInfo { segments_sent: 3, srtt: Some(Micros(40_000)), ..TcpInfo::default() };
        events.push(Event::Transition(Transition {
            time: Timestamp(BEGIN + at),
            socket: SocketId(socket),
            cookie: None,
            from,
            to,
            local,
            remote,
            process: (from == Closed).then(|| process(4711, "orders-api")),
            thread: None,
            netns: Some(Netns(1)),
            cgroup_id: None,
            accept_queue: None,
            data_segments: None,
            unaccepted_segments: None,
            interface: None,
            transparent: false,
            defer_accept: false,
            sequences: None,
            flags: (to == Closed && from != Listen).then(|| flags(error)),
            info: (to == Established || (to == Closed && from != Listen)).then_some(info),
        }));
        from = to;
    }
    events
}

/// Returns the events of a mostly healthy host: 40 client and 20 server connections, and some of every other kind.
pub(crate) fn host() -> Vec<Event> {
    let mut events = socket_events(1, Closed, &[(0, Listen)], 0);
    let mut socket = 100;
    let mut add = |count: u64, first: TcpState, steps: &[(u64, TcpState)], error: u16| {
        for index in 0..count {
            socket += 1;
            let moved: Vec<_> = steps.iter().map(|&(at, to)| (at + index * 10 * MS, to)).collect();
            events.extend(socket_events(socket, first, &moved, error));
        }
    };
    let open = [(0, SynSent), (20 * MS, Established)];
    let with = |rest: &[(u64, TcpState)]| [&open[..], rest].concat();
    add(40, Closed, &with(&[(400 * MS, FinWait1), (420 * MS, FinWait2), (440 * MS, Closed)]), 0);
    let served = [(0, SynReceived), (12 * US, Established)];
    add(
        20,
        Listen,
        &[&served[..], &[(300 * MS, CloseWait), (305 * MS, LastAck), (325 * MS, Closed)]].concat(),
        0,
    );
    add(3, Closed, &[(0, SynSent), (7 * SECOND, Closed)], 110);
    add(5, Closed, &[(0, SynSent), (MS, Closed)], 111);
    add(4, Closed, &with(&[(SECOND, Closed)]), 104);
    add(2, Closed, &with(&[(SECOND, FinWait1), (1010 * MS, Closing), (1020 * MS, Closed)]), 0);
    add(1, Closed, &with(&[(SECOND, FinWait1), (9 * SECOND, Closed)]), 110);
    add(6, Closed, &open, 0);
    add(2, Listen, &[&served[..], &[(300 * MS, CloseWait)]].concat(), 0);
    add(1, Closed, &[(0, SynSent)], 0);
    events.sort_by_key(Event::time);
    events
}

/// Passes the events to a tracker and its observations to `observer`.
pub(crate) fn observe(events: &[Event], mut observer: impl FnMut(Observation<'_>)) -> Tracker {
    let mut tracker = Tracker::new(TrackerOptions::default());
    for event in events {
        tracker.observe(event, &mut |observation| observer(observation));
    }
    tracker
}
