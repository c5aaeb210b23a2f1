//! The report of `connections` and `transitions` at exit.

use tcptrace_bpf::report::{ExitReport, Palette};
use tracer_core::{
    event::{
        TcpInfo,
        TcpState::{CloseWait, Closed, Established, LastAck, SynSent},
    },
    lifecycle::{Observation, Tracker, TrackerOptions},
};
use tracer_core_testing::script::{ScriptedSocket, error, process};

/// Returns a client connection whose handshake takes `handshake_us` with `retransmits` retransmissions.
fn completed(socket: u64, handshake_us: u64, retransmits: u32) -> ScriptedSocket {
    let info = TcpInfo { segments_sent: 1 + retransmits, retransmits, ..TcpInfo::default() };
    ScriptedSocket::client(socket)
        .step(0, SynSent)
        .by(process(1, "curl"))
        .step(handshake_us, Established)
        .info(info)
        .step(handshake_us + 10, CloseWait)
        .step(handshake_us + 20, LastAck)
        .step(handshake_us + 30, Closed)
}

fn refused(socket: u64) -> ScriptedSocket {
    ScriptedSocket::client(socket).step(0, SynSent).step(40, Closed).flags(error(111))
}

fn report(sockets: &[ScriptedSocket]) -> Vec<String> {
    let mut tracker = Tracker::new(TrackerOptions::default());
    let mut report = ExitReport::default();
    for event in sockets.iter().flat_map(ScriptedSocket::events) {
        tracker.observe(&event, &mut |observation| {
            if let Observation::Closed(closed) = observation {
                report.take(&closed);
            }
        });
    }
    report.lines(Palette::default())
}

#[test]
fn without_closed_connections_there_is_no_report() {
    assert_eq!(report(&[]), [""; 0]);
}

#[test]
fn the_most_frequent_reason_and_the_slowest_handshake_come_first() {
    let sockets = [
        completed(1, 500, 0),
        refused(2),
        completed(3, 3_020_000, 2),
        completed(4, 700, 0),
        completed(5, 1_040_000, 1),
        completed(6, 600, 0),
    ];
    let lines = report(&sockets);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines[0].starts_with("how connections ended: 5 ") && lines[0].ends_with(", 1 refused"),
        "{lines:?}"
    );
    let slowest = "slowest handshakes: 3.02s to 10.0.0.2:443 (2 resends), 1.04s to 10.0.0.2:443 (1 resend), \
                   700.0us to 10.0.0.2:443";
    assert_eq!(lines[1], slowest);
}

#[test]
fn failed_handshakes_are_not_slow() {
    assert_eq!(report(&[refused(1)]), ["how connections ended: 1 refused"]);
}
