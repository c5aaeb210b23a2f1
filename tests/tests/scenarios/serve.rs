//! The daemon: metrics, start and stop, HTTP access.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::{
        fs::{PermissionsExt as _, chown},
        net::UnixDatagram,
    },
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rstest::rstest;
use rustix::process::{Resource, Rlimit, Signal};
use socket2::Socket;
use tcptrace_tests::{
    Daemon, Mode, Namespace, Tracer, daemon, http,
    process::own_name,
    sockets::{self, Pair},
    speed,
    tun::{Direction, Relay, SERVER, SegmentKind, Verdict},
    wait,
};

use crate::support::{PASSWORD_CONFIG, next_notification};

/// Opens a connection, sends 10 bytes and closes it from the client.
fn open_and_close(namespace: &Namespace, on: &str) {
    let Pair { client, server, listener: _listener } = sockets::pair(namespace, on);
    sockets::send(&client, &[0; 10]);
    sockets::receive(&server, 10);
    drop(client);
    sockets::wait_for_end(&server);
}

/// Connects to a port without a listener, which is refused.
fn connect_refused(namespace: &Namespace) {
    let bound = namespace.run("server", || {
        // Bound without listening: reserves the port.
        let socket = sockets::tcp(sockets::address("127.0.0.1:0"));
        socket.bind(&sockets::address("127.0.0.1:0").into()).unwrap();
        socket
    });
    let to = sockets::local(&bound);
    let refused = namespace.run("client", || sockets::try_connect(to));
    assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::ECONNREFUSED));
}

#[rstest]
fn metrics_page_counts_the_traffic(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let daemon = Daemon::start(&namespace, &["--mode", mode.name()]);
    for _ in 0..20 {
        open_and_close(&namespace, "127.0.0.1:0");
    }
    for _ in 0..3 {
        connect_refused(&namespace);
    }
    let held: Vec<Pair> = (0..4).map(|_| sockets::pair(&namespace, "[::1]:0")).collect();
    daemon.wait_for(r#"tcptrace_connections_closed_total{role="server",reason="closed"}"#, 20.0);
    daemon.wait_for(r#"tcptrace_connections_closed_total{role="client",reason="closed"}"#, 20.0);
    daemon.wait_for(r#"tcptrace_handshakes_total{role="client",result="established"}"#, 24.0);
    daemon.wait_for(r#"tcptrace_handshakes_total{role="server",result="established"}"#, 24.0);
    daemon.wait_for(r#"tcptrace_handshakes_total{role="client",result="refused"}"#, 3.0);
    let page = daemon.page();
    let value =
        |series: &str| daemon::value(&page, series).unwrap_or_else(|| panic!("no {series} in {page}"));
    for (series, expected) in [
        (r#"tcptrace_connections{state="established"}"#, namespace.sockets_in(sockets::ESTABLISHED)),
        (r#"tcptrace_connections{state="close_wait"}"#, namespace.sockets_in(sockets::CLOSE_WAIT)),
        (r#"tcptrace_connections{state="listen"}"#, held.len()),
        (r#"tcptrace_connections{state="fin_wait_1"}"#, 0),
        (r#"tcptrace_handshake_duration_seconds_count{role="client",network_type="ipv4"}"#, 20),
        (r#"tcptrace_handshake_duration_seconds_count{role="client",network_type="ipv6"}"#, 4),
        (r#"tcptrace_transitions_total{from="syn_received",to="established"}"#, 24),
        (r#"tcptrace_events_lost_total{where="ring"}"#, 0),
        ("tcptrace_connections_tracked", 8),
    ] {
        let expected = f64::from(u32::try_from(expected).unwrap());
        assert!((value(series) - expected).abs() < 0.5, "{series}: {} for {expected}", value(series));
    }
    assert!(value(r#"tcptrace_connections{state="established"}"#) >= 8.0);
    // The kernel does not report when a timewait socket changes from FIN_WAIT2 to TIME_WAIT.
    let timewait_sockets = value(r#"tcptrace_connections{state="time_wait"}"#)
        + value(r#"tcptrace_connections{state="fin_wait_2"}"#);
    let found = namespace.sockets_in(sockets::TIME_WAIT | sockets::FIN_WAIT_2);
    assert!(
        (timewait_sockets - f64::from(u32::try_from(found).unwrap())).abs() < 0.5,
        "{timewait_sockets} for {found}"
    );
    if mode == Mode::Btf {
        // 20 connections with 10 bytes each, counted at both sockets.
        assert!((value("tcptrace_bytes_sent_total") - 200.0).abs() < 0.5);
        assert!((value("tcptrace_bytes_received_total") - 200.0).abs() < 0.5);
        let ports: Vec<_> =
            page.lines().filter(|line| line.starts_with("tcptrace_listener_accept_queue{")).collect();
        assert!(ports.len() >= 20, "{ports:?}");
    }
    let resident = value("process_resident_memory_bytes");
    // The limit of an optimized build; unoptimized builds stay below it too.
    assert!(resident < 40e6, "{resident} bytes");
    let mode = format!("tcptrace_mode_info{{mode=\"{}\",kernel=\"", mode.name());
    assert!(page.contains(&mode), "{mode}");
    drop(held);
}

#[rstest]
fn delayed_handshake_is_in_its_bucket(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let delay = Duration::from_millis(80);
    let relay = Relay::new(move |segment| match (segment.direction, segment.kind) {
        (Direction::ToServer, SegmentKind::Ack) => Verdict::Delay(delay),
        _ => Verdict::Pass,
    });
    let daemon = Daemon::start(&relay.server, &["--mode", mode.name()]);
    let listener = relay.server.run("server", || sockets::listen(&format!("{SERVER}:5000")));
    let clients: Vec<Socket> = (0..5)
        .map(|_| relay.client.run("client", || sockets::connect(sockets::address(&format!("{SERVER}:5000")))))
        .collect();
    let _servers: Vec<Socket> = clients.iter().map(|_| sockets::accept(&listener)).collect();
    daemon.wait_for(r#"tcptrace_handshakes_total{role="server",result="established"}"#, 5.0);
    let bucket = |le: &str| {
        let labels = format!(r#"{{role="server",network_type="ipv4",le="{le}"}}"#);
        daemon.value(&format!("tcptrace_handshake_duration_seconds_bucket{labels}"))
    };
    // On a busy host it may take longer than 80 ms, never less.
    assert_eq!((bucket("0.05"), bucket("0.5")), (Some(0.0), Some(5.0)));
    let sum = daemon.value(r#"tcptrace_handshake_duration_seconds_sum{role="server",network_type="ipv4"}"#);
    assert!(sum.is_some_and(|sum| sum >= 0.4), "{sum:?}");
}

#[test]
fn stuck_connections_are_counted_per_owner() {
    let namespace = Namespace::new();
    let options = ["--threshold", "close_wait=100ms", "--label", "process,local_port"];
    let daemon = Daemon::start(&namespace, &options);
    let pairs: Vec<Pair> = (0..3).map(|_| sockets::pair(&namespace, "127.0.0.1:0")).collect();
    let ports: Vec<u16> = pairs.iter().map(|pair| sockets::port(&pair.listener)).collect();
    let process = own_name();
    let held: Vec<(Socket, Socket)> = pairs.into_iter().map(|pair| (pair.server, pair.listener)).collect();
    for port in ports {
        daemon.wait_for(
            &format!(
                r#"tcptrace_stuck_connections{{state="close_wait",local_port="{port}",process="{process}"}}"#
            ),
            1.0,
        );
    }
    drop(held);
}

#[test]
fn sigterm_stops_the_daemon_and_removes_its_socket() {
    let namespace = Namespace::new();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("metrics.sock");
    let daemon = Daemon::start(&namespace, &["--listen", &format!("unix:{}", socket.display())]);
    for (path, status, part) in [
        ("/", 200, "href=\"/metrics\""),
        ("/healthz", 200, "ok"),
        ("/readyz", 200, "ready"),
        ("/metrics", 200, "# TYPE tcptrace_handshakes_total counter"),
        ("/nothing", 404, ""),
    ] {
        for response in [daemon.get(path).unwrap(), http::get_unix(&socket, path).unwrap()] {
            assert_eq!(response.status, status, "{path}");
            assert!(response.text().contains(part), "{path}: {}", response.text());
        }
    }
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    let response = http::get(daemon.address, "/metrics", accept).unwrap();
    assert!(response.text().ends_with("# EOF\n") && response.head.contains("application/openmetrics-text"));
    daemon.program.signal(Signal::TERM);
    let ended = daemon.program.wait_for_exit();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("transitions seen"), "{}", ended.stderr);
    assert!(!ended.stderr.contains('\u{1b}'), "no colors without a terminal");
    assert!(!socket.exists() && ended.stdout.is_empty());
}

#[test]
fn json_log_has_level_and_message() {
    let namespace = Namespace::new();
    let daemon = Daemon::start(&namespace, &["--log-format", "json"]);
    daemon.program.signal(Signal::INT);
    let ended = daemon.program.wait_for_exit();
    for line in ended.stderr.lines() {
        let line: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["level"].is_string() && line["message"].is_string(), "{line}");
    }
}

/// Returns the length and the limit of a listener's accept queue, from `ss`.
fn ss_listener(namespace: &Namespace, port: u16) -> (f64, f64) {
    let output = namespace.run("ss", || Command::new("ss").arg("-tlnH").output());
    let output = output.unwrap_or_else(|error| panic!("ss cannot start: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.contains(&format!(":{port} ")));
    let line = line.unwrap_or_else(|| panic!("no port {port} in {text}"));
    let mut numbers = line.split_whitespace().skip(1).map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// The application does not accept: no connection arrives, so no event reports the full queue.
#[rstest]
fn full_accept_queue_is_reported_until_drained(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    // The daemon finds the namespace only through a process in it.
    let _inhabitant = namespace.inhabit();
    let listener = namespace.run("server", || sockets::listen_with("127.0.0.1:0", 4, |_| {}));
    let (to, port) = (sockets::local(&listener), sockets::port(&listener));
    let daemon = Daemon::start(&namespace, &["--mode", mode.name()]);
    let series = |what: &str| format!("tcptrace_listener_accept_queue{what}{{port=\"{port}\"}}");
    daemon.wait_for(&series(""), 0.0);
    // Linux admits one more than the limit.
    let clients: Vec<Socket> = (0..5).map(|_| namespace.run("client", || sockets::connect(to))).collect();
    daemon.wait_for(&series(""), 5.0);
    let page = daemon.page();
    let shown = (daemon::value(&page, &series("")), daemon::value(&page, &series("_limit")));
    let (length, limit) = ss_listener(&namespace, port);
    assert_eq!((length, limit), (5.0, 4.0), "the queue is full");
    assert_eq!(shown, (Some(length), Some(limit)));
    if mode == Mode::Btf {
        // The fifth connection arrived at a queue of four.
        assert_eq!(daemon::value(&page, &series("_peak")), Some(4.0));
    }
    // The queue becomes empty without a new connection.
    for _ in &clients {
        sockets::accept(&listener);
    }
    daemon.wait_for(&series(""), 0.0);
    drop(listener);
    wait::until("the series to end", || daemon.value(&series("")).is_none().then_some(()));
}

#[test]
fn systemd_is_notified_of_readiness_watchdog_and_stop() {
    let namespace = Namespace::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(speed::limit())).unwrap();
    let mut command = Daemon::command(&namespace, &[]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000").env_remove("WATCHDOG_PID");
    let daemon = Daemon::spawn(&mut command);
    let first = next_notification(&systemd).expect("readiness");
    assert!(first.contains("READY=1") && first.contains("STATUS=tracing"), "{first}");
    assert_eq!(daemon.get("/readyz").unwrap().status, 200);
    for _ in 0..3 {
        assert_eq!(next_notification(&systemd).as_deref().map(str::trim), Some("WATCHDOG=1"));
    }
    daemon.program.signal(Signal::TERM);
    let last = wait::until("the last notification", || {
        next_notification(&systemd).filter(|text| !text.contains("WATCHDOG=1"))
    });
    assert_eq!(last.trim(), "STOPPING=1");
    assert!(daemon.program.wait_for_exit().status.success());
}

/// The reader of the log has exited; the daemon continues.
#[test]
fn closed_log_pipe_does_not_stop_the_daemon() {
    let namespace = Namespace::new();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("web.yml");
    fs::write(&config, "").unwrap();
    let mut command = Daemon::command(&namespace, &["--web-config", config.to_str().unwrap()]);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let address: SocketAddr = loop {
        let line = log.next().expect("it listens").unwrap();
        if let Some((_, address)) = line.split_once("listening on ") {
            break address.trim().parse().unwrap();
        }
    };
    drop(log);
    // A required password shows that the reload, including its log message, is complete.
    fs::write(&config, PASSWORD_CONFIG).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::HUP).unwrap();
    wait::until("the reload", || {
        http::get(address, "/healthz", "").ok().filter(|response| response.status == 401)
    });
    let header = "Authorization: Basic YWxpY2U6c2VjcmV0\r\n";
    assert_eq!(http::get(address, "/healthz", header).unwrap().status, 200);
    assert!(child.try_wait().unwrap().is_none());
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    let status = wait::until("the daemon to exit", || child.try_wait().unwrap());
    assert!(status.success(), "{status}");
}

#[test]
fn serve_replays_a_recording() {
    let namespace = Namespace::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recording.arrows");
    let recorder = Tracer::start(["record", file.to_str().unwrap(), "--duration", "10m"]);
    let size = || fs::metadata(&file).map_or(0, |metadata| metadata.len());
    // The recording also has other connections of the host. These ports are outside the ephemeral range, and
    // parallel runs hardly use the same ones.
    let first = 100 + 4 * u16::try_from(namespace.inode() % 200).unwrap();
    let ports: Vec<u16> = (first..first + 4).collect();
    for port in &ports {
        let before = size();
        drop(sockets::pair(&namespace, &format!("127.0.0.1:{port}")));
        // Each connection gets its own batch.
        wait::until("a batch", || (size() > before).then_some(()));
    }
    recorder.interrupt();
    let mut command = Command::new(tcptrace_tests::program::program());
    let services = folder.path().join("services");
    let lines: Vec<String> = ports.iter().map(|port| format!("port{port} {port}\n")).collect();
    fs::write(&services, lines.concat()).unwrap();
    let label = format!("service={}", services.display());
    command.args(["serve", "-i", file.to_str().unwrap(), "--listen", "127.0.0.1:0", "--label", &label]);
    let daemon = Daemon::spawn(&mut command);
    let ready = wait::until("the end of the recording", || {
        daemon.get("/readyz").ok().filter(|response| response.text().contains("has been read"))
    });
    assert_eq!(ready.status, 200);
    let page = daemon.page();
    for port in ports {
        let series = format!(
            r#"tcptrace_handshakes_total{{role="server",result="established",service="port{port}"}}"#
        );
        assert_eq!(daemon::value(&page, &series), Some(1.0), "{page}");
    }
    assert!(!page.contains("tcptrace_counts_age_seconds "), "counts of a recording have no age");
    assert!(daemon.program.interrupt().status.success());
}

/// A new password also applies to open connections, which the daemon closes.
#[test]
fn reload_applies_to_open_connections() {
    let namespace = Namespace::new();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("web.yml");
    fs::write(&config, "").unwrap();
    let daemon = Daemon::start_listening(&namespace, &["--web-config", config.to_str().unwrap()]);
    let request = |stream: &mut TcpStream| stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    let connect = || {
        let stream = TcpStream::connect(daemon.address).unwrap();
        stream.set_read_timeout(Some(speed::limit())).unwrap();
        stream
    };
    let (mut active, mut silent) = (connect(), connect());
    request(&mut active).unwrap();
    let mut head = [0; 15];
    active.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    fs::write(&config, PASSWORD_CONFIG).unwrap();
    daemon.program.signal(Signal::HUP);
    daemon.program.wait_for_stderr("was read again");
    active.read_to_end(&mut Vec::new()).expect("the daemon closes the connection within the timeout");
    // A connection without a request is either closed or must authenticate.
    let mut answer = Vec::new();
    let _ = request(&mut silent);
    let _ = silent.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 401"), "{answer}");
}

/// The start reads files with privileges that a reload lacks.
#[test]
fn unreadable_reload_file_is_reported_at_start() {
    let namespace = Namespace::new();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("web.yml");
    fs::write(&config, "").unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
    // Owned by `nobody`: root reads it only with CAP_DAC_READ_SEARCH or CAP_DAC_OVERRIDE.
    chown(&config, Some(65534), Some(65534)).unwrap();
    let path = config.to_str().unwrap();
    let daemon = Daemon::start(&namespace, &["--web-config", path]);
    daemon.program.wait_for_stderr("LoadCredential=");
    assert!(daemon.program.stderr().contains("SIGHUP will not be able to read"));
    let checked = Tracer::start_unready(["serve", "--check", "--web-config", path]).wait_for_exit();
    assert_eq!(checked.status.code(), Some(2), "{}", checked.stderr);
    assert!(checked.stderr.contains("LoadCredential=") && checked.stderr.lines().count() == 1);
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).unwrap();
    let checked = Tracer::start_unready(["serve", "--check", "--web-config", path]).wait_for_exit();
    assert!(checked.status.success(), "{}", checked.stderr);
}

/// Requests a page and reads so little that most of it stays in the daemon: small segments, small receive
/// buffer.
fn request_slowly(daemon: &Daemon) -> Socket {
    let socket = sockets::tcp(daemon.address);
    socket.set_recv_buffer_size(2048).unwrap();
    sockets::set_tcp_option(&socket, libc::TCP_MAXSEG, 536);
    socket.connect(&daemon.address.into()).unwrap();
    sockets::send(&socket, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    sockets::receive(&socket, 10);
    socket
}

/// Aborted scrapes with most of a large page unsent.
#[test]
fn aborted_scrapes_release_their_pages() {
    let namespace = Namespace::new();
    let daemon = Daemon::start(&namespace, &["--label", "local_port", "--label-limit", "1000"]);
    let count = speed::count(200, 50);
    for _ in 0..count {
        open_and_close(&namespace, "127.0.0.1:0");
    }
    let established = |page: &str| -> f64 {
        let series = r#"tcptrace_handshakes_total{role="server",result="established","#;
        let lines = page.lines().filter(|line| line.starts_with(series));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    };
    let page = wait::until("all of them", || {
        let page = daemon.page();
        (established(&page) >= f64::from(count)).then_some(page)
    });
    assert!(page.len() > 100_000, "{} bytes", page.len());
    let slow: Vec<Socket> = (0..8).map(|_| request_slowly(&daemon)).collect();
    // They hold all available pages, and those become outdated.
    let refused =
        wait::until("a refusal", || daemon.get("/metrics").ok().filter(|response| response.status == 503));
    assert!(refused.text().contains("too many clients are reading"), "{}", refused.text());
    assert_eq!(daemon.get("/healthz").unwrap().status, 200);
    open_and_close(&namespace, "127.0.0.1:0");
    for socket in slow {
        sockets::reset_on_close(&socket);
    }
    let page = wait::until("a page", || {
        let page = daemon.get("/metrics").ok().filter(|response| response.status == 200)?.text();
        (established(&page) > f64::from(count)).then_some(page)
    });
    assert_eq!(daemon::value(&page, r#"tcptrace_events_lost_total{where="ring"}"#), Some(0.0));
}

/// Clients that send nothing, send half a request, or do not read the response.
#[test]
fn slow_clients_do_not_stall_others() {
    // The usual soft limit is 1024 descriptors.
    let limit = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let namespace = Namespace::new();
    let daemon = Daemon::start(&namespace, &[]);
    let connect = || TcpStream::connect(daemon.address).unwrap();
    // More connections than the limit: the daemon closes the oldest, even while new ones arrive.
    let idle: Vec<TcpStream> = (0..1000).map(|_| connect()).collect();
    for _ in 0..10 {
        open_and_close(&namespace, "127.0.0.1:0");
    }
    let begin = Instant::now();
    let server = r#"tcptrace_handshakes_total{role="server",result="established"}"#;
    daemon.wait_for(server, 10.0);
    assert!(begin.elapsed() < Duration::from_secs(speed::count(20, 200)));
    let open = daemon.value("process_open_fds").unwrap();
    assert!((500.0..600.0).contains(&open), "{open} descriptors");
    let mut slow = idle;
    for index in 0..600 {
        let mut stream = TcpStream::connect(daemon.address).unwrap();
        let sent: &[u8] = match index % 3 {
            0 => b"",
            1 => b"GET /metrics HTT",
            _ => b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        };
        // The daemon may have closed this connection already.
        let _ = stream.write_all(sent);
        slow.push(stream);
    }
    for _ in 0..10 {
        open_and_close(&namespace, "127.0.0.1:0");
    }
    let begin = Instant::now();
    daemon.wait_for(server, 20.0);
    assert!(begin.elapsed() < Duration::from_secs(speed::count(20, 200)));
    assert_eq!(daemon.value(r#"tcptrace_events_lost_total{where="ring"}"#), Some(0.0));
    assert_eq!(daemon.get("/readyz").unwrap().status, 200);
    let fds = daemon.value("process_open_fds").unwrap();
    assert!(fds < 600.0, "{fds} descriptors");
    drop(slow);
    assert_eq!(daemon.get("/healthz").unwrap().status, 200);
    daemon.program.signal(Signal::TERM);
    assert!(daemon.program.wait_for_exit().status.success());
}

fn openssl(folder: &Path, arguments: &str) {
    let mut openssl = Command::new("openssl");
    let output = openssl.current_dir(folder).args(arguments.split(' ')).output();
    let output = output.unwrap_or_else(|error| panic!("openssl cannot start: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Returns curl's HTTP status; 0 without a response.
fn curl(folder: &Path, daemon: &Daemon, options: &[&str]) -> u16 {
    let mut curl = Command::new("curl");
    let url = format!("https://localhost:{}/healthz", daemon.address.port());
    curl.current_dir(folder).args([
        "-s",
        "-o",
        "answer",
        "-w",
        "%{http_code}",
        "--max-time",
        "20",
        "--noproxy",
        "*",
    ]);
    let output =
        curl.args(options).arg(url).output().unwrap_or_else(|error| panic!("curl cannot start: {error}"));
    String::from_utf8_lossy(&output.stdout).parse().unwrap_or(0)
}

#[test]
fn tls_and_passwords_survive_a_broken_reload() {
    let namespace = Namespace::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    openssl(
        path,
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout key.pem -out cert.pem \
         -subj /CN=localhost -addext subjectAltName=DNS:localhost",
    );
    let web = format!("tls_server_config: {{cert_file: cert.pem, key_file: key.pem}}\n{PASSWORD_CONFIG}");
    let config = path.join("web.yml");
    fs::write(&config, web).unwrap();
    let daemon = Daemon::start_listening(&namespace, &["--web.config.file", config.to_str().unwrap()]);
    let trusted = ["--cacert", "cert.pem"];
    assert_eq!(curl(path, &daemon, &trusted), 401);
    assert_eq!(curl(path, &daemon, &[&trusted[..], &["-u", "alice:wrong"]].concat()), 401);
    assert_eq!(curl(path, &daemon, &[&trusted[..], &["-u", "alice:secret"]].concat()), 200);
    assert_eq!(curl(path, &daemon, &["-u", "alice:secret"]), 0, "an untrusted certificate");
    assert!(daemon.get("/healthz").is_err(), "plain HTTP on a TLS port");

    fs::write(&config, "basic_auth_users: {alice: broken}\n").unwrap();
    daemon.program.signal(Signal::HUP);
    daemon.program.wait_for_stderr("the old configuration stays");
    assert_eq!(curl(path, &daemon, &[&trusted[..], &["-u", "alice:secret"]].concat()), 200);
    fs::write(&config, "").unwrap();
    daemon.program.signal(Signal::HUP);
    daemon.program.wait_for_stderr("was read again");
    wait::until("plain HTTP", || daemon.get("/healthz").ok().filter(|response| response.status == 200));
}

#[test]
fn invalid_input_is_reported_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let used = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let used = used.local_addr().map(|address| (used, address.to_string())).unwrap();
    let typo = write("typo.toml", "lisen = \"127.0.0.1:0\"\n");
    let broken = write("broken.toml", "mode = \"btf\"\nlabel = [\"process\"\nlisten = 1\n");
    let unknown = write("unknown.yml", "tls_server_config: {cert_file: a, key_file: b, client_ca_file: c}\n");
    let good = write("good.toml", "listen = [\"127.0.0.1:0\"]\nlabel = [\"process\"]\n");
    let web = write("web.yml", "tls_server_config: {cert_file: missing.pem, key_file: missing.key}\n");
    for (arguments, status, parts) in [
        (vec!["--listen", used.1.as_str()], 1, vec![used.1.as_str(), "free port", "--listen"]),
        (vec!["--listen", "192.0.2.1:0"], 1, vec!["192.0.2.1:0", "`ip address`"]),
        (vec!["--listen", "unix:/no/such/folder/socket"], 1, vec!["make the directory /no/such/folder"]),
        (vec!["--check", "--config", &broken], 2, vec!["line 3, column 1", "label-limit"]),
        (vec!["--check", "--web-config", &unknown], 2, vec!["client_ca_file", "docs/operating.md"]),
        (vec!["--check", "--config", &typo], 2, vec!["`lisen`", "did you mean `listen`?"]),
        (vec!["--check", "--config", &good], 0, vec!["valid"]),
        (vec!["--check", "--config", &good, "--web-config", &web], 2, vec!["missing.pem"]),
        (vec!["--check", "--label", "service=/no/such/list"], 2, vec!["/no/such/list"]),
        (vec!["--label", "remote_address"], 2, vec!["remote_cidr"]),
    ] {
        let ended = Tracer::start_unready([&["serve"][..], &arguments].concat()).wait_for_exit();
        assert_eq!(ended.status.code(), Some(status), "{arguments:?}: {}", ended.stderr);
        for part in parts {
            assert!(ended.stderr.contains(part), "{part} not in: {}", ended.stderr);
        }
        if arguments[0] != "--label" {
            assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        }
    }
}
