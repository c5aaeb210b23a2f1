//! `top` on a terminal.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    process::Command,
};

use rstest::rstest;
use rustix::process::Signal;
use tcptrace_tests::{
    Namespace,
    process::own_name,
    program::program,
    pty::Pty,
    rows::TopView,
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
    // A long name is shortened.
    assert!(screen.contains(&own_name()[..8]), "{screen}");
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

/// The kernel's counters of open connections are in the list, in the details, and in the file that `w` writes.
#[test]
fn bytes_are_shown_and_the_view_is_saved() {
    let namespace = Namespace::alone();
    let _inhabitant = namespace.inhabit();
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let mut command = Command::new(program());
    let netns = namespace.inode().to_string();
    command.args(["top", "--netns", &netns, "--duration", "10m", "--buffer", "64M"]);
    command.current_dir(folder.path());
    let pty = Pty::start_command(80, 24, command);
    pty.wait_for("tcptrace-bpf top");
    let pair = sockets::pair(&namespace, "127.0.0.1:0");
    sockets::send(&pair.client, &[7; 5000]);
    sockets::receive(&pair.server, 5000);
    let port = sockets::port(&pair.client);
    pty.type_keys("2");
    pty.type_keys(&format!("/:{port}\r"));
    pty.wait_for("Connections: 2,");
    // The order by bytes sent shows the column also at 80 columns.
    pty.type_keys("sssssss");
    pty.wait_for("by sent; bytes");
    let screen = pty.wait_for(" 4.9K");
    let row = screen.lines().find(|line| line.contains(" 4.9K")).expect("the line is shown");
    // At 80 columns a long local address loses its beginning, never its port.
    let (local, remote) = (format!(".0.0.1:{port} "), format!(" {} ", sockets::local(&pair.server)));
    assert!(row.find(&local) < row.find(&remote) && row.contains(&local), "{row}");
    pty.type_keys("\r");
    let screen = pty.wait_for("Sent      4.9K");
    assert!(screen.contains("Received  0B") && screen.contains("RTT  "), "{screen}");
    pty.type_keys("\r");
    pty.type_keys("w");
    pty.wait_for("saved tcptrace-bpf-top-");
    let files: Vec<_> =
        fs::read_dir(&folder).expect("the folder exists").map(|it| it.unwrap().path()).collect();
    let [file] = &files[..] else { panic!("{files:?}") };
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    let view: TopView = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    assert_eq!((view.r#type.as_str(), view.tab.as_str()), ("top", "connections"));
    assert!(view.open_connections >= 2, "those of other namespaces included: {}", view.open_connections);
    assert_eq!((view.matching_connections, view.unread_connections), (2, 0));
    let [client, server] = &view.connections[..] else { panic!("{view:#?}") };
    assert_eq!((client.local_port, server.remote_port), (Some(port), Some(port)));
    assert_eq!((client.bytes_sent, client.bytes_received), (Some(5000), Some(0)));
    assert_eq!((server.bytes_sent, server.bytes_received), (Some(0), Some(5000)));
    assert_eq!((client.state.as_str(), client.age_source.as_str()), ("established", "observed"));
    assert!(client.srtt_us.is_some() && client.reading_age_us.is_some(), "{client:#?}");
    assert_eq!(client.netns, Some(namespace.inode()));
    assert_eq!(view.owners[0].count, 2);
    // In the folder of another user, root needs a capability that `top` has given up.
    chown(&folder, Some(65_534), None).expect("root may give a folder away");
    pty.type_keys("w");
    pty.wait_for("not saved: Permission denied");
    pty.type_keys("q");
    let (status, text) = pty.wait_for_exit();
    assert!(status.success(), "{status}: {text}");
    assert_eq!(fs::read_dir(&folder).expect("the folder exists").count(), 1);
}

/// Two readings of a connection that sends without a pause have a rate; the process has the sum.
#[test]
fn rates_are_the_difference_of_two_readings() {
    let namespace = Namespace::alone();
    let _inhabitant = namespace.inhabit();
    let pty = start(&namespace, 120, 40);
    let pair = sockets::pair(&namespace, "127.0.0.1:0");
    pty.type_keys("3");
    wait::until("the owner's rates", || {
        sockets::send(&pair.client, &[7; 1000]);
        sockets::receive(&pair.server, 1000);
        let screen = pty.text();
        let row = screen.lines().find(|line| line.contains(&own_name()[..8]))?;
        // Process, connections, bytes sent and received per second.
        let rates: Vec<&str> = row.split(['│', ' ']).filter(|it| it.ends_with(['B', 'K', 'M'])).collect();
        let [sent, received] = rates[..] else { return None };
        (sent == received && sent != "0B").then_some(())
    });
    pty.type_keys("q");
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
