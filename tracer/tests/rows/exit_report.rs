//! What `connections` and `transitions` say at their end.

use tcptrace_bpf::report::ExitReport;
use tracer_core::{
    event::{
        TcpInfo,
        TcpState::{CloseWait, Closed, Established, LastAck, SynSent},
    },
    lifecycle::{Observation, Tracker, TrackerOptions},
};
use tracer_core_testing::script::{Life, error, process};

/// A client whose handshake takes so many microseconds and so many resends.
fn served(socket: u64, handshake_us: u64, resent: u32) -> Life {
    let info = TcpInfo { retransmits: resent, ..TcpInfo::default() };
    Life::client(socket)
        .step(0, SynSent)
        .by(process(1, "curl"))
        .step(handshake_us, Established)
        .info(info)
        .step(handshake_us + 10, CloseWait)
        .step(handshake_us + 20, LastAck)
        .step(handshake_us + 30, Closed)
}

fn refused(socket: u64) -> Life {
    Life::client(socket).step(0, SynSent).step(40, Closed).flags(error(111))
}

fn report(lives: &[Life]) -> Vec<String> {
    let mut tracker = Tracker::new(TrackerOptions::default());
    let mut report = ExitReport::default();
    for event in lives.iter().flat_map(Life::events) {
        tracker.observe(&event, &mut |observation| {
            if let Observation::Closed(closed) = observation {
                report.take(&closed);
            }
        });
    }
    report.lines()
}

#[test]
fn nothing_ended_and_nothing_is_said() {
    assert_eq!(report(&[]), [""; 0]);
}

#[test]
fn the_most_frequent_reason_and_the_slowest_handshake_come_first() {
    let lives = [
        served(1, 500, 0),
        refused(2),
        served(3, 3_020_000, 2),
        served(4, 700, 0),
        served(5, 1_040_000, 1),
        served(6, 600, 0),
    ];
    let lines = report(&lives);
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
fn a_handshake_that_failed_is_not_slow() {
    assert_eq!(report(&[refused(1)]), ["how connections ended: 1 refused"]);
}
