//! What could bring the program down, or make it say something untrue.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use rstest::rstest;
use rustix::process::Signal;
use tcptrace_tests::{
    Connection, Mode, Namespace, Process, Tracer,
    process::Gate,
    program::program,
    sockets::{self, Pair},
    speed, tun, wait,
};

/// Opens and resets a connection.
fn visit(namespace: &Namespace) {
    let Pair { client, server, listener: _listener } = sockets::pair(namespace, "127.0.0.1:0");
    sockets::reset_on_close(&client);
    drop(client);
    sockets::wait_for_error(&server);
}

/// The namespace goes, with what the kernel keeps of its connections.
#[rstest]
fn a_namespace_vanishes(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let stays = Namespace::new();
    let goes = stays.beside();
    let inode = goes.inode();
    let inhabitant = goes.inhabit();
    let pair = sockets::pair(&goes, "127.0.0.1:0");
    let gone = Tracer::connections(&goes, mode);
    let other = Tracer::connections(&stays, mode);
    // In TIME_WAIT, and a listener.
    let Pair { client, server, listener } = pair;
    client.shutdown(std::net::Shutdown::Write).unwrap();
    sockets::wait_for_end(&server);
    drop((server, client, goes, listener, inhabitant));
    let rows = gone.rows::<Connection>(2);
    assert!(
        rows.iter().all(|row| row.netns == Some(inode) && row.incomplete && row.close_reason == "closed")
    );
    visit(&stays);
    other.finish_both();
}

/// With far more connections than the table holds, all of them end with one line each, and the summary
/// says how much was forgotten.
#[rstest]
fn the_table_is_full(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
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
    let Some(ended) = tracer.many(mode, 2 * CONNECTIONS) else { return };
    let rows = ended.rows::<Connection>();
    let mut ends: BTreeMap<(u16, u16), usize> = BTreeMap::new();
    for row in &rows {
        *ends.entry(row.ports()).or_default() += 1;
    }
    assert_eq!((rows.len(), ends.len()), (2 * CONNECTIONS, 2 * CONNECTIONS), "{ends:?}");
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

/// Clients that do not exist: each handshake whose SYN-ACK the kernel sent again is counted, or counted as lost.
/// 100,000 of them are more than are followed.
#[test]
fn a_flood_of_syns_is_counted() {
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
    let tracer = Tracer::connections(&namespace, Mode::Btf);
    let listener =
        namespace.run("server", || sockets::listen_with(&format!("{}:5000", tun::SERVER), 131_072, |_| {}));
    tun::flood(&device, 5000, clients);
    wait::until("the last SYN", || {
        (namespace.counter("snmp", "Tcp", "InSegs") == u64::from(clients)).then_some(())
    });
    assert_eq!(namespace.counter("netstat", "TcpExt", "ListenDrops"), 0, "the kernel did not take all SYNs");
    wait::until("the kernel to give up", || (namespace.sockets_in(1 << 3) == 0).then_some(()));
    // Its grace.
    wait::pause(Duration::from_millis(2500));
    visit(&namespace);
    drop((listener, device));
    tracer.wait_for_lines(2);
    let ended = tracer.interrupt();
    assert_eq!(ended.line_count(), 2, "{}", ended.text());
    let counted = |what: &str| ended.counted(what).unwrap_or(0);
    let abandoned = counted("handshakes abandoned by their clients");
    let lost = counted("other events lost in the ring");
    let unfollowed = counted("half-open or in TIME_WAIT beyond the table");
    let all = abandoned + lost + unfollowed;
    // The kernel gives up on a request at once when the device has no room for the SYN-ACK that it sends again.
    let resent = namespace.counter("netstat", "TcpExt", "TCPSynRetrans");
    assert!(resent > u64::from(clients) / 2, "{resent} SYN-ACKs were sent again");
    // Strangers may abandon a few as well.
    assert!((resent..resent + 100).contains(&all), "{resent} were sent again: {}", ended.stderr);
}

/// A cgroup below the unified hierarchy's root, removed when dropped.
struct Cgroup {
    outer: PathBuf,
    inner: PathBuf,
    path: String,
}

impl Cgroup {
    fn new(inner: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let mount = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .find(|fields| fields.get(2) == Some(&"cgroup2"))
            .map(|fields| PathBuf::from(fields[1]))
            .expect("a cgroup2 hierarchy is mounted");
        let name = format!("tcptrace-scenario-{}", std::process::id());
        let outer = mount.join(&name);
        let made = Self { inner: outer.join(inner), outer, path: format!("/{name}/{inner}") };
        fs::create_dir_all(&made.inner).expect("root may make cgroups");
        made
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let remove = |directory: &Path| {
            for _ in 0..500 {
                if fs::remove_dir(directory).is_ok() {
                    return;
                }
                thread::sleep(Duration::from_millis(2));
            }
        };
        remove(&self.inner);
        remove(&self.outer);
    }
}

#[rstest]
fn a_container_is_named(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let id = "0123456789abcdef".repeat(4);
    let namespace = Namespace::alone();
    let listener = namespace.run("server", || sockets::listen("127.0.0.1:0"));
    let to = sockets::local(&listener);
    let tracer = Tracer::connections(&namespace, mode);
    let cgroup = Cgroup::new(&format!("docker-{id}.scope"));
    let go = Gate::new();
    let client = Process::start(&namespace, "contained", || {
        fs::write(cgroup.inner.join("cgroup.procs"), "0").unwrap();
        let client = sockets::connect(to);
        // A reset that comes before the server has its socket leaves none.
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
    assert_eq!(client.cgroup.as_deref(), Some(cgroup.path.as_str()));
    assert_ne!(server.container_id.as_deref(), Some(id.as_str()), "{server:#?}");
}

#[rstest]
fn a_full_disk_is_told_in_a_sentence(
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
    // Something to write, until it has noticed.
    wait::until("the program's end", || {
        visit(&namespace);
        waiter.is_finished().then_some(())
    });
    let output = waiter.join().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let complaints: Vec<&str> = stderr
        .lines()
        .filter(|line| !line.contains("tracing TCP in mode") && !line.contains("transitions seen"))
        .collect();
    let [complaint] = complaints[..] else { panic!("{stderr}") };
    assert!(complaint.contains("output cannot be written"), "{complaint}");
    assert!(complaint.contains("No space left on device"), "{complaint}");
}

#[rstest]
fn without_stdin(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let netns = namespace.inode().to_string();
    let tracer =
        Tracer::spawn(Command::new("sh").args(["-c", "exec \"$0\" \"$@\" <&-"]).arg(program()).args([
            "-o",
            "json",
            "--mode",
            mode.name(),
            "--netns",
            &netns,
            "--duration",
            "10m",
        ]));
    tracer.wait_for_stderr("tracing TCP in mode");
    visit(&namespace);
    tracer.finish_both();
}

/// Nothing stays behind that would disturb the next.
#[rstest]
fn a_killed_program_leaves_the_next_in_peace(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let killed = Tracer::connections(&namespace, mode);
    killed.signal(Signal::KILL);
    assert_eq!(killed.wait_for_end().status.code(), None);
    let tracer = Tracer::connections(&namespace, mode);
    visit(&namespace);
    tracer.finish_both();
}
