//! `top` on a terminal.

use rstest::rstest;
use rustix::process::Signal;
use tcptrace_tests::{
    Namespace,
    process::own_name,
    pty::Pty,
    sockets,
    tun::{Relay, SERVER, SegmentKind, Verdict},
    wait,
};

fn start(namespace: &Namespace, columns: u16, rows: u16) -> Pty {
    let netns = namespace.inode().to_string();
    let pty = Pty::start(columns, rows, ["top", "--netns", &netns, "--duration", "10m", "--buffer", "64M"]);
    pty.wait_for("tcptrace-bpf top");
    pty
}

#[test]
fn connections_can_be_searched_and_opened() {
    let namespace = Namespace::new();
    let pty = start(&namespace, 80, 24);
    let pairs: Vec<_> = (0..3).map(|_| sockets::pair(&namespace, "127.0.0.1:0")).collect();
    // Three connections have six sockets.
    let screen = wait::until("six connections in the diagram", || {
        let screen = pty.text();
        let shown =
            screen.lines().any(|line| line.trim_start_matches(['│', ' ']).split(' ').next() == Some("6"));
        shown.then_some(screen)
    });
    assert!(screen.contains("ESTABLISHED") && screen.contains("CLOSE_WAIT"), "{screen}");
    pty.type_keys("2");
    let screen = pty.wait_for("Connections: 6");
    assert!(screen.contains(&format!("{} (", own_name())), "{screen}");
    let port = sockets::port(&pairs[0].client);
    pty.type_keys(&format!("/:{port}\r"));
    pty.wait_for("Connections: 2");
    pty.type_keys("\r");
    let screen = pty.wait_for("Role ");
    assert!(screen.contains(&port.to_string()), "{screen}");
    pty.type_keys("q");
    pty.type_keys("\u{1b}");
    pty.wait_for("Connections: 6");
    pty.resize(200, 60);
    pty.wait_for("LAST_ACK");
    drop(pairs);
    pty.wait_for("Connections: 0");
    pty.type_keys("q");
    pty.wait_for("transitions seen");
    let (status, text) = pty.wait_for_exit();
    assert!(status.success(), "{status}: {text}");
}

#[rstest]
fn signals_restore_the_terminal(
    #[values(
        Signal::TERM,
        Signal::INT,
        Signal::HUP,
        Signal::QUIT,
        Signal::ALARM,
        Signal::USR1,
        Signal::USR2
    )]
    signal: Signal,
) {
    let namespace = Namespace::new();
    let pty = start(&namespace, 120, 40);
    pty.wait_for("ESTABLISHED");
    pty.signal(signal);
    let (status, text) = pty.wait_for_exit();
    assert!(status.success(), "{status}: {text}");
}

/// Stops by SIGTSTP, and by Ctrl-Z, which a raw terminal does not turn into a signal.
#[test]
fn stop_restores_the_terminal_and_continue_redraws_it() {
    let namespace = Namespace::new();
    let pty = start(&namespace, 120, 40);
    pty.wait_for("ESTABLISHED");
    for by_key in [false, true] {
        if by_key {
            pty.type_keys("\u{1a}");
        } else {
            pty.signal(Signal::TSTP);
        }
        pty.wait_for_stop();
        pty.signal(Signal::CONT);
        pty.wait_for("ESTABLISHED");
        // The program reads keys again.
        pty.type_keys("?");
        pty.wait_for("Ctrl-C");
        pty.type_keys("?");
        wait::until("the help to close", || (!pty.text().contains("Ctrl-C")).then_some(()));
    }
    pty.type_keys("q");
    let (status, text) = pty.wait_for_exit();
    assert!(status.success(), "{status}: {text}");
}

/// The program exits even without SIGHUP.
#[test]
fn hang_up_stops_the_program() {
    let namespace = Namespace::new();
    let pty = start(&namespace, 80, 24);
    pty.wait_for("ESTABLISHED");
    let status = pty.hang_up();
    assert!(status.success(), "{status}");
}

#[test]
fn top_requires_a_terminal() {
    let ended = tcptrace_tests::Tracer::start_unready(["top"]).wait_for_exit();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("`top` draws on a terminal"), "{}", ended.stderr);
}

/// `handshakes` redraws its report in place, and leaves the last one on the screen.
#[test]
fn handshakes_redraws_in_place() {
    let relay = Relay::new(|segment| match segment.kind {
        SegmentKind::SynAck => Verdict::Delay(std::time::Duration::from_millis(50)),
        _ => Verdict::Pass,
    });
    let netns = relay.client.inode().to_string();
    let pty = Pty::start(120, 40, ["handshakes", "--netns", &netns, "--duration", "10m", "--time", "none"]);
    pty.wait_for("No handshake was seen");
    let listener = relay.server.run("server", || sockets::listen(&format!("{SERVER}:8001")));
    for count in 1..=2 {
        relay.client.run("client", || drop(sockets::connect(sockets::local(&listener))));
        let noun = if count == 1 { "handshake" } else { "handshakes" };
        pty.wait_for(&format!("Nothing stands out: {count} {noun},"));
    }
    pty.signal(Signal::INT);
    pty.wait_for("transitions seen");
    let (status, text) = pty.wait_for_exit();
    assert!(status.success(), "{status}: {text}");
    assert_eq!(text.matches("GROUP").count(), 1, "{text}");
    assert!(!text.contains("No handshake was seen"), "{text}");
}
