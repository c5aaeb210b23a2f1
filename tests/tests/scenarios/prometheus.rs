//! Scrapes the daemon with a real Prometheus and checks the results with PromQL.

use std::{
    fs,
    io::Write as _,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rstest::rstest;
use tcptrace_tests::{
    Daemon, Namespace, http,
    sockets::{self, Pair},
    tun::{Direction, Relay, SERVER, SegmentKind, Verdict},
    wait,
};

use crate::support::ss;

/// A Prometheus that scrapes a daemon every second; killed on drop, or when the test exits otherwise.
struct Prometheus {
    child: Child,
    address: SocketAddr,
}

impl Prometheus {
    fn start(folder: &Path, daemon: &Daemon, native: bool) -> Self {
        let config = folder.join("prometheus.yml");
        let scrape = format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: tcptrace\n  static_configs:\n  - targets: \
             ['{}']\n",
            daemon.address
        );
        fs::write(&config, scrape).unwrap();
        // The port was free a moment ago. Only a program that does not let the kernel choose its port could
        // take it.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "prometheus", "--log.level=warn"])
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.join("log")).unwrap());
        if native {
            command.arg("--enable-feature=native-histograms");
        }
        let child = command.spawn().unwrap_or_else(|error| panic!("prometheus cannot start: {error}"));
        let prometheus = Self { child, address };
        wait::until("prometheus", || {
            http::get(address, "/-/ready", "").ok().filter(|response| response.status == 200)
        });
        prometheus
    }

    /// Returns the value of a query; `None` if it has no result yet.
    fn value(&self, query: &str) -> Option<f64> {
        let path = format!("/api/v1/query?query={}", http::percent_encode(query));
        let response = http::get(self.address, &path, "").unwrap_or_else(|error| panic!("{query}: {error}"));
        let body = response.text();
        // The body may be chunked: the JSON object is the text between the outermost braces.
        let json = body.find('{').zip(body.rfind('}')).map(|(from, to)| &body[from..=to]);
        let json: serde_json::Value =
            serde_json::from_str(json.unwrap_or_default()).unwrap_or_else(|error| panic!("{error}: {body}"));
        assert_eq!(json["status"], "success", "{query}: {json}");
        let result = json["data"]["result"].as_array().expect("a vector");
        assert!(result.len() <= 1, "{query} has several values: {json}");
        result.first()?["value"][1].as_str()?.parse().ok()
    }

    fn wait_for(&self, query: &str, expected: f64) {
        let mut last = None;
        let end = std::time::Instant::now() + tcptrace_tests::speed::limit();
        while std::time::Instant::now() < end {
            last = self.value(query);
            if last == Some(expected) {
                return;
            }
            wait::pause(Duration::from_millis(100));
        }
        panic!("{query} is {last:?}, not {expected}");
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[rstest]
#[case::classic(false)]
#[case::native(true)]
fn prometheus_queries_return_the_traffic(#[case] native: bool) {
    let relay = Relay::new(|segment| match (segment.direction, segment.kind) {
        (Direction::ToServer, SegmentKind::Ack) => Verdict::Delay(Duration::from_millis(80)),
        _ => Verdict::Pass,
    });
    let namespace = &relay.server;
    let daemon = Daemon::start(namespace, &[]);
    let folder = tempfile::tempdir().unwrap();
    let prometheus = Prometheus::start(folder.path(), &daemon, native);

    // Churn over IPv6 within the namespace; delayed handshakes over IPv4 from the client's namespace.
    let listener = namespace.run("server", || sockets::listen(&format!("{SERVER}:5000")));
    let to = sockets::address(&format!("{SERVER}:5000"));
    let mut delayed = Vec::new();
    for round in 0..100 {
        let Pair { client, server, listener: _listener } = sockets::pair(namespace, "[::1]:0");
        if round % 2 == 0 {
            sockets::reset_on_close(&client);
            drop(client);
            sockets::wait_for_error(&server);
        } else {
            drop(client);
            sockets::wait_for_end(&server);
        }
        if round % 10 == 0 {
            let client = relay.client.run("client", || sockets::connect(to));
            delayed.push((client, sockets::accept(&listener)));
        }
    }
    let held: Vec<Pair> = (0..7).map(|_| sockets::pair(namespace, "[::1]:0")).collect();

    let established =
        |role: &str| format!("sum(tcptrace_handshakes_total{{role=\"{role}\",result=\"established\"}})");
    prometheus.wait_for(&established("server"), 117.0);
    prometheus.wait_for(&established("client"), 107.0);
    prometheus.wait_for("sum(tcptrace_connections_closed_total)", 200.0);
    prometheus.wait_for("sum(tcptrace_connections_closed_total{reason=\"aborted\"})", 50.0);
    prometheus.wait_for("sum(tcptrace_connections_closed_total{reason=\"reset_by_peer\"})", 50.0);
    prometheus.wait_for("sum(tcptrace_events_lost_total{where!=\"kernel\"})", 0.0);
    prometheus.wait_for("tcptrace_connections{state=\"established\"}", ss(namespace, "established").into());
    // The kernel does not report when a timewait socket changes from FIN_WAIT2 to TIME_WAIT.
    let timewait_sockets = ss(namespace, "time-wait") + ss(namespace, "fin-wait-2");
    prometheus
        .wait_for("sum(tcptrace_connections{state=~\"time_wait|fin_wait_2\"})", timewait_sockets.into());
    assert!(ss(namespace, "established") >= 24);

    let name = "tcptrace_handshake_duration_seconds";
    let labels = "{role=\"server\",network_type=\"ipv4\"}";
    let (quantile, count) = if native {
        (format!("histogram_quantile(0.99, {name}{labels})"), format!("histogram_count({name}{labels})"))
    } else {
        (format!("histogram_quantile(0.99, {name}_bucket{labels})"), format!("{name}_count{labels}"))
    };
    prometheus.wait_for(&count, 10.0);
    let p99 = prometheus.value(&quantile).unwrap();
    // The bucket of 80 ms, or the next one on a busy host.
    assert!((0.05..=0.15).contains(&p99), "{p99}");
    if !native {
        prometheus
            .wait_for(&format!("{name}_bucket{{role=\"server\",network_type=\"ipv4\",le=\"0.05\"}}"), 0.0);
    }
    drop((held, delayed));
}

#[test]
fn promtool_accepts_the_metrics() {
    let namespace = Namespace::new();
    let daemon = Daemon::start(&namespace, &["--label", "process"]);
    drop(sockets::pair(&namespace, "127.0.0.1:0"));
    daemon.wait_for("tcptrace_connections_tracked", 0.0);
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("promtool cannot start: {error}"));
    promtool.stdin.take().unwrap().write_all(daemon.page().as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && text.trim().is_empty(), "{text}");
}
