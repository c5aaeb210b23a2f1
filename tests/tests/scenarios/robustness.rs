//! Conditions that could crash the program or make its output wrong.

use std::{
    collections::BTreeMap,
    fs,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use rstest::rstest;
use rustix::process::Signal;
use tcptrace_tests::{
    ChildProcess, Connection, Mode, Namespace, Tracer,
    cgroup::TestCgroup,
    process::Gate,
    program::program,
    sockets::{self, Pair},
    speed, tracer, tun, wait,
};

use crate::support::open_and_reset;

/// The kernel removes the namespace with its timewait sockets.
#[rstest]
fn removed_namespace_closes_its_connections(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let kept = Namespace::new();
    let removed = kept.beside();
    let inode = removed.inode();
    let inhabitant = removed.inhabit();
    let pair = sockets::pair(&removed, "127.0.0.1:0");
    let removed_tracer = Tracer::connections(&removed, mode);
    let kept_tracer = Tracer::connections(&kept, mode);
    // Leaves a timewait socket and a listener.
    let Pair { client, server, listener } = pair;
    client.shutdown(std::net::Shutdown::Write).unwrap();
    sockets::wait_for_end(&server);
    drop((server, client, removed, listener, inhabitant));
    let rows = removed_tracer.rows::<Connection>(2);
    assert!(
        rows.iter().all(|row| row.netns == Some(inode) && row.incomplete && row.close_reason == "closed")
    );
    open_and_reset(&kept);
    kept_tracer.finish_both();
}

/// With far more connections than the table holds, each close still has one row, and the summary counts the
/// evicted connections.
#[rstest]
fn full_table_evicts_and_counts(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    const TABLE: u64 = 10;
    const CONNECTIONS: usize = 100;
    let namespace = Namespace::alone();
    let tracer = Tracer::json("connections", &namespace, mode, &["--max-connections", "10"]);
    let listener = namespace.run("server", || sockets::listen_with("127.0.0.1:0", 256, |_| {}));
    let to = sockets::local(&listener);
    let clients: Vec<_> =
        namespace.run("client", || (0..CONNECTIONS).map(|_| sockets::connect(to)).collect());
    let servers: Vec<_> =
        namespace.run("server", || (0..CONNECTIONS).map(|_| sockets::accept(&listener)).collect());
    drop(clients);
    namespace.run("server", || servers.iter().for_each(sockets::wait_for_end));
    drop(servers);
    let Some(ended) = tracer.finish_many(mode, 2 * CONNECTIONS) else { return };
    let rows = ended.rows::<Connection>();
    let mut rows_per_ports: BTreeMap<(u16, u16), usize> = BTreeMap::new();
    for row in &rows {
        *rows_per_ports.entry(row.ports()).or_default() += 1;
    }
    assert_eq!((rows.len(), rows_per_ports.len()), (2 * CONNECTIONS, 2 * CONNECTIONS), "{rows_per_ports:?}");
    let complete = rows.iter().filter(|row| !row.incomplete).count();
    assert!(complete <= 10, "{complete} of a table of {TABLE}");
    for row in rows.iter().filter(|row| row.incomplete) {
        assert_eq!(
            (row.opened.as_deref(), row.duration_us, row.handshake_us),
            (None, None, None),
            "{row:#?}"
        );
        assert_eq!(row.states[0].duration_us, None, "{row:#?}");
        assert_eq!(row.close_reason, "closed", "{row:#?}");
    }
    let counted = |what: &str| ended.counted(what).unwrap_or_else(|| panic!("{what}: {}", ended.stderr));
    assert!(counted("evicted") >= 2 * CONNECTIONS as u64 - TABLE, "{}", ended.stderr);
    assert!(counted("unmatched") >= 2 * CONNECTIONS as u64 - TABLE, "{}", ended.stderr);
    assert!(counted("connections closed") >= 2 * CONNECTIONS as u64, "{}", ended.stderr);
    assert!(counted("open") <= TABLE, "{}", ended.stderr);
}

/// Clients that do not exist: each handshake with a retransmitted SYN-ACK is counted as abandoned, lost or
/// unfollowed. 100,000 clients exceed the table of handshakes.
#[test]
fn syn_flood_is_counted() {
    let clients: u32 = speed::count(100_000, 4_000);
    let namespace = Namespace::alone();
    for (name, value) in [
        ("net.ipv4.tcp_syncookies", "0"),
        ("net.ipv4.tcp_max_syn_backlog", "262144"),
        ("net.core.somaxconn", "131072"),
        ("net.ipv4.tcp_synack_retries", "1"),
    ] {
        namespace.sysctl(name, value);
    }
    let device = tun::sink(&namespace);
    // The device drops the SYN-ACKs; without that hook, only retransmissions can be lost in the ring.
    let tracer = Tracer::json("connections", &namespace, Mode::Btf, &["--no-hook", "drop"]);
    let listener =
        namespace.run("server", || sockets::listen_with(&format!("{}:5000", tun::SERVER), 131_072, |_| {}));
    tun::flood(&device, 5000, clients);
    wait::until("the last SYN", || {
        (namespace.counter("snmp", "Tcp", "InSegs") == u64::from(clients)).then_some(())
    });
    assert_eq!(namespace.counter("netstat", "TcpExt", "ListenDrops"), 0, "the kernel dropped SYNs");
    wait::until("the kernel to give up", || (namespace.sockets_in(sockets::SYN_RECEIVED) == 0).then_some(()));
    // The program's grace period before it counts a handshake as abandoned.
    wait::pause(Duration::from_millis(2500));
    open_and_reset(&namespace);
    drop((listener, device));
    tracer.wait_for_lines(2);
    let ended = tracer.interrupt();
    assert_eq!(ended.line_count(), 2, "{}", ended.text());
    let counted = |what: &str| ended.counted(what).unwrap_or(0);
    let abandoned = counted("handshakes abandoned by their clients");
    let lost = counted("other events lost in the ring");
    let unfollowed = counted("half-open/TIME_WAIT/listening sockets not tracked");
    let all = abandoned + lost + unfollowed;
    // The kernel drops a request immediately if the device has no room for the retransmitted SYN-ACK.
    let retransmitted = namespace.counter("netstat", "TcpExt", "TCPSynRetrans");
    assert!(retransmitted > u64::from(clients) / 2, "{retransmitted} SYN-ACKs were retransmitted");
    // Other clients on the host may abandon a few handshakes as well.
    assert!(
        (retransmitted..retransmitted + 100).contains(&all),
        "{retransmitted} SYN-ACKs were retransmitted: {}",
        ended.stderr
    );
}

#[rstest]
fn container_of_a_client_is_reported(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let id = "0123456789abcdef".repeat(4);
    let namespace = Namespace::alone();
    let listener = namespace.run("server", || sockets::listen("127.0.0.1:0"));
    let to = sockets::local(&listener);
    let tracer = Tracer::connections(&namespace, mode);
    let cgroup = TestCgroup::new("scenario");
    let scope = format!("docker-{id}.scope");
    let (scope_directory, _) = cgroup.create_child(&scope);
    let go = Gate::new();
    let client = ChildProcess::start(&namespace, "contained", || {
        fs::write(scope_directory.join("cgroup.procs"), "0").unwrap();
        let client = sockets::connect(to);
        // A reset before the server's socket exists would leave no server row.
        go.wait();
        sockets::reset_on_close(&client);
        drop(client);
    });
    let accepted = sockets::accept(&listener);
    go.open();
    sockets::wait_for_error(&accepted);
    drop(accepted);
    let client_id = client.id();
    client.wait();
    let (client, server) = tracer.finish_both();
    assert_eq!((client.pid, client.process.as_deref()), (Some(client_id), Some("contained")));
    assert_eq!(client.container_id.as_deref(), Some(id.as_str()), "{client:#?}");
    assert_eq!(client.container_runtime.as_deref(), Some("docker"));
    assert_eq!(client.cgroup, Some(format!("{}/{scope}", cgroup.path())));
    assert_ne!(server.container_id.as_deref(), Some(id.as_str()), "{server:#?}");
}

#[rstest]
fn full_output_disk_stops_with_an_error(
    #[values(Mode::Btf, Mode::Tracepoint)] mode: Mode,
    #[values("table", "json")] format: &str,
) {
    let namespace = Namespace::new();
    let netns = namespace.inode().to_string();
    let child = Command::new(program())
        .args(["-o", format, "--mode", mode.name(), "--netns", &netns, "--duration", "20s"])
        .stdin(Stdio::null())
        .stdout(fs::OpenOptions::new().write(true).open("/dev/full").unwrap())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let waiter = thread::spawn(|| child.wait_with_output().unwrap());
    // Produces rows until the program notices the full disk.
    wait::until("the program to exit", || {
        open_and_reset(&namespace);
        waiter.is_finished().then_some(())
    });
    let output = waiter.join().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let errors: Vec<&str> = stderr
        .lines()
        .filter(|line| !line.contains("tracing TCP in mode") && !line.contains("transitions seen"))
        .collect();
    let [error] = errors[..] else { panic!("{stderr}") };
    assert!(error.contains("output cannot be written"), "{error}");
    assert!(error.contains("No space left on device"), "{error}");
}

#[rstest]
fn closed_stdin_does_not_stop_tracing(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" \"$@\" <&-"]).arg(program());
    let tracer = Tracer::spawn(shell.args(tracer::arguments("connections", "json", &namespace, mode)));
    tracer.wait_for_stderr("tracing TCP in mode");
    open_and_reset(&namespace);
    tracer.finish_both();
}

/// A killed program leaves nothing behind that affects the next run.
#[rstest]
fn killed_program_does_not_affect_the_next_run(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let killed = Tracer::connections(&namespace, mode);
    killed.signal(Signal::KILL);
    assert_eq!(killed.wait_for_exit().status.code(), None);
    let tracer = Tracer::connections(&namespace, mode);
    open_and_reset(&namespace);
    tracer.finish_both();
}
