//! The daemon: what it counts, how it begins and ends, and whom it lets in.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use rstest::rstest;
use rustix::process::Signal;
use socket2::Socket;
use tcptrace_tests::{
    Daemon, Mode, Namespace, Tracer, daemon, http,
    sockets::{self, Pair},
    tun::{Direction, Kind, Relay, SERVER, Verdict},
    wait,
};

const ESTABLISHED: u32 = 1 << 1;
const FIN_WAIT_2: u32 = 1 << 5;
const TIME_WAIT: u32 = 1 << 6;
const CLOSE_WAIT: u32 = 1 << 8;

/// Opens and closes a connection, the client first.
fn visit(namespace: &Namespace, on: &str) {
    let Pair { client, server, listener: _listener } = sockets::pair(namespace, on);
    sockets::send(&client, &[0; 10]);
    sockets::receive(&server, 10);
    drop(client);
    sockets::wait_for_end(&server);
}

/// Fails to connect to a port where nobody listens.
fn be_refused(namespace: &Namespace) {
    let nobody = namespace.run("server", || {
        // Bound and not listening: nobody else gets the port meanwhile.
        let socket = sockets::tcp(sockets::address("127.0.0.1:0"));
        socket.bind(&sockets::address("127.0.0.1:0").into()).unwrap();
        socket
    });
    let to = sockets::local(&nobody);
    let refused = namespace.run("client", || sockets::try_connect(to));
    assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::ECONNREFUSED));
}

#[rstest]
fn the_page_counts_what_was_done(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let daemon = Daemon::start(&namespace, &["--mode", mode.name()]);
    for _ in 0..20 {
        visit(&namespace, "127.0.0.1:0");
    }
    for _ in 0..3 {
        be_refused(&namespace);
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
        (r#"tcptrace_connections{state="established"}"#, namespace.sockets_in(ESTABLISHED)),
        (r#"tcptrace_connections{state="close_wait"}"#, namespace.sockets_in(CLOSE_WAIT)),
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
    // The kernel does not tell when what it keeps of a connection goes from the one to the other.
    let remain = value(r#"tcptrace_connections{state="time_wait"}"#)
        + value(r#"tcptrace_connections{state="fin_wait_2"}"#);
    let found = namespace.sockets_in(TIME_WAIT | FIN_WAIT_2);
    assert!((remain - f64::from(u32::try_from(found).unwrap())).abs() < 0.5, "{remain} for {found}");
    if mode == Mode::Btf {
        // Both ends of 20 connections: 10 bytes each way out, and in.
        assert!((value("tcptrace_bytes_sent_total") - 200.0).abs() < 0.5);
        assert!((value("tcptrace_bytes_received_total") - 200.0).abs() < 0.5);
        let ports: Vec<_> =
            page.lines().filter(|it| it.starts_with("tcptrace_listener_accept_queue{")).collect();
        assert!(ports.len() >= 20, "{ports:?}");
    }
    let resident = value("process_resident_memory_bytes");
    // Unoptimised it is no larger than what an optimised one may take.
    assert!(resident < 40e6, "{resident} bytes");
    let mode = format!("tcptrace_mode_info{{mode=\"{}\",kernel=\"", mode.name());
    assert!(page.contains(&mode), "{mode}");
    drop(held);
}

#[rstest]
fn an_imposed_handshake_is_in_its_bucket(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let delay = Duration::from_millis(80);
    let relay = Relay::new(move |segment| match (segment.direction, segment.kind) {
        (Direction::ToServer, Kind::Ack) => Verdict::Delay(delay),
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
    // On a busy host it may take longer than the 80 ms, never shorter.
    assert_eq!((bucket("0.05"), bucket("0.5")), (Some(0.0), Some(5.0)));
    let sum = daemon.value(r#"tcptrace_handshake_duration_seconds_sum{role="server",network_type="ipv4"}"#);
    assert!(sum.is_some_and(|sum| sum >= 0.4), "{sum:?}");
}

#[test]
fn what_hangs_is_stuck_and_whose_it_is() {
    let namespace = Namespace::new();
    let options = ["--threshold", "close_wait=100ms", "--label", "process,local_port"];
    let daemon = Daemon::start(&namespace, &options);
    let pairs: Vec<Pair> = (0..3).map(|_| sockets::pair(&namespace, "127.0.0.1:0")).collect();
    let ports: Vec<u16> = pairs.iter().map(|pair| sockets::port(&pair.listener)).collect();
    let held: Vec<(Socket, Socket)> = pairs.into_iter().map(|pair| (pair.server, pair.listener)).collect();
    for port in ports {
        daemon.wait_for(
            &format!(
                r#"tcptrace_stuck_connections{{state="close_wait",local_port="{port}",process="server"}}"#
            ),
            1.0,
        );
    }
    drop(held);
}

#[test]
fn it_ends_well_and_takes_its_socket_along() {
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
        for answer in [daemon.get(path).unwrap(), http::get_unix(&socket, path).unwrap()] {
            assert_eq!(answer.status, status, "{path}");
            assert!(answer.text().contains(part), "{path}: {}", answer.text());
        }
    }
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    let answer = http::get(daemon.address, "/metrics", accept).unwrap();
    assert!(answer.text().ends_with("# EOF\n") && answer.head.contains("application/openmetrics-text"));
    daemon.program.signal(Signal::TERM);
    let ended = daemon.program.wait_for_end();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("transitions seen"), "{}", ended.stderr);
    assert!(!ended.stderr.contains('\u{1b}'), "no colours where there is no terminal");
    assert!(!socket.exists() && ended.stdout.is_empty());
}

#[test]
fn the_log_can_be_json() {
    let namespace = Namespace::new();
    let daemon = Daemon::start(&namespace, &["--log-format", "json"]);
    daemon.program.signal(Signal::INT);
    let ended = daemon.program.wait_for_end();
    for line in ended.stderr.lines() {
        let line: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["level"].is_string() && line["message"].is_string(), "{line}");
    }
}

/// Clients that send nothing, half a request, or take nothing of what they asked for.
#[test]
fn slow_clients_stall_nobody() {
    let namespace = Namespace::new();
    let daemon = Daemon::start(&namespace, &[]);
    let mut slow = Vec::new();
    for index in 0..600 {
        let mut stream = TcpStream::connect(daemon.address).unwrap();
        let sent: &[u8] = match index % 3 {
            0 => b"",
            1 => b"GET /metrics HTT",
            _ => b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        };
        // The oldest is given up when there are too many.
        let _ = stream.write_all(sent);
        slow.push(stream);
    }
    for _ in 0..10 {
        visit(&namespace, "127.0.0.1:0");
    }
    let begin = Instant::now();
    daemon.wait_for(r#"tcptrace_handshakes_total{role="server",result="established"}"#, 10.0);
    assert!(begin.elapsed() < Duration::from_secs(20));
    assert_eq!(daemon.get("/readyz").unwrap().status, 200);
    let fds = daemon.value("process_open_fds").unwrap();
    assert!(fds < 600.0, "{fds} descriptors");
    // One that goes away half-way.
    let mut cut = TcpStream::connect(daemon.address).unwrap();
    cut.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    cut.read_exact(&mut [0; 10]).unwrap();
    drop(cut);
    drop(slow);
    assert_eq!(daemon.get("/healthz").unwrap().status, 200);
    daemon.program.signal(Signal::TERM);
    assert!(daemon.program.wait_for_end().status.success());
}

fn openssl(folder: &Path, arguments: &str) {
    let mut openssl = Command::new("openssl");
    let output = openssl.current_dir(folder).args(arguments.split(' ')).output();
    let output = output.unwrap_or_else(|error| panic!("openssl cannot start: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The status that curl gets, 0 when there is no answer.
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
fn tls_and_passwords_and_a_broken_reload() {
    let namespace = Namespace::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    openssl(
        path,
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout key.pem -out cert.pem \
         -subj /CN=localhost -addext subjectAltName=DNS:localhost",
    );
    // `secret`, by htpasswd -nBC 4.
    let web = "tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\nbasic_auth_users:\n  alice: \
               $2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n";
    let config = path.join("web.yml");
    fs::write(&config, web).unwrap();
    let daemon = Daemon::start_unasked(&namespace, &["--web.config.file", config.to_str().unwrap()]);
    let trusted = ["--cacert", "cert.pem"];
    assert_eq!(curl(path, &daemon, &trusted), 401);
    assert_eq!(curl(path, &daemon, &[&trusted[..], &["-u", "alice:wrong"]].concat()), 401);
    assert_eq!(curl(path, &daemon, &[&trusted[..], &["-u", "alice:secret"]].concat()), 200);
    assert_eq!(curl(path, &daemon, &["-u", "alice:secret"]), 0, "a certificate that nobody knows");
    assert!(daemon.get("/healthz").is_err(), "plain HTTP on a TLS port");

    fs::write(&config, "basic_auth_users: {alice: broken}\n").unwrap();
    daemon.program.signal(Signal::HUP);
    daemon.program.wait_for_stderr("the old configuration stays");
    assert_eq!(curl(path, &daemon, &[&trusted[..], &["-u", "alice:secret"]].concat()), 200);
    fs::write(&config, "").unwrap();
    daemon.program.signal(Signal::HUP);
    daemon.program.wait_for_stderr("was read again");
    wait::until("plain HTTP", || daemon.get("/healthz").ok().filter(|answer| answer.status == 200));
}

#[test]
fn bad_input_is_one_clear_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let used = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let used = used.local_addr().map(|address| (used, address.to_string())).unwrap();
    let typo = write("typo.toml", "lisen = \"127.0.0.1:0\"\n");
    let good = write("good.toml", "listen = [\"127.0.0.1:0\"]\nlabel = [\"process\"]\n");
    let web = write("web.yml", "tls_server_config: {cert_file: missing.pem, key_file: missing.key}\n");
    for (arguments, status, parts) in [
        (vec!["--listen", used.1.as_str()], 1, vec![used.1.as_str(), "--listen"]),
        (vec!["--check", "--config", &typo], 1, vec!["`lisen`", "did you mean `listen`?"]),
        (vec!["--check", "--config", &good], 0, vec!["sound"]),
        (vec!["--check", "--config", &good, "--web-config", &web], 1, vec!["missing.pem"]),
        (vec!["--check", "--label", "service=/no/such/list"], 1, vec!["/no/such/list"]),
        (vec!["--label", "remote_address"], 2, vec!["remote_cidr"]),
    ] {
        let ended = Tracer::start_unready([&["serve"][..], &arguments].concat()).wait_for_end();
        assert_eq!(ended.status.code(), Some(status), "{arguments:?}: {}", ended.stderr);
        for part in parts {
            assert!(ended.stderr.contains(part), "{part} not in: {}", ended.stderr);
        }
        if status != 2 {
            assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        }
    }
}
