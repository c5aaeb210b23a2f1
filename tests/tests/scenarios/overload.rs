//! More events than fit: what was missed is counted, and the view is healed by a look at the sockets.

use rstest::rstest;
use rustix::process::Signal;
use tcptrace_tests::{Connection, Mode, Namespace, Tracer, sockets, wait};

/// Connections whose ends the program misses.
const CONNECTIONS: usize = 200;

#[rstest]
fn connections_whose_ends_were_lost_are_ended_by_a_look(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::alone();
    namespace.ip("link set lo up");
    let _inhabitant = namespace.inhabit();
    let tracer = Tracer::json("connections", &namespace, mode, &["--buffer", "4K"]);
    let listener = namespace.run("server", || sockets::listen_with("127.0.0.1:5000", 1024, |_| {}));
    let mut held = Vec::new();
    // One after the other, so that a few events at a time fit the small buffer.
    for _ in 0..CONNECTIONS {
        held.push(namespace.run("client", || sockets::connect(sockets::local(&listener))));
        held.push(namespace.run("server", || sockets::accept(&listener)));
    }

    tracer.signal(Signal::STOP);
    held.clear();
    wait::until("the last acknowledgements", || {
        (namespace.sockets_in(!(1 << 6 | 1 << 7 | 1 << 10)) == 0).then_some(())
    });
    tracer.signal(Signal::CONT);

    tracer.wait_for_lines(2 * CONNECTIONS);
    let ended = tracer.interrupt();
    let rows: Vec<Connection> = ended.rows();
    assert_eq!(rows.len(), 2 * CONNECTIONS, "each end of each connection once");
    let unseen = rows.iter().filter(|row| row.closed.is_none()).count();
    let seen = rows.iter().filter(|row| row.closed.is_some() && row.close_reason == "closed").count();
    assert!(unseen > CONNECTIONS, "the buffer holds but a few of {} ends: {unseen} were missed", rows.len());
    assert_eq!(seen + unseen, rows.len());
    assert!(rows.iter().filter(|row| row.closed.is_none()).all(|row| row.gap));
    assert!(ended.summary().lost > 0);
    assert!(ended.stderr.contains("1 renewals of the view by a look at the sockets"), "{}", ended.stderr);
}
