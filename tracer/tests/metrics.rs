//! The page of metrics, from events through the core: what was done is what is counted.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "core/script.rs"]
#[expect(dead_code, reason = "the scripts of the core's tests; these need a part of them")]
mod script;

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use script::{BOUND, Life, SECOND, at, error, fins, open, process, shut, time, transition};
use tcptrace_bpf::{
    event::{
        AcceptQueue, Event, MiniSocketEnd, SocketFlags, SourceCounts, SynAckRetransmit, TcpInfo, Timestamp,
    },
    lifecycle::{TcpState, Tracker, TrackerOptions},
    metrics::{
        Agent, CATALOG, Figures, Format, Kind, Label, LabelLimits, LabelSources, LiveQueues, ProcessFigures,
        Recorder, RecorderOptions, markdown, render,
    },
};

/// The core and the counts behind it.
struct Bench {
    tracker: Tracker,
    recorder: Recorder,
    now: Timestamp,
    queues: LiveQueues,
}

impl Bench {
    fn new(options: RecorderOptions) -> Self {
        Self {
            tracker: Tracker::new(TrackerOptions::default()),
            recorder: Recorder::new(options),
            now: time(0),
            queues: LiveQueues::default(),
        }
    }

    fn take(&mut self, event: &Event) {
        self.now = self.now.max(event.time());
        self.recorder.event(event);
        let recorder = &mut self.recorder;
        self.tracker.observe(event, &mut |observation| recorder.observe(&observation));
    }

    fn take_all(&mut self, events: &[Event]) {
        for event in events {
            self.take(event);
        }
    }

    fn page(&mut self, format: Format) -> Vec<u8> {
        let source =
            SourceCounts { lost: 3, skipped: Some(4), others_lost: 5, malformed: 6, ..Default::default() };
        self.recorder.advance(&self.tracker, self.now);
        let snapshot = self.recorder.snapshot(&self.tracker, source, Some(1_500_000_000), self.now);
        let agent = Agent { mode: Some("btf"), kernel: "6.18.0 \"x\"".to_owned() };
        let figures = Figures {
            process: ProcessFigures::read(SystemTime::now()),
            queues: self.queues.clone(),
            counts_age: Some(Duration::from_millis(250)),
        };
        render(Arc::new(snapshot), &agent, figures, format).unwrap()
    }

    fn text(&mut self) -> String {
        String::from_utf8(self.page(Format::Text)).unwrap()
    }
}

fn page_of(lives: impl IntoIterator<Item = Life>) -> String {
    let mut bench = Bench::new(RecorderOptions::default());
    let mut events: Vec<Event> = lives.into_iter().flat_map(|life| life.events()).collect();
    events.sort_by_key(Event::time);
    bench.take_all(&events);
    bench.text()
}

#[track_caller]
fn assert_lines(page: &str, lines: &[&str]) {
    for line in lines {
        let name = line.split([' ', '{']).next().unwrap();
        let near: Vec<&str> = page.lines().filter(|it| it.starts_with(name)).collect();
        assert!(near.contains(line), "no line `{line}` in\n{}", near.join("\n"));
    }
}

#[test]
fn lives_are_counted() {
    let curl = process(7, "curl");
    let bytes = TcpInfo { bytes_sent: 100, bytes_received: 2000, ..TcpInfo::default() };
    let client = Life::connected_client(1, curl)
        .info(TcpInfo { srtt_us: Some(190), retransmits: 0, ..TcpInfo::default() })
        .step(1_000, TcpState::FinWait1)
        .by(curl)
        .step(2_000, TcpState::FinWait2)
        .step(3_000, TcpState::Closed)
        .flags(fins())
        .info(bytes);
    let server = Life::accepted(2)
        .step(5_000, TcpState::CloseWait)
        .step(9_000, TcpState::LastAck)
        .step(9_500, TcpState::Closed)
        .flags(shut())
        .info(bytes);
    let lost_syn = Life::client(3)
        .step(0, TcpState::SynSent)
        .by(curl)
        .step(SECOND + 80_000, TcpState::Established)
        .info(TcpInfo { srtt_us: Some(79_000), retransmits: 1, ..TcpInfo::default() });
    let refused =
        Life::client(4).step(0, TcpState::SynSent).by(curl).step(50, TcpState::Closed).flags(error(111));
    let timed_out = Life::client(5)
        .step(0, TcpState::SynSent)
        .by(curl)
        .step(127 * SECOND, TcpState::Closed)
        .flags(error(110))
        .info(TcpInfo { retransmits: 6, ..TcpInfo::default() });
    let page = page_of([client, server, lost_syn, refused, timed_out]);
    assert_lines(
        &page,
        &[
            r#"tcptrace_handshakes_total{role="client",result="established"} 2"#,
            r#"tcptrace_handshakes_total{role="client",result="refused"} 1"#,
            r#"tcptrace_handshakes_total{role="client",result="timed_out"} 1"#,
            r#"tcptrace_handshakes_total{role="server",result="established"} 1"#,
            r#"tcptrace_handshakes_total{role="server",result="abandoned"} 0"#,
            r#"tcptrace_handshake_duration_seconds_bucket{role="client",network_type="ipv4",le="0.0001"} 0"#,
            r#"tcptrace_handshake_duration_seconds_bucket{role="client",network_type="ipv4",le="0.00025"} 1"#,
            r#"tcptrace_handshake_duration_seconds_bucket{role="client",network_type="ipv4",le="0.95"} 1"#,
            r#"tcptrace_handshake_duration_seconds_bucket{role="client",network_type="ipv4",le="1.5"} 2"#,
            r#"tcptrace_handshake_duration_seconds_bucket{role="client",network_type="ipv4",le="+Inf"} 2"#,
            r#"tcptrace_handshake_duration_seconds_count{role="server",network_type="ipv4"} 1"#,
            r#"tcptrace_handshake_duration_seconds_sum{role="server",network_type="ipv4"} 0.000523"#,
            r#"tcptrace_handshake_rtt_seconds_count{role="client"} 2"#,
            r#"tcptrace_handshake_rtt_seconds_bucket{role="client",le="0.1"} 2"#,
            r#"tcptrace_syn_retransmits_total{role="client"} 7"#,
            r#"tcptrace_state_duration_seconds_sum{state="close_wait"} 0.004"#,
            // The handshake, not the 10 µs of the kernel's SYN_RECV.
            r#"tcptrace_state_duration_seconds_sum{state="syn_received"} 0.000523"#,
            r#"tcptrace_state_duration_seconds_count{state="fin_wait_2"} 1"#,
            r#"tcptrace_state_duration_seconds_count{state="syn_sent"} 4"#,
            r#"tcptrace_transitions_total{from="closed",to="syn_sent"} 4"#,
            r#"tcptrace_transitions_total{from="fin_wait_1",to="fin_wait_2"} 1"#,
            r#"tcptrace_transitions_total{from="established",to="closed"} 0"#,
            r#"tcptrace_connection_duration_seconds_count{role="client"} 3"#,
            r#"tcptrace_connection_duration_seconds_count{role="server"} 1"#,
            r#"tcptrace_connections_closed_total{role="client",reason="closed"} 1"#,
            r#"tcptrace_connections_closed_total{role="server",reason="closed"} 1"#,
            r#"tcptrace_connections_closed_total{role="client",reason="refused"} 1"#,
            "tcptrace_bytes_sent_total 200",
            "tcptrace_bytes_received_total 4000",
            r#"tcptrace_connections{state="established"} 1"#,
            r#"tcptrace_connections{state="time_wait"} 0"#,
            r#"tcptrace_events_total{type="transition"} 16"#,
            r#"tcptrace_events_lost_total{where="ring"} 3"#,
            r#"tcptrace_events_lost_total{where="kernel"} 4"#,
            "tcptrace_connections_tracked 1",
            "tcptrace_connections_evicted_total 0",
            r#"tcptrace_mode_info{mode="btf",kernel="6.18.0 \"x\""} 1"#,
            "tcptrace_bpf_run_seconds_total 1.5",
        ],
    );
}

#[test]
fn a_servers_unknown_handshake_is_counted_and_has_no_duration() {
    let life = Life::server(1).step(0, TcpState::SynReceived).step(10, TcpState::Established);
    let page = page_of([life]);
    assert_lines(
        &page,
        &[
            r#"tcptrace_handshakes_total{role="server",result="established"} 1"#,
            r#"tcptrace_handshake_duration_seconds_count{role="server",network_type="ipv4"} 0"#,
            r#"tcptrace_state_duration_seconds_count{state="syn_received"} 0"#,
        ],
    );
}

#[test]
fn what_is_there_and_what_is_stuck() {
    let curl = process(7, "curl");
    let states = [TcpState::SynSent, TcpState::Established, TcpState::FinWait1, TcpState::CloseWait];
    let lives = states.iter().zip(1..).map(|(&state, socket)| Life::client_in(socket, curl, state));
    let listener = Life::listener(9, 0, Some(curl));
    let mut bench = Bench::new(RecorderOptions::default());
    for life in lives.chain([listener]) {
        bench.take_all(&life.events());
    }
    let established = r#"tcptrace_connections{state="established"} 1"#;
    assert_lines(
        &bench.text(),
        &[
            established,
            r#"tcptrace_connections{state="listen"} 1"#,
            r#"tcptrace_connections{state="close_wait"} 1"#,
            r#"tcptrace_connections{state="last_ack"} 0"#,
            r#"tcptrace_stuck_connections{state="syn_sent"} 0"#,
        ],
    );
    bench.take(&Event::Time(time(59 * SECOND)));
    assert_lines(
        &bench.text(),
        &[
            established,
            r#"tcptrace_stuck_connections{state="syn_sent"} 1"#,
            r#"tcptrace_stuck_connections{state="fin_wait_1"} 1"#,
            r#"tcptrace_stuck_connections{state="close_wait"} 0"#,
        ],
    );
    bench.take(&Event::Time(time(61 * SECOND)));
    let page = bench.text();
    assert_lines(&page, &[r#"tcptrace_stuck_connections{state="close_wait"} 1"#]);
    assert!(!page.contains(r#"tcptrace_stuck_connections{state="established"}"#));
}

#[test]
fn half_open_handshakes_accept_queues_and_what_remains() {
    let mut bench = Bench::new(RecorderOptions::default());
    let queue = AcceptQueue { length: 7, limit: 128 };
    let resent = SynAckRetransmit {
        time: time(SECOND),
        listener: tcptrace_bpf::event::SocketId(9),
        local: BOUND,
        remote: at("10.0.0.9", 1234),
        netns: None,
        attempts: 1,
        first_sent: None,
        accept_queue: Some(queue),
        acked: false,
    };
    bench.take(&Event::SynAckRetransmit(resent));
    bench.take(&Event::Time(time(10 * SECOND)));
    let client = Life::connected_client(1, process(7, "curl"))
        .step(700, TcpState::FinWait1)
        .step(800, TcpState::FinWait2)
        .step(900, TcpState::Closed)
        .flags(SocketFlags { attached: false, ..fins() });
    bench.take_all(&client.events());
    assert_lines(
        &bench.text(),
        &[
            r#"tcptrace_handshakes_total{role="server",result="abandoned"} 1"#,
            r#"tcptrace_syn_retransmits_total{role="server"} 1"#,
            r#"tcptrace_listener_accept_queue{port="443"} 7"#,
            r#"tcptrace_listener_accept_queue_limit{port="443"} 128"#,
            r#"tcptrace_listener_accept_queue_peak{port="443"} 7"#,
            "tcptrace_counts_age_seconds 0.25",
            r#"tcptrace_connections{state="time_wait"} 1"#,
            r#"tcptrace_state_duration_seconds_count{state="time_wait"} 0"#,
        ],
    );
    let end = MiniSocketEnd {
        time: time(60 * SECOND),
        state: TcpState::TimeWait,
        local: script::CLIENT,
        remote: script::SERVER,
        netns: Some(script::NETNS),
    };
    bench.take(&Event::MiniSocketEnd(end));
    assert_lines(
        &bench.text(),
        &[
            r#"tcptrace_connections{state="time_wait"} 0"#,
            r#"tcptrace_state_duration_seconds_count{state="time_wait"} 1"#,
            r#"tcptrace_state_duration_seconds_bucket{state="time_wait",le="30"} 0"#,
            r#"tcptrace_state_duration_seconds_bucket{state="time_wait",le="61"} 1"#,
        ],
    );
}

/// One arrival at a full queue, and then nothing more: neither the queue nor its peak stays.
#[test]
fn what_an_arrival_found_does_not_stand_for_the_queue_for_long() {
    let mut bench = Bench::new(RecorderOptions::default());
    let resent = SynAckRetransmit {
        time: time(SECOND),
        listener: tcptrace_bpf::event::SocketId(9),
        local: BOUND,
        remote: at("10.0.0.9", 1234),
        netns: Some(1),
        attempts: 1,
        first_sent: None,
        accept_queue: Some(AcceptQueue { length: 128, limit: 128 }),
        acked: false,
    };
    bench.take(&Event::SynAckRetransmit(resent));
    assert_lines(
        &bench.text(),
        &[
            r#"tcptrace_listener_accept_queue{port="443"} 128"#,
            r#"tcptrace_listener_accept_queue_peak{port="443"} 128"#,
        ],
    );
    for second in 1..=180 {
        bench.take(&Event::Time(time((1 + second) * SECOND)));
        bench.recorder.advance(&bench.tracker, bench.now);
    }
    let page = bench.text();
    assert_lines(&page, &[r#"tcptrace_listener_accept_queue_peak{port="443"} 0"#]);
    assert!(!page.contains("tcptrace_listener_accept_queue{"), "it is not known");
    // Who looks knows it, and full it is without another arrival.
    bench.queues.begin(Some(1));
    bench.queues.see(443, AcceptQueue { length: 5, limit: 4 });
    assert_lines(
        &bench.text(),
        &[
            r#"tcptrace_listener_accept_queue{port="443"} 5"#,
            r#"tcptrace_listener_accept_queue_limit{port="443"} 4"#,
            r#"tcptrace_listener_accept_queue_peak{port="443"} 0"#,
        ],
    );
}

/// With opt-in labels what belongs to nobody is in `~other`.
#[test]
fn the_sum_by_state_is_the_same_with_labels() {
    let curl = process(7, "curl");
    let listener = Life::listener(9, 0, Some(curl));
    let client = Life::connected_client(1, curl)
        .step(700, TcpState::FinWait1)
        .step(800, TcpState::FinWait2)
        .step(900, TcpState::Closed)
        .flags(SocketFlags { attached: false, ..fins() });
    let pages = [&[][..], &[(Label::Process, None)]].map(|labels| {
        let labels = LabelSources::new(labels).unwrap();
        let mut bench = Bench::new(RecorderOptions { labels, ..RecorderOptions::default() });
        for life in [&listener, &client] {
            bench.take_all(&life.events());
        }
        bench.text()
    });
    assert_lines(
        &pages[0],
        &[r#"tcptrace_connections{state="listen"} 1"#, r#"tcptrace_connections{state="time_wait"} 1"#],
    );
    assert_lines(
        &pages[1],
        &[
            r#"tcptrace_connections{state="listen",process="~other"} 1"#,
            r#"tcptrace_connections{state="time_wait",process="~other"} 1"#,
        ],
    );
}

/// A file that holds this text for as long as it lives.
fn list(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn opt_in_labels_say_whose_it_is() {
    let (networks, services) = (list("10.0.0.0/8 inside\n"), list("web 443\n"));
    let labels = LabelSources::new(&[
        (Label::LocalPort, None),
        (Label::Process, None),
        (Label::RemoteCidr, Some(networks.path().to_owned())),
        (Label::Service, Some(services.path().to_owned())),
    ])
    .unwrap();
    let mut bench = Bench::new(RecorderOptions { labels, ..RecorderOptions::default() });
    let listener = Life::listener(9, 0, Some(process(8, "n\"gi\\nx")));
    let client = Life::connected_client(1, process(7, "curl"));
    for life in [listener, Life::accepted(2), client] {
        bench.take_all(&life.events());
    }
    let page = bench.text();
    assert_lines(
        &page,
        &[
            r#"tcptrace_handshakes_total{role="client",result="established",process="curl",remote_cidr="inside",service="web"} 1"#,
            r#"tcptrace_handshakes_total{role="server",result="established",local_port="443",process="n\"gi\\\\nx",remote_cidr="inside",service="web"} 1"#,
            r#"tcptrace_connections{state="established",process="curl",remote_cidr="inside",service="web"} 1"#,
            r#"tcptrace_label_overflow_total{label="process"} 0"#,
            r#"tcptrace_label_overflow_total{label="series"} 0"#,
        ],
    );
    assert!(!page.contains(r#"result="refused""#), "only what was counted has a series");
}

/// A hostile crowd: a million peers, each of them new to every label that has a value of theirs.
#[test]
fn a_million_peers_take_no_more_room() {
    let networks: Vec<_> = (0..200).map(|index| format!("10.{}.{}.0/24", index / 20, index % 20)).collect();
    let services: Vec<_> = (1..200).map(|port| format!("service-{port} {port}")).collect();
    let (networks, services) = (list(&networks.join("\n")), list(&services.join("\n")));
    let mut requests: Vec<_> = Label::ALL.into_iter().map(|label| (label, None)).collect();
    requests[4].1 = Some(networks.path().to_owned());
    requests[5].1 = Some(services.path().to_owned());
    let labels = LabelSources::new(&requests).unwrap();
    let limits = LabelLimits { values: 1000, ..LabelLimits::default() };
    let mut bench = Bench::new(RecorderOptions { labels, limits, ..RecorderOptions::default() });
    let info = TcpInfo { srtt_us: Some(500), bytes_sent: 1, bytes_received: 1, ..TcpInfo::default() };
    for peer in 0..1_000_000_u32 {
        let [_, b, c, d] = peer.to_be_bytes();
        let remote = at(&format!("10.{b}.{c}.{d}"), 1024 + u16::try_from(peer % 60_000).unwrap());
        let local = at("192.0.2.1", 1 + u16::try_from(peer % 50_000).unwrap());
        let owner = process(peer, &format!("p{}", peer % 5000));
        let (socket, us) = (u64::from(peer), u64::from(peer) * 10);
        let mut step = |us, from, to| {
            let mut event = transition(socket, time(us), from, to);
            (event.local, event.remote, event.process) = (local, remote, Some(owner));
            (event.info, event.flags) = (Some(info), Some(open()));
            bench.take(&Event::Transition(event));
        };
        step(us, TcpState::Listen, TcpState::SynReceived);
        step(us + 1, TcpState::SynReceived, TcpState::Established);
        step(us + 2, TcpState::Established, TcpState::Closed);
        if peer % 250_000 == 0 {
            assert!(bench.page(Format::Text).len() < 1_000_000);
        }
    }
    for format in Format::ALL {
        let length = bench.page(format).len();
        assert!(length < 1_000_000, "{format:?}: {length}");
    }
    let page = bench.text();
    let overflow = |label: &str| -> u64 {
        let line = format!("tcptrace_label_overflow_total{{label=\"{label}\"}} ");
        page.lines().find_map(|it| it.strip_prefix(&line)).unwrap().parse().unwrap()
    };
    assert!(overflow("local_port") > 900_000 && overflow("series") > 0);
}

/// What the page has is what is declared, and the other way round.
#[test]
fn the_catalogue_is_the_page() {
    let page = page_of([Life::connected_client(1, process(7, "curl"))]);
    let shown: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let declared: Vec<String> = CATALOG.iter().map(tcptrace_bpf::metrics::Description::name).collect();
    assert_eq!(shown, declared);
    for description in CATALOG {
        let name = description.name();
        assert_eq!(name.ends_with("_total"), description.kind == Kind::Counter, "{name}");
        let help = format!("# HELP {name} {}", description.help);
        assert!(page.lines().any(|line| line == help), "{help}");
        assert!(description.help.ends_with('.') && !description.labels.contains(&"le"));
    }
    let series: BTreeSet<&str> = page
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.rsplit_once(' ').unwrap().0)
        .collect();
    let lines = page.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(series.len(), lines, "a series stands there twice");
}

#[test]
fn each_format_is_its_own() {
    let mut bench = Bench::new(RecorderOptions::default());
    let text = bench.text();
    assert!(text.contains("# TYPE tcptrace_handshakes_total counter\n"));
    let openmetrics = String::from_utf8(bench.page(Format::OpenMetrics)).unwrap();
    assert!(openmetrics.contains("# TYPE tcptrace_handshakes counter\n"));
    assert!(openmetrics.contains("# UNIT tcptrace_handshake_duration_seconds seconds\n"));
    assert!(openmetrics.ends_with("\n# EOF\n"));
    let protobuf = bench.page(Format::Protobuf);
    let name = b"tcptrace_handshake_duration_seconds";
    assert!(protobuf.windows(name.len()).any(|window| window == name));
}

#[test]
fn the_documentation_is_made_from_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, markdown()).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == markdown(),
        "docs/metrics.md is not what the code says: UPDATE_DOCS=1 cargo test -p tcptrace-bpf --test metrics"
    );
}
