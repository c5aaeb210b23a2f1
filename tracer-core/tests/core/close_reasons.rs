//! The close reason that follows from the last transition of the kernel.

use tracer_core::{
    event::{
        Micros, Millis, Nanos, Process, SocketFlags, TcpInfo,
        TcpState::{
            self, CloseWait, Closed, Closing, Established, FinWait1, FinWait2, LastAck, SynReceived, SynSent,
        },
    },
    lifecycle::{
        CloseReason::{
            self, Aborted, Cancelled, Disconnected, KeepaliveTimeout, Killed, NoLocalPort, PeerVanished,
            Refused, ResetByPeer, RetransmissionTimeout, TimedOut, Unknown, Unreachable, UnreadData,
            UserTimeout,
        },
        ClosedBy::{self, Both, Local, Remote},
    },
};
use tracer_core_testing::script::{SECOND, ScriptedSocket, error, fins, open, process, shut};

use crate::observed::{ClosedRecord, run};

const END: u64 = 5 * SECOND;

fn app() -> Process {
    process(100, "app")
}

/// Closes a client in `from`.
fn close(
    from: TcpState,
    by: Option<Process>,
    flags: Option<SocketFlags>,
    info: Option<TcpInfo>,
) -> ClosedRecord {
    let socket = ScriptedSocket::client_in(1, app(), from).step(END, Closed).with(|last| {
        last.process = by;
        last.flags = flags;
        last.info = info;
    });
    run(&socket.events()).only_closed().clone()
}

/// The flags at `close()` of a socket that an application holds.
fn closing() -> SocketFlags {
    SocketFlags { attached: true, ..shut() }
}

fn lingering() -> SocketFlags {
    SocketFlags { linger_zero: true, ..closing() }
}

/// The flags at `close()` after the peer's FIN.
fn peer_closed(flags: SocketFlags) -> SocketFlags {
    SocketFlags { peer_fin: true, shutdown_receive: true, ..flags }
}

/// The flags after `shutdown(SHUT_WR)`.
fn half_shut(flags: SocketFlags) -> SocketFlags {
    SocketFlags { shutdown_send: true, ..flags }
}

fn retransmitting(pending_retransmits: u8) -> TcpInfo {
    TcpInfo {
        pending_retransmits,
        retransmits: u32::from(pending_retransmits),
        unacked_bytes: 1000,
        segments_sent: 1 + u32::from(pending_retransmits),
        ..TcpInfo::default()
    }
}

/// A description, the previous state, whether a process is named, the evidence, and the expected result.
type Row = (&'static str, TcpState, bool, SocketFlags, TcpInfo, CloseReason, Option<ClosedBy>);

/// Checks every row and reports all failures together.
fn check(rows: &[Row]) {
    let mut wrong = Vec::new();
    for &(name, from, by_process, flags, info, reason, closed_by) in rows {
        let closed = close(from, by_process.then(app), Some(flags), Some(info));
        let got = (closed.close_cause.reason, closed.close_cause.closed_by);
        if got != (reason, closed_by) {
            wrong.push(format!("{name} in {from:?}: expected {reason:?} {closed_by:?}, got {got:?}"));
        }
        let errno = (flags.error != 0).then_some(flags.error);
        if closed.close_cause.error != errno {
            wrong.push(format!(
                "{name} in {from:?}: expected error {errno:?}, got {:?}",
                closed.close_cause.error
            ));
        }
        if closed.connection.owner.process != Some(app()) {
            wrong.push(format!("{name} in {from:?}: the owner changed"));
        }
        if closed.closed_us() != END || closed.duration_us() != Some(END) {
            wrong.push(format!("{name} in {from:?}: {:?} to {}", closed.opened_us(), closed.closed_us()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn reasons_while_connecting() {
    let none = TcpInfo { segments_sent: 1, ..TcpInfo::default() };
    let soft = TcpInfo { soft_error: 113, ..retransmitting(6) };
    let user = TcpInfo { user_timeout: Some(Millis(700)), ..retransmitting(1) };
    check(&[
        ("reset", SynSent, false, error(111), none, Refused, Some(Remote)),
        ("no answer", SynSent, false, error(110), retransmitting(6), TimedOut, Some(Local)),
        ("no answer within TCP_USER_TIMEOUT", SynSent, false, error(110), user, TimedOut, Some(Local)),
        ("ICMP port unreachable", SynSent, false, error(111), none, Refused, Some(Remote)),
        ("ICMP host unreachable", SynSent, false, error(113), none, Unreachable, Some(Remote)),
        ("ICMP network unreachable", SynSent, false, error(101), none, Unreachable, Some(Remote)),
        ("ICMP protocol unreachable", SynSent, false, error(92), none, Unreachable, Some(Remote)),
        ("ICMP parameter problem", SynSent, false, error(71), none, Unreachable, Some(Remote)),
        ("ICMP source route failed", SynSent, false, error(95), none, Unreachable, Some(Remote)),
        ("ICMP host unknown", SynSent, false, error(112), none, Unreachable, Some(Remote)),
        ("ICMPv6 administratively prohibited", SynSent, false, error(13), none, Unreachable, Some(Remote)),
        ("a soft ICMP error before the timeout", SynSent, false, error(113), soft, Unreachable, Some(Remote)),
        ("close()", SynSent, true, closing(), none, Cancelled, Some(Local)),
        (
            "close() after retransmissions",
            SynSent,
            true,
            closing(),
            retransmitting(2),
            Cancelled,
            Some(Local),
        ),
        ("close() with SO_LINGER 0", SynSent, true, lingering(), none, Cancelled, Some(Local)),
        ("shutdown()", SynSent, true, open(), none, Cancelled, Some(Local)),
        ("connect(AF_UNSPEC)", SynSent, true, open(), none, Cancelled, Some(Local)),
        ("ss -K", SynSent, true, error(103), none, Killed, Some(Local)),
        ("reset", SynReceived, false, error(104), none, ResetByPeer, Some(Remote)),
        ("no answer", SynReceived, false, error(110), retransmitting(5), TimedOut, Some(Local)),
    ]);
}

/// A Fast Open child exists, and may be accepted and closed, before the handshake ends.
#[test]
fn reasons_in_syn_received_without_an_error() {
    let none = TcpInfo::default();
    let unread = TcpInfo { unread_bytes: 100, ..none };
    let unaccepted = SocketFlags { attached: false, ..open() };
    check(&[
        ("the listener was closed", SynReceived, true, unaccepted, unread, Aborted, Some(Local)),
        ("SO_LINGER 0", SynReceived, true, lingering(), unread, Aborted, Some(Local)),
        ("close() with unread data", SynReceived, true, closing(), unread, UnreadData, Some(Local)),
        ("connect(AF_UNSPEC)", SynReceived, true, open(), unread, Disconnected, Some(Local)),
        ("AF_UNSPEC after shutdown()", SynReceived, true, closing(), none, Disconnected, Some(Local)),
    ]);
}

/// EADDRNOTAVAIL: the connection closes after a microsecond, with a local port of 0.
#[test]
fn a_connection_without_a_free_port_has_its_own_reason() {
    let socket = ScriptedSocket::client_in(1, app(), SynSent)
        .step(1, Closed)
        .by(app())
        .flags(open())
        .with(|last| last.local.port = 0);
    let observed = run(&socket.events());
    let closed = observed.only_closed();
    assert_eq!((closed.close_cause.reason, closed.close_cause.closed_by), (NoLocalPort, Some(Local)));
    assert_eq!((closed.duration_us(), closed.connection.local.port), (Some(1), 0));
}

#[test]
fn reasons_while_established() {
    let none = TcpInfo::default();
    let unacked = TcpInfo { unacked_bytes: 1, ..none };
    let keepalive = TcpInfo { probes: 9, ..none };
    let user = TcpInfo { user_timeout: Some(Millis(700)), ..retransmitting(2) };
    let unread = TcpInfo { unread_bytes: 100, ..none };
    check(&[
        ("RST", Established, false, error(104), none, ResetByPeer, Some(Remote)),
        ("RST", CloseWait, false, peer_closed(error(32)), none, ResetByPeer, Some(Remote)),
        ("RST", CloseWait, false, peer_closed(error(104)), none, ResetByPeer, Some(Remote)),
        ("SO_LINGER 0", Established, true, lingering(), none, Aborted, Some(Local)),
        ("SO_LINGER 0", CloseWait, true, peer_closed(lingering()), none, Aborted, Some(Local)),
        ("close() with unread data", Established, true, closing(), unread, UnreadData, Some(Local)),
        (
            "close() with unread data",
            CloseWait,
            true,
            peer_closed(closing()),
            unread,
            UnreadData,
            Some(Local),
        ),
        ("connect(AF_UNSPEC)", Established, true, open(), none, Disconnected, Some(Local)),
        ("connect(AF_UNSPEC)", CloseWait, true, peer_closed(open()), none, Disconnected, Some(Local)),
        ("ss -K", Established, true, error(103), none, Killed, Some(Local)),
        ("ss -K", CloseWait, true, peer_closed(error(103)), none, Killed, Some(Local)),
        (
            "retransmissions",
            Established,
            false,
            error(110),
            retransmitting(15),
            RetransmissionTimeout,
            Some(Local),
        ),
        (
            "retransmissions",
            CloseWait,
            false,
            peer_closed(error(110)),
            retransmitting(15),
            RetransmissionTimeout,
            Some(Local),
        ),
        ("TCP_USER_TIMEOUT", Established, false, error(110), user, UserTimeout, Some(Local)),
        ("zero-window probes", Established, false, error(110), unacked, RetransmissionTimeout, Some(Local)),
        ("keepalive", Established, false, error(110), keepalive, KeepaliveTimeout, Some(Local)),
        ("keepalive", CloseWait, false, peer_closed(error(110)), keepalive, KeepaliveTimeout, Some(Local)),
        (
            "retransmissions after ICMP",
            Established,
            false,
            error(113),
            retransmitting(15),
            Unreachable,
            Some(Remote),
        ),
        ("no known error", Established, false, error(12), none, Unknown, None),
    ]);
}

#[test]
fn reasons_while_closing() {
    let none = TcpInfo::default();
    let orphan = |error| SocketFlags { error, ..shut() };
    let unread = TcpInfo { unread_bytes: 100, ..none };
    check(&[
        ("hand-over", FinWait2, false, fins(), none, CloseReason::Closed, Some(Local)),
        ("hand-over without the peer's FIN", FinWait2, false, shut(), none, CloseReason::Closed, Some(Local)),
        ("hand-over", Closing, false, fins(), none, CloseReason::Closed, Some(Both)),
        ("final ACK", LastAck, false, fins(), none, CloseReason::Closed, Some(Remote)),
        ("retransmissions", FinWait1, false, orphan(110), retransmitting(8), PeerVanished, Some(Local)),
        ("retransmissions", Closing, false, orphan(110), retransmitting(8), PeerVanished, Some(Local)),
        (
            "retransmissions",
            LastAck,
            false,
            peer_closed(orphan(110)),
            retransmitting(8),
            PeerVanished,
            Some(Local),
        ),
        ("RST", FinWait1, false, orphan(104), none, ResetByPeer, Some(Remote)),
        ("RST", FinWait2, false, orphan(104), none, ResetByPeer, Some(Remote)),
        ("RST", Closing, false, peer_closed(orphan(104)), none, ResetByPeer, Some(Remote)),
        ("RST", LastAck, false, peer_closed(orphan(104)), none, ResetByPeer, Some(Remote)),
        ("ss -K", FinWait1, false, half_shut(error(103)), none, Killed, Some(Local)),
        ("ss -K", FinWait2, false, half_shut(error(103)), none, Killed, Some(Local)),
        ("ss -K", LastAck, false, fins_with(103), none, Killed, Some(Local)),
        ("SO_LINGER 0 after shutdown()", FinWait1, false, lingering(), none, Aborted, Some(Local)),
        ("unread data after shutdown()", FinWait1, false, closing(), unread, UnreadData, Some(Local)),
        ("AF_UNSPEC after shutdown()", FinWait1, false, half_shut(open()), none, Disconnected, Some(Local)),
    ]);
}

fn fins_with(error: u16) -> SocketFlags {
    SocketFlags { error, ..fins() }
}

/// After `shutdown(SHUT_WR)` the peer continues to send, and the application aborts. The kernel hands over to
/// a timewait socket only if the application has closed its descriptor (`attached` clear) or the peer's FIN
/// has arrived (`peer_fin`). Neither is the case here.
#[test]
fn an_abort_in_fin_wait_2_is_not_an_orderly_close() {
    let none = TcpInfo::default();
    let unread = TcpInfo { unread_bytes: 100, ..none };
    check(&[
        ("SO_LINGER 0", FinWait2, false, lingering(), none, Aborted, Some(Local)),
        ("close() with unread data", FinWait2, false, closing(), unread, UnreadData, Some(Local)),
        ("connect(AF_UNSPEC)", FinWait2, false, half_shut(open()), none, Disconnected, Some(Local)),
    ]);
}

/// A connection that did not close with FINs leaves no timewait socket.
#[test]
fn only_an_orderly_close_has_a_state_after_it() {
    for flags in [error(104), error(110), error(103)] {
        for from in [SynSent, Established, FinWait1, FinWait2, CloseWait, Closing, LastAck] {
            let closed = close(from, None, Some(flags), Some(TcpInfo::default()));
            assert_eq!(closed.after, None, "{from:?} {}", flags.error);
            assert_eq!(closed.total, Some(Nanos::from_micros(END)), "{from:?} {}", flags.error);
        }
    }
}

/// For a source that cannot read sockets.
#[test]
fn transitions_without_evidence_show_only_orderly_closes() {
    for (from, reason, by) in [
        (SynSent, Unknown, None),
        (SynReceived, Unknown, None),
        (Established, Unknown, None),
        (CloseWait, Unknown, None),
        (FinWait1, Unknown, None),
        (FinWait2, CloseReason::Closed, Some(Local)),
        (Closing, CloseReason::Closed, Some(Both)),
        (LastAck, CloseReason::Closed, Some(Remote)),
    ] {
        let closed = close(from, None, None, None);
        assert_eq!((closed.close_cause.reason, closed.close_cause.closed_by), (reason, by), "{from:?}");
        assert_eq!(closed.close_cause.error, None);
    }
}

/// Without connection statistics the three kinds of timeout are indistinguishable.
#[test]
fn a_timeout_without_statistics_is_unknown() {
    for from in [Established, CloseWait] {
        let closed = close(from, None, Some(error(110)), None);
        assert_eq!((closed.close_cause.reason, closed.close_cause.error), (Unknown, Some(110)), "{from:?}");
    }
}

#[test]
fn a_connection_never_established_has_no_handshake_duration() {
    let closed = close(SynSent, None, Some(error(110)), Some(retransmitting(6)));
    let handshake = closed.handshake();
    assert_eq!((handshake.duration, handshake.retransmits, handshake.rtt), (None, Some(6), None));
    assert!(closed.connection.never_established());
    let closed = close(SynSent, None, None, None);
    assert_eq!(closed.handshake().retransmits, None);
    let closed = close(Established, None, Some(error(104)), Some(TcpInfo::default()));
    assert!(!closed.connection.never_established());
    assert_eq!(closed.handshake().duration, Some(Nanos::from_micros(200)));
}

/// Runs a client that leaves FIN_WAIT1 or FIN_WAIT2 after `close()`, with these counts of data segments at `close()`
/// and at CLOSE.
fn closed_with_data(
    from: TcpState,
    flags: SocketFlags,
    at_close: Option<u32>,
    received: u32,
) -> ClosedRecord {
    let mut socket = ScriptedSocket::client_in(1, app(), FinWait1).with(|last| last.data_segments = at_close);
    if from == FinWait2 {
        socket = socket.step(END - 1, FinWait2);
    }
    let socket = socket.step(END, Closed).with(|last| {
        last.flags = Some(flags);
        last.info = Some(TcpInfo { data_segments_received: received, ..TcpInfo::default() });
    });
    run(&socket.events()).only_closed().clone()
}

#[test]
fn data_after_close_is_unread_data_and_a_reset_is_a_reset() {
    for from in [FinWait1, FinWait2] {
        let cause = |at_close, received| {
            let flags = SocketFlags { error: 104, ..shut() };
            let close_cause = closed_with_data(from, flags, at_close, received).close_cause;
            (close_cause.reason, close_cause.closed_by)
        };
        assert_eq!(cause(Some(1), 2), (UnreadData, Some(Local)), "{from:?}");
        assert_eq!(cause(Some(2), 2), (ResetByPeer, Some(Remote)), "{from:?}");
        assert_eq!(cause(None, 2), (ResetByPeer, Some(Remote)), "{from:?}: the count is not known");
    }
}

/// The ACK of the FIN may carry the data: the kernel enters FIN_WAIT2 and closes at once, without an error.
#[test]
fn data_with_the_ack_of_the_fin_leaves_no_fin_wait_2() {
    let closed = closed_with_data(FinWait2, shut(), Some(1), 2);
    assert_eq!((closed.close_cause.reason, closed.after), (UnreadData, None));
    let handed_over = closed_with_data(FinWait2, shut(), Some(2), 2);
    assert_eq!(handed_over.close_cause.reason, CloseReason::Closed);
    assert!(handed_over.after.is_some());
    let with_fin = closed_with_data(FinWait2, SocketFlags { peer_fin: true, ..shut() }, Some(1), 2);
    assert_eq!(with_fin.close_cause.reason, CloseReason::Closed, "a retransmission, then the FIN");
    let linger2 = closed_with_data(FinWait2, SocketFlags { linger2_negative: true, ..shut() }, Some(2), 2);
    assert_eq!((linger2.close_cause.reason, linger2.after), (Aborted, None));
    let both = closed_with_data(FinWait2, SocketFlags { linger2_negative: true, ..shut() }, Some(1), 2);
    assert_eq!((both.close_cause.reason, both.after), (Aborted, None));
}

#[test]
fn an_orphan_without_error_in_fin_wait_1_was_given_up_for_resources() {
    let closed = closed_with_data(FinWait1, shut(), Some(2), 2);
    assert_eq!(closed.close_cause.reason, CloseReason::OutOfResources);
}

#[test]
fn a_queued_error_does_not_explain_an_orderly_close() {
    for from in [FinWait2, Closing, LastAck] {
        for queued in [111, 113, 101, 90] {
            let flags = SocketFlags { error: queued, peer_fin: true, ..shut() };
            let closed = close(from, None, Some(flags), Some(TcpInfo::default()));
            assert_eq!(
                (closed.close_cause.reason, closed.close_cause.error),
                (CloseReason::Closed, None),
                "{queued} in {from:?}"
            );
        }
    }
    let flags = SocketFlags { error: 113, ..shut() };
    let closed = close(LastAck, None, Some(flags), Some(retransmitting(3)));
    assert_eq!((closed.close_cause.reason, closed.close_cause.error), (PeerVanished, Some(113)));
    let linger = SocketFlags { error: 113, ..lingering() };
    let closed = close(Established, Some(app()), Some(linger), Some(TcpInfo::default()));
    assert_eq!((closed.close_cause.reason, closed.close_cause.error), (Aborted, None));
}

#[test]
fn a_client_that_sent_nothing_found_no_port_or_was_cancelled() {
    let stale = SocketFlags { error: 104, attached: true, ..SocketFlags::default() };
    let closed = close(SynSent, Some(app()), Some(stale), Some(TcpInfo::default()));
    assert_eq!(
        (closed.close_cause.reason, closed.close_cause.closed_by, closed.close_cause.error),
        (NoLocalPort, Some(Local), None)
    );
    let closed = close(SynSent, Some(app()), Some(closing()), Some(TcpInfo::default()));
    assert_eq!(closed.close_cause.reason, Cancelled);
}

/// At CLOSE the descriptor still has the port of its earlier connection.
#[test]
fn a_client_that_sent_nothing_has_no_port() {
    let socket =
        ScriptedSocket::client(1).step(0, SynSent).with(|last| last.local.port = 0).step(1, Closed).with(
            |last| {
                last.flags = Some(open());
                last.info = Some(TcpInfo::default());
            },
        );
    assert_eq!(run(&socket.events()).only_closed().connection.local.port, 0);
}

/// The minimum is the descriptor's earlier connection's.
#[test]
fn a_client_that_was_not_established_has_no_round_trip_time() {
    let info = TcpInfo { min_rtt: Some(Micros(38)), segments_sent: 1, ..TcpInfo::default() };
    let closed = close(SynSent, None, Some(error(111)), Some(info));
    assert_eq!(closed.info, Some(TcpInfo { min_rtt: None, ..info }));
    let closed = close(Established, None, Some(error(104)), Some(info));
    assert_eq!(closed.info, Some(info));
}

#[test]
fn repair_is_neither_a_failure_nor_a_handshake() {
    let flags = SocketFlags { repair: true, ..closing() };
    let closed = close(Established, Some(app()), Some(flags), Some(TcpInfo::default()));
    assert_eq!(closed.close_cause.reason, CloseReason::Repaired);
    assert!(!CloseReason::Repaired.is_failure());
    let restored = ScriptedSocket::client(2)
        .step(0, SynSent)
        .by(app())
        .step(7, Established)
        .with(|last| last.flags = Some(SocketFlags { repair: true, ..open() }))
        .step(END, FinWait1);
    let restored = restored.step(END + 1, FinWait2).step(END + 2, Closed).with(|last| {
        last.flags = Some(fins());
        last.info = Some(TcpInfo::default());
    });
    let closed = run(&restored.events()).only_closed().clone();
    assert_eq!(
        (closed.connection.role, closed.connection.handshake),
        (tracer_core::lifecycle::Role::Unknown, None)
    );
}

#[test]
fn connect_af_unspec_after_shutdown_is_no_unread_data() {
    for from in [FinWait1, FinWait2] {
        let closed = close(from, Some(app()), Some(closing()), Some(TcpInfo::default()));
        assert_eq!(closed.close_cause.reason, Disconnected, "{from:?}");
        let unread = TcpInfo { unread_bytes: 5, ..TcpInfo::default() };
        let closed = close(from, Some(app()), Some(closing()), Some(unread));
        assert_eq!(closed.close_cause.reason, UnreadData, "{from:?}");
    }
}
