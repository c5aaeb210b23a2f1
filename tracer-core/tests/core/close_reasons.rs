//! Why a connection ended: what the kernel shows at its last transition, and what follows from it.

use tracer_core::{
    event::{
        Process, SocketFlags, TcpInfo,
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
use tracer_core_testing::script::{Life, SECOND, error, fins, open, process, shut};

use crate::observed::{Ended, run};

const END: u64 = 5 * SECOND;

fn app() -> Process {
    process(100, "app")
}

/// The end of a client that was in `from`.
fn end(from: TcpState, by: Option<Process>, flags: Option<SocketFlags>, info: Option<TcpInfo>) -> Ended {
    let life = Life::client_in(1, app(), from).step(END, Closed).with(|last| {
        last.process = by;
        last.flags = flags;
        last.info = info;
    });
    run(&life.events()).only().clone()
}

/// `close()` of a socket that its application has.
fn closing() -> SocketFlags {
    SocketFlags { attached: true, ..shut() }
}

fn lingering() -> SocketFlags {
    SocketFlags { linger_zero: true, ..closing() }
}

/// `close()` after the peer's FIN.
fn peer_closed(flags: SocketFlags) -> SocketFlags {
    SocketFlags { peer_fin: true, shutdown_receive: true, ..flags }
}

/// `shutdown(SHUT_WR)` was called.
fn half_shut(flags: SocketFlags) -> SocketFlags {
    SocketFlags { shutdown_send: true, ..flags }
}

fn resent(pending_retransmits: u8) -> TcpInfo {
    TcpInfo {
        pending_retransmits,
        retransmits: u32::from(pending_retransmits),
        unacked_bytes: 1000,
        ..TcpInfo::default()
    }
}

/// What was seen, the state left, whether a process is named, the evidence, and what follows.
type Row = (&'static str, TcpState, bool, SocketFlags, TcpInfo, CloseReason, Option<ClosedBy>);

/// Checks every row and names all that are wrong, so that one does not hide another.
fn check(rows: &[Row]) {
    let mut wrong = Vec::new();
    for &(name, from, by_process, flags, info, reason, closed_by) in rows {
        let ended = end(from, by_process.then(app), Some(flags), Some(info));
        let got = (ended.close_cause.reason, ended.close_cause.closed_by);
        if got != (reason, closed_by) {
            wrong.push(format!("{name} in {from:?}: expected {reason:?} {closed_by:?}, got {got:?}"));
        }
        let errno = (flags.error != 0).then_some(flags.error);
        if ended.close_cause.error != errno {
            wrong.push(format!(
                "{name} in {from:?}: expected error {errno:?}, got {:?}",
                ended.close_cause.error
            ));
        }
        if ended.connection.owner.process != Some(app()) {
            wrong.push(format!("{name} in {from:?}: the client lost its owner"));
        }
        if ended.closed_us() != END || ended.duration_us() != Some(END) {
            wrong.push(format!("{name} in {from:?}: {:?} to {}", ended.opened_us(), ended.closed_us()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn connecting_in_vain() {
    let none = TcpInfo::default();
    let soft = TcpInfo { soft_error: 113, ..resent(6) };
    let user = TcpInfo { user_timeout_ms: Some(700), ..resent(1) };
    check(&[
        ("reset", SynSent, false, error(111), none, Refused, Some(Remote)),
        ("no answer", SynSent, false, error(110), resent(6), TimedOut, Some(Local)),
        ("no answer within TCP_USER_TIMEOUT", SynSent, false, error(110), user, TimedOut, Some(Local)),
        ("ICMP port unreachable", SynSent, false, error(111), none, Refused, Some(Remote)),
        ("ICMP host unreachable", SynSent, false, error(113), none, Unreachable, Some(Remote)),
        ("ICMP network unreachable", SynSent, false, error(101), none, Unreachable, Some(Remote)),
        ("ICMP protocol unreachable", SynSent, false, error(92), none, Unreachable, Some(Remote)),
        ("ICMP parameter problem", SynSent, false, error(71), none, Unreachable, Some(Remote)),
        ("ICMP source route failed", SynSent, false, error(95), none, Unreachable, Some(Remote)),
        ("ICMP host unknown", SynSent, false, error(112), none, Unreachable, Some(Remote)),
        ("ICMPv6 administratively prohibited", SynSent, false, error(13), none, Unreachable, Some(Remote)),
        ("a soft ICMP error when time ran out", SynSent, false, error(113), soft, Unreachable, Some(Remote)),
        ("close()", SynSent, true, closing(), none, Cancelled, Some(Local)),
        ("close() after resends", SynSent, true, closing(), resent(2), Cancelled, Some(Local)),
        ("close() with SO_LINGER 0", SynSent, true, lingering(), none, Cancelled, Some(Local)),
        ("shutdown()", SynSent, true, open(), none, Cancelled, Some(Local)),
        ("connect(AF_UNSPEC)", SynSent, true, open(), none, Cancelled, Some(Local)),
        ("ss -K", SynSent, true, error(103), none, Killed, Some(Local)),
        ("reset", SynReceived, false, error(104), none, ResetByPeer, Some(Remote)),
        ("no answer", SynReceived, false, error(110), resent(5), TimedOut, Some(Local)),
    ]);
}

/// EADDRNOTAVAIL: the port is still 0 when the connection ends, a microsecond after its beginning.
#[test]
fn no_port_left() {
    let life = Life::client_in(1, app(), SynSent)
        .step(1, Closed)
        .by(app())
        .flags(open())
        .with(|last| last.local.port = 0);
    let observed = run(&life.events());
    let ended = observed.only();
    assert_eq!((ended.close_cause.reason, ended.close_cause.closed_by), (NoLocalPort, Some(Local)));
    assert_eq!((ended.duration_us(), ended.connection.local.port), (Some(1), 0));
}

#[test]
fn established_connections_that_break() {
    let none = TcpInfo::default();
    let unacked = TcpInfo { unacked_bytes: 1, ..none };
    let keepalive = TcpInfo { probes: 9, ..none };
    let user = TcpInfo { user_timeout_ms: Some(700), ..resent(2) };
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
        ("resends", Established, false, error(110), resent(15), RetransmissionTimeout, Some(Local)),
        (
            "resends",
            CloseWait,
            false,
            peer_closed(error(110)),
            resent(15),
            RetransmissionTimeout,
            Some(Local),
        ),
        ("TCP_USER_TIMEOUT", Established, false, error(110), user, UserTimeout, Some(Local)),
        ("zero-window probes", Established, false, error(110), unacked, RetransmissionTimeout, Some(Local)),
        ("keepalive", Established, false, error(110), keepalive, KeepaliveTimeout, Some(Local)),
        ("keepalive", CloseWait, false, peer_closed(error(110)), keepalive, KeepaliveTimeout, Some(Local)),
        ("resends after ICMP", Established, false, error(113), resent(15), Unreachable, Some(Remote)),
        ("no known error", Established, false, error(12), none, Unknown, None),
    ]);
}

#[test]
fn connections_that_break_while_they_close() {
    let none = TcpInfo::default();
    let orphan = |error| SocketFlags { error, ..shut() };
    let unread = TcpInfo { unread_bytes: 100, ..none };
    check(&[
        ("hand-over", FinWait2, false, fins(), none, CloseReason::Closed, Some(Local)),
        ("hand-over without the peer's FIN", FinWait2, false, shut(), none, CloseReason::Closed, Some(Local)),
        ("hand-over", Closing, false, fins(), none, CloseReason::Closed, Some(Both)),
        ("final ACK", LastAck, false, fins(), none, CloseReason::Closed, Some(Remote)),
        ("resends", FinWait1, false, orphan(110), resent(8), PeerVanished, Some(Local)),
        ("resends", Closing, false, orphan(110), resent(8), PeerVanished, Some(Local)),
        ("resends", LastAck, false, peer_closed(orphan(110)), resent(8), PeerVanished, Some(Local)),
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

/// `shutdown(SHUT_WR)`, the peer acknowledges and goes on sending, and the application ends it the hard
/// way. The kernel hands a socket over to a mini-socket only when its application has left (`attached`
/// clear) or the peer's FIN has come (`peer_fin`); here neither is so.
#[test]
fn aborts_in_fin_wait_2_are_no_orderly_end() {
    let none = TcpInfo::default();
    let unread = TcpInfo { unread_bytes: 100, ..none };
    check(&[
        ("SO_LINGER 0", FinWait2, false, lingering(), none, Aborted, Some(Local)),
        ("close() with unread data", FinWait2, false, closing(), unread, UnreadData, Some(Local)),
        ("connect(AF_UNSPEC)", FinWait2, false, half_shut(open()), none, Disconnected, Some(Local)),
    ]);
}

/// Nothing is kept of a connection that did not end with FINs.
#[test]
fn only_an_orderly_end_leaves_something_behind() {
    for flags in [error(104), error(110), error(103)] {
        for from in [SynSent, Established, FinWait1, FinWait2, CloseWait, Closing, LastAck] {
            let ended = end(from, None, Some(flags), Some(TcpInfo::default()));
            assert_eq!(ended.after, None, "{from:?} {}", flags.error);
            assert_eq!(ended.total_ns, Some(END * 1000), "{from:?} {}", flags.error);
        }
    }
}

/// On a kernel whose sockets cannot be read.
#[test]
fn transitions_alone() {
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
        let ended = end(from, None, None, None);
        assert_eq!((ended.close_cause.reason, ended.close_cause.closed_by), (reason, by), "{from:?}");
        assert_eq!(ended.close_cause.error, None);
    }
}

/// Without the kernel's figures nothing tells the three kinds of timeout apart.
#[test]
fn a_timeout_without_figures_is_not_guessed() {
    for from in [Established, CloseWait] {
        let ended = end(from, None, Some(error(110)), None);
        assert_eq!((ended.close_cause.reason, ended.close_cause.error), (Unknown, Some(110)), "{from:?}");
    }
}

#[test]
fn a_connection_never_established_has_no_handshake_duration() {
    let ended = end(SynSent, None, Some(error(110)), Some(resent(6)));
    let handshake = ended.handshake();
    assert_eq!((handshake.duration_ns, handshake.retransmits, handshake.rtt_us), (None, Some(6), None));
    assert!(ended.connection.never_established());
    let ended = end(SynSent, None, None, None);
    assert_eq!(ended.handshake().retransmits, None);
    let ended = end(Established, None, Some(error(104)), Some(TcpInfo::default()));
    assert!(!ended.connection.never_established());
    assert_eq!(ended.handshake().duration_ns, Some(200_000));
}
