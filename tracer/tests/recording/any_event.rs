//! Strategies for events of every kind with any values.

use std::net::IpAddr;

use proptest::{option, prelude::*};
use tracer_core::event::{
    AcceptQueue, Call, CgroupId, Endpoint, Event, ExistingSocket, ExistingTimewait, HandshakeSegment,
    InitialSequences, KernelName, Micros, Millis, Nanos, Netns, Process, ResetReceived, ResetSent,
    SegmentDropped, SocketCookie, SocketFlags, SocketId, SynAckRetransmit, TcpInfo, TcpState, ThreadName,
    Timestamp, TimewaitEnd, Transition, Translated,
};

fn time() -> impl Strategy<Value = Timestamp> {
    any::<u64>().prop_map(Timestamp)
}

fn state() -> impl Strategy<Value = TcpState> {
    prop::sample::select(TcpState::ALL.to_vec())
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let some = |text: &str| Just(text.parse::<IpAddr>().unwrap());
    let address = prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from),
        some("0.0.0.0"),
        some("::"),
        some("::ffff:10.0.0.1"),
    ];
    (address, prop_oneof![Just(0), any::<u16>()]).prop_map(|(address, port)| Endpoint { address, port })
}

fn comm() -> impl Strategy<Value = [u8; 16]> {
    let plain = "[a-z:/ _-]{0,15}".prop_map(|name| {
        let mut comm = [0; 16];
        comm[..name.len()].copy_from_slice(name.as_bytes());
        comm
    });
    prop_oneof![any::<[u8; 16]>(), plain, Just(*b"a\\x1b\0\0\0\0\0\0\0\0\0\0\0")]
}

fn process() -> impl Strategy<Value = Process> {
    (any::<u32>(), any::<u32>(), comm()).prop_map(|(pid, uid, comm)| Process { pid, uid, comm })
}

fn queue() -> impl Strategy<Value = AcceptQueue> {
    any::<(u32, u32)>().prop_map(|(length, limit)| AcceptQueue { length, limit })
}

fn flags() -> impl Strategy<Value = SocketFlags> {
    any::<(u16, [bool; 8])>().prop_map(|(error, [a, b, c, d, e, f, g, h])| SocketFlags {
        error,
        shutdown_receive: a,
        shutdown_send: b,
        peer_fin: c,
        linger_zero: d,
        attached: e,
        repair: f,
        linger2_negative: g,
        fast_open_deferred: h,
    })
}

fn info() -> impl Strategy<Value = TcpInfo> {
    let known = any::<([u64; 2], [u32; 8], u8, u8, u16)>();
    let perhaps = any::<(Option<u32>, Option<u32>, Option<u32>)>();
    (known, perhaps).prop_map(|((large, words, pending, probes, soft), (srtt, rtt, timeout))| TcpInfo {
        bytes_sent: large[0],
        bytes_received: large[1],
        segments_sent: words[0],
        segments_received: words[1],
        data_segments_received: words[2],
        retransmits: words[3],
        srtt: srtt.map(Micros),
        min_rtt: rtt.map(Micros),
        mss: words[4],
        user_timeout: timeout.map(Millis),
        unacked_bytes: words[5],
        unread_bytes: words[6],
        segments_in_flight: words[7],
        pending_retransmits: pending,
        probes,
        soft_error: soft,
    })
}

fn sequences(isns: Option<(u32, Option<u32>)>) -> Option<InitialSequences> {
    isns.map(|(local, remote)| InitialSequences { local, remote })
}

fn transition() -> impl Strategy<Value = Event> {
    let who = (time(), any::<u64>(), any::<Option<u64>>(), state(), state());
    let what = (endpoint(), endpoint(), option::of(process()), any::<Option<u32>>(), any::<Option<u64>>());
    let more = (
        option::of(queue()),
        option::of(flags()),
        option::of(info()),
        option::of(comm().prop_map(ThreadName)),
    );
    let evidence = any::<([Option<u32>; 3], bool, bool, Option<(u32, Option<u32>)>)>();
    (who, what, more, evidence).prop_map(
        |(
            (time, socket, cookie, from, to),
            (local, remote, process, netns, cgroup_id),
            (accept_queue, flags, info, thread),
            ([data_segments, unaccepted_segments, interface], transparent, defer_accept, isns),
        )| {
            Event::Transition(Transition {
                time,
                socket: SocketId(socket),
                cookie: cookie.map(SocketCookie),
                from,
                to,
                local,
                remote,
                process,
                thread,
                netns: netns.map(Netns),
                cgroup_id: cgroup_id.map(CgroupId),
                accept_queue,
                data_segments,
                unaccepted_segments,
                interface,
                transparent,
                defer_accept,
                flags,
                info,
                sequences: sequences(isns),
            })
        },
    )
}

fn existing() -> impl Strategy<Value = Event> {
    let who = (time(), any::<u64>(), state(), any::<Option<u64>>(), endpoint(), endpoint());
    let what = (option::of(process()), any::<Option<u32>>(), any::<Option<u64>>(), option::of(info()));
    (who, what).prop_map(
        |((time, cookie, state, state_age, local, remote), (process, netns, cgroup_id, info))| {
            Event::Existing(ExistingSocket {
                time,
                cookie: SocketCookie(cookie),
                state,
                state_age: state_age.map(Nanos),
                local,
                remote,
                process,
                netns: netns.map(Netns),
                cgroup_id: cgroup_id.map(CgroupId),
                info,
                interface: netns,
            })
        },
    )
}

fn syn_ack() -> impl Strategy<Value = Event> {
    let who = (time(), any::<u64>(), endpoint(), endpoint(), any::<Option<u32>>());
    let isns = any::<Option<(u32, Option<u32>)>>();
    (who, any::<u8>(), option::of(time()), option::of(queue()), any::<bool>(), isns).prop_map(
        |((time, listener, local, remote, netns), attempts, first_sent, accept_queue, acked, isns)| {
            Event::SynAckRetransmit(SynAckRetransmit {
                time,
                listener: SocketId(listener),
                local,
                remote,
                netns: netns.map(Netns),
                attempts,
                first_sent,
                accept_queue,
                acked,
                sequences: sequences(isns),
            })
        },
    )
}

fn name() -> impl Strategy<Value = KernelName> {
    any::<Vec<u8>>().prop_map(|bytes| KernelName::new(&bytes))
}

fn call() -> impl Strategy<Value = Call> {
    (time(), any::<u64>(), process(), option::of(comm().prop_map(ThreadName)))
        .prop_map(|(time, socket, process, thread)| Call { time, socket: SocketId(socket), process, thread })
}

/// Returns a strategy for any event.
pub(crate) fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => transition(),
        2 => existing(),
        1 => (time(), any::<bool>()).prop_map(|(started, timewait)| Event::DumpEnd { started, timewait }),
        1 => (time(), state(), time(), endpoint(), endpoint(), any::<Option<u32>>()).prop_map(
            |(time, state, timer_due, local, remote, netns)| {
                Event::ExistingTimewait(ExistingTimewait { time, state, timer_due, local, remote, netns: netns.map(Netns) })
            }
        ),
        1 => (time(), any::<u32>()).prop_map(|(started, netns)| Event::DumpScope { started, netns: Netns(netns) }),
        2 => syn_ack(),
        1 => call().prop_map(Event::FirstRead),
        1 => call().prop_map(Event::FirstWrite),
        1 => call().prop_map(Event::Accepted),
        1 => (time(), state(), endpoint(), endpoint(), any::<Option<u32>>()).prop_map(
            |(time, state, local, remote, netns)| {
                Event::TimewaitEnd(TimewaitEnd { time, state, local, remote, netns: netns.map(Netns) })
            }
        ),
        1 => (time(), any::<Option<u64>>(), option::of(state()), endpoint(), endpoint(), any::<Option<u32>>(), option::of(name())).prop_map(
            |(time, socket, state, local, remote, netns, reason)| {
                let (socket, netns) = (socket.map(SocketId), netns.map(Netns));
                Event::ResetSent(ResetSent { time, socket, state, local, remote, netns, reason })
            }
        ),
        1 => (time(), any::<u64>()).prop_map(|(time, socket)| {
            Event::ResetReceived(ResetReceived { time, socket: SocketId(socket) })
        }),
        1 => (
            (time(), any::<Option<u64>>(), endpoint(), endpoint(), any::<Option<u32>>()),
            (prop::sample::select(HandshakeSegment::ALL.to_vec()), name(), option::of(name())),
        ).prop_map(|((time, socket, source, destination, netns), (segment, reason, function))| {
            let (socket, netns) = (socket.map(SocketId), netns.map(Netns));
            Event::SegmentDropped(SegmentDropped { time, socket, source, destination, netns, segment, reason, function })
        }),
        1 => (time(), endpoint(), endpoint(), endpoint(), any::<Option<u32>>()).prop_map(
            |(time, client, service, backend, netns)| {
                Event::Translated(Translated { time, client, service, backend, netns: netns.map(Netns) })
            }
        ),
        1 => time().prop_map(Event::Time),
    ]
}
