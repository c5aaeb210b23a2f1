//! The metrics page, from events through the core and the recorder.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use std::{collections::BTreeSet, fs, path::Path, sync::Arc, time::Duration};

use tcptrace_bpf::{
    agent::metrics::{
        Agent, CATALOG, Figures, Label, LabelLimits, LabelSources, ListenerFigures, LiveQueues, MetricKind,
        Networks, PageFormat, PortDropCounter, ProcessFigures, Recorder, RecorderOptions, Services, markdown,
        render,
    },
    host::ListenDrops,
    sources::Coverage,
};
use tracer_core::{
    event::{
        AcceptQueue, Event, Micros, Nanos, Netns, SocketCookie, SocketFlags, SourceCounts, SynAckRetransmit,
        TcpInfo, TcpState, Timestamp, TimewaitEnd,
    },
    lifecycle::{Tracker, TrackerOptions},
};
use tracer_core_testing::script::{
    BOUND, SECOND, ScriptedSocket, at, error, fins, open, process, shut, time, transition,
};

/// The core, the recorder, and the listener dumps.
struct Harness {
    tracker: Tracker,
    recorder: Recorder,
    now: Timestamp,
    queues: LiveQueues,
    drops: PortDropCounter,
}

impl Harness {
    fn new(options: RecorderOptions) -> Self {
        Self {
            tracker: Tracker::new(TrackerOptions::default()),
            recorder: Recorder::new(options),
            now: time(0),
            queues: LiveQueues::default(),
            drops: PortDropCounter::default(),
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

    fn page(&mut self, format: PageFormat) -> Vec<u8> {
        let source =
            SourceCounts { lost: 3, skipped: Some(4), others_lost: 5, malformed: 6, ..Default::default() };
        self.recorder.advance(&self.tracker, self.now);
        let snapshot =
            self.recorder.snapshot(&self.tracker, source, Some(Nanos::from_millis(1_500)), self.now);
        let coverage = Coverage { omitted_processes: 7, truncated_cgroup_walks: 8, ..Coverage::default() };
        let snapshot = snapshot.with_coverage(coverage);
        let agent = Agent {
            mode: Some("btf"),
            kernel: "6.18.0 \"x\"".to_owned(),
            sees: vec![("pid", false), ("network", true)],
        };
        let figures = Figures {
            process: ProcessFigures {
                cpu_seconds: Some(1.5),
                resident_bytes: Some(40 << 20),
                virtual_bytes: Some(300 << 20),
                open_fds: Some(12),
                max_fds: Some(1024),
                start_seconds: Some(1.75e9),
            },
            listeners: ListenerFigures {
                queues: self.queues.clone(),
                drops: self.drops.copy(),
                causes: ListenDrops {
                    listen_overflows: Some(20),
                    listen_drops: Some(21),
                    syn_queue_full_drops: Some(0),
                    syn_cookies_sent: Some(22),
                    ..ListenDrops::default()
                },
            },
            counts_age: Some(Duration::from_millis(250)),
        };
        render(Arc::new(snapshot), &agent, figures, format).unwrap()
    }

    fn text(&mut self) -> String {
        String::from_utf8(self.page(PageFormat::Text)).unwrap()
    }
}

fn page_of(scripts: impl IntoIterator<Item = ScriptedSocket>) -> String {
    let mut harness = Harness::new(RecorderOptions::default());
    let mut events: Vec<Event> = scripts.into_iter().flat_map(|script| script.events()).collect();
    events.sort_by_key(Event::time);
    harness.take_all(&events);
    harness.text()
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
fn connections_are_counted() {
    let curl = process(7, "curl");
    let bytes = TcpInfo { bytes_sent: 100, bytes_received: 2000, ..TcpInfo::default() };
    let client = ScriptedSocket::connected_client(1, curl)
        .info(TcpInfo { srtt: Some(Micros(190)), retransmits: 0, ..TcpInfo::default() })
        .step(1_000, TcpState::FinWait1)
        .by(curl)
        .step(2_000, TcpState::FinWait2)
        .step(3_000, TcpState::Closed)
        .flags(fins())
        .info(bytes);
    let server = ScriptedSocket::accepted(2)
        .step(5_000, TcpState::CloseWait)
        .step(9_000, TcpState::LastAck)
        .step(9_500, TcpState::Closed)
        .flags(shut())
        .info(bytes);
    let lost_syn = ScriptedSocket::client(3)
        .step(0, TcpState::SynSent)
        .by(curl)
        .step(SECOND + 80_000, TcpState::Established)
        .info(TcpInfo { srtt: Some(Micros(79_000)), retransmits: 1, ..TcpInfo::default() });
    let refused = ScriptedSocket::client(4)
        .step(0, TcpState::SynSent)
        .by(curl)
        .step(50, TcpState::Closed)
        .flags(error(111));
    let timed_out = ScriptedSocket::client(5)
        .step(0, TcpState::SynSent)
        .by(curl)
        .step(127 * SECOND, TcpState::Closed)
        .flags(error(110))
        .info(TcpInfo { segments_sent: 7, retransmits: 6, ..TcpInfo::default() });
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
            // The duration of the handshake, not the 10 µs in the kernel's SYN_RECV.
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
fn a_server_handshake_of_unknown_duration_is_only_counted() {
    let script = ScriptedSocket::server(1).step(0, TcpState::SynReceived).step(10, TcpState::Established);
    let page = page_of([script]);
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
fn live_and_stuck_connections_are_counted_by_state() {
    let curl = process(7, "curl");
    let states = [TcpState::SynSent, TcpState::Established, TcpState::FinWait1, TcpState::CloseWait];
    let scripts =
        states.iter().zip(1..).map(|(&state, socket)| ScriptedSocket::client_in(socket, curl, state));
    let listener = ScriptedSocket::listener(9, 0, Some(curl));
    let mut harness = Harness::new(RecorderOptions::default());
    for script in scripts.chain([listener]) {
        harness.take_all(&script.events());
    }
    let established = r#"tcptrace_connections{state="established"} 1"#;
    assert_lines(
        &harness.text(),
        &[
            established,
            r#"tcptrace_connections{state="listen"} 1"#,
            r#"tcptrace_connections{state="close_wait"} 1"#,
            r#"tcptrace_connections{state="last_ack"} 0"#,
            r#"tcptrace_stuck_connections{state="syn_sent"} 0"#,
        ],
    );
    harness.take(&Event::Time(time(59 * SECOND)));
    assert_lines(
        &harness.text(),
        &[
            established,
            r#"tcptrace_stuck_connections{state="syn_sent"} 1"#,
            r#"tcptrace_stuck_connections{state="fin_wait_1"} 1"#,
            r#"tcptrace_stuck_connections{state="close_wait"} 0"#,
        ],
    );
    harness.take(&Event::Time(time(61 * SECOND)));
    let page = harness.text();
    assert_lines(&page, &[r#"tcptrace_stuck_connections{state="close_wait"} 1"#]);
    assert!(!page.contains(r#"tcptrace_stuck_connections{state="established"}"#));
}

#[test]
fn half_open_handshakes_accept_queues_and_timewait_sockets() {
    let mut harness = Harness::new(RecorderOptions::default());
    let queue = AcceptQueue { length: 7, limit: 128 };
    let resent = SynAckRetransmit {
        time: time(SECOND),
        listener: tracer_core::event::SocketId(9),
        local: BOUND,
        remote: at("10.0.0.9", 1234),
        netns: None,
        attempts: 1,
        first_sent: None,
        accept_queue: Some(queue),
        acked: false,
        sequences: None,
    };
    harness.take(&Event::SynAckRetransmit(resent));
    harness.take(&Event::Time(time(10 * SECOND)));
    let client = ScriptedSocket::connected_client(1, process(7, "curl"))
        .step(700, TcpState::FinWait1)
        .step(800, TcpState::FinWait2)
        .step(900, TcpState::Closed)
        .flags(SocketFlags { attached: false, ..fins() });
    harness.take_all(&client.events());
    assert_lines(
        &harness.text(),
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
    let end = TimewaitEnd {
        time: time(60 * SECOND),
        state: TcpState::TimeWait,
        local: tracer_core_testing::script::CLIENT,
        remote: tracer_core_testing::script::SERVER,
        netns: Some(tracer_core_testing::script::NETNS),
    };
    harness.take(&Event::TimewaitEnd(end));
    assert_lines(
        &harness.text(),
        &[
            r#"tcptrace_connections{state="time_wait"} 0"#,
            r#"tcptrace_state_duration_seconds_count{state="time_wait"} 1"#,
            r#"tcptrace_state_duration_seconds_bucket{state="time_wait",le="30"} 0"#,
            r#"tcptrace_state_duration_seconds_bucket{state="time_wait",le="61"} 1"#,
        ],
    );
}

/// After a single arrival at a full queue, neither the length nor the peak stays.
#[test]
fn the_queue_of_an_arrival_expires() {
    let mut harness = Harness::new(RecorderOptions::default());
    let resent = SynAckRetransmit {
        time: time(SECOND),
        listener: tracer_core::event::SocketId(9),
        local: BOUND,
        remote: at("10.0.0.9", 1234),
        netns: Some(Netns(1)),
        attempts: 1,
        first_sent: None,
        accept_queue: Some(AcceptQueue { length: 128, limit: 128 }),
        acked: false,
        sequences: None,
    };
    harness.take(&Event::SynAckRetransmit(resent));
    assert_lines(
        &harness.text(),
        &[
            r#"tcptrace_listener_accept_queue{port="443"} 128"#,
            r#"tcptrace_listener_accept_queue_peak{port="443"} 128"#,
        ],
    );
    for second in 1..=180 {
        harness.take(&Event::Time(time((1 + second) * SECOND)));
        harness.recorder.advance(&harness.tracker, harness.now);
    }
    let page = harness.text();
    assert_lines(&page, &[r#"tcptrace_listener_accept_queue_peak{port="443"} 0"#]);
    assert!(!page.contains("tcptrace_listener_accept_queue{"), "the length is unknown");
    // A dump shows the length, also without another arrival.
    harness.queues.begin(Some(Netns(1)));
    harness.queues.see(443, AcceptQueue { length: 5, limit: 4 });
    assert_lines(
        &harness.text(),
        &[
            r#"tcptrace_listener_accept_queue{port="443"} 5"#,
            r#"tcptrace_listener_accept_queue_limit{port="443"} 4"#,
            r#"tcptrace_listener_accept_queue_peak{port="443"} 0"#,
        ],
    );
}

/// The drops of a port outlast its listener; the causes belong to the network namespace.
#[test]
fn listener_drops_are_counted_by_port() {
    let mut harness = Harness::new(RecorderOptions::default());
    for (cookie, drops) in [(1, 500), (1, 503), (2, 0), (2, 4)] {
        harness.drops.begin();
        harness.drops.see(SocketCookie(cookie), 8443, drops);
        harness.drops.see(SocketCookie(9), 22, 0);
        harness.drops.end(true);
    }
    assert_lines(
        &harness.text(),
        &[
            r#"tcptrace_listener_drops_total{port="22"} 0"#,
            r#"tcptrace_listener_drops_total{port="8443"} 7"#,
            "tcptrace_listen_drops_total 21",
            "tcptrace_listen_overflows_total 20",
            "tcptrace_syn_queue_full_drops_total 0",
            "tcptrace_syn_cookies_sent_total 22",
            r#"tcptrace_label_overflow_total{label="port"} 0"#,
        ],
    );
    harness.drops.begin();
    for port in 1..=110 {
        harness.drops.see(SocketCookie(u64::from(port) + 1000), port, u32::from(port));
    }
    harness.drops.end(true);
    let page = harness.text();
    assert_eq!(page.lines().filter(|line| line.starts_with("tcptrace_listener_drops_total{")).count(), 100);
    // 8443 has drops, but no listener any more.
    assert_lines(
        &page,
        &[
            r#"tcptrace_label_overflow_total{label="port"} 11"#,
            r#"tcptrace_listener_drops_total{port="11"} 11"#,
            r#"tcptrace_listener_drops_total{port="110"} 110"#,
        ],
    );
}

/// With opt-in labels, sockets without an owner count as `~other`.
#[test]
fn the_sum_by_state_is_the_same_with_labels() {
    let curl = process(7, "curl");
    let listener = ScriptedSocket::listener(9, 0, Some(curl));
    let client = ScriptedSocket::connected_client(1, curl)
        .step(700, TcpState::FinWait1)
        .step(800, TcpState::FinWait2)
        .step(900, TcpState::Closed)
        .flags(SocketFlags { attached: false, ..fins() });
    let pages = [&[][..], &[Label::Process]].map(|labels| {
        let labels = LabelSources::new(labels);
        let mut harness = Harness::new(RecorderOptions { labels, ..RecorderOptions::default() });
        for script in [&listener, &client] {
            harness.take_all(&script.events());
        }
        harness.text()
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

#[test]
fn opt_in_labels_identify_the_owner() {
    let labels = LabelSources::new(&[Label::Service, Label::LocalPort, Label::Process, Label::RemoteCidr])
        .with_networks(Networks::parse("10.0.0.0/8 inside\n").unwrap())
        .with_services(Services::parse("web 443\n").unwrap());
    let mut harness = Harness::new(RecorderOptions { labels, ..RecorderOptions::default() });
    let listener = ScriptedSocket::listener(9, 0, Some(process(8, "n\"gi\\nx")));
    let client = ScriptedSocket::connected_client(1, process(7, "curl"));
    for script in [listener, ScriptedSocket::accepted(2), client] {
        harness.take_all(&script.events());
    }
    let page = harness.text();
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
    assert!(!page.contains(r#"result="refused""#), "only series with a count are shown");
}

/// A million peers, each with new values for the labels of the peer.
#[test]
fn a_million_peers_stay_within_the_page_limit() {
    let networks: Vec<_> = (0..200).map(|index| format!("10.{}.{}.0/24", index / 20, index % 20)).collect();
    let services: Vec<_> = (1..200).map(|port| format!("service-{port} {port}")).collect();
    let labels = LabelSources::new(&Label::ALL)
        .with_networks(Networks::parse(&networks.join("\n")).unwrap())
        .with_services(Services::parse(&services.join("\n")).unwrap());
    let limits = LabelLimits { values: 1000, ..LabelLimits::default() };
    let mut harness = Harness::new(RecorderOptions { labels, limits, ..RecorderOptions::default() });
    let info = TcpInfo { srtt: Some(Micros(500)), bytes_sent: 1, bytes_received: 1, ..TcpInfo::default() };
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
            harness.take(&Event::Transition(event));
        };
        step(us, TcpState::Listen, TcpState::SynReceived);
        step(us + 1, TcpState::SynReceived, TcpState::Established);
        step(us + 2, TcpState::Established, TcpState::Closed);
        if peer % 250_000 == 0 {
            assert!(harness.page(PageFormat::Text).len() < 1_000_000);
        }
    }
    for format in PageFormat::ALL {
        let length = harness.page(format).len();
        assert!(length < 1_000_000, "{format:?}: {length}");
    }
    let page = harness.text();
    let overflow = |label: &str| -> u64 {
        let line = format!("tcptrace_label_overflow_total{{label=\"{label}\"}} ");
        page.lines().find_map(|it| it.strip_prefix(&line)).unwrap().parse().unwrap()
    };
    assert!(overflow("local_port") > 900_000 && overflow("series") > 0);
}

#[test]
fn coverage_gaps_are_counted_by_kind() {
    let mut harness = Harness::new(RecorderOptions::default());
    harness.queues.fail();
    assert_lines(
        &harness.text(),
        &[
            r#"tcptrace_coverage_gaps{gap="unreadable_processes"} 0"#,
            r#"tcptrace_coverage_gaps{gap="omitted_processes"} 7"#,
            r#"tcptrace_coverage_gaps{gap="truncated_cgroup_walks"} 8"#,
            r#"tcptrace_coverage_gaps{gap="listener_dumps"} 1"#,
        ],
    );
}

#[test]
fn the_namespaces_that_hide_a_part_of_the_host_are_named() {
    let mut harness = Harness::new(RecorderOptions::default());
    let page = harness.text();
    assert_lines(
        &page,
        &[r#"tcptrace_host_visible{namespace="pid"} 0"#, r#"tcptrace_host_visible{namespace="network"} 1"#],
    );
    assert!(!page.contains(r#"namespace="cgroup""#), "it is unknown");
}

/// The page has exactly the declared metrics.
#[test]
fn the_page_matches_the_catalog() {
    let page = page_of([ScriptedSocket::connected_client(1, process(7, "curl"))]);
    let shown: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let declared: Vec<String> = CATALOG.iter().map(tcptrace_bpf::agent::metrics::Description::name).collect();
    assert_eq!(shown, declared);
    for description in CATALOG {
        let name = description.name();
        assert_eq!(name.ends_with("_total"), description.kind == MetricKind::Counter, "{name}");
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
    assert_eq!(series.len(), lines, "a series appears twice");
}

#[test]
fn each_format_has_its_syntax() {
    let mut harness = Harness::new(RecorderOptions::default());
    let text = harness.text();
    assert!(text.contains("# TYPE tcptrace_handshakes_total counter\n"));
    let openmetrics = String::from_utf8(harness.page(PageFormat::OpenMetrics)).unwrap();
    assert!(openmetrics.contains("# TYPE tcptrace_handshakes counter\n"));
    assert!(openmetrics.contains("# UNIT tcptrace_handshake_duration_seconds seconds\n"));
    assert!(openmetrics.ends_with("\n# EOF\n"));
    let protobuf = harness.page(PageFormat::Protobuf);
    let name = b"tcptrace_handshake_duration_seconds";
    assert!(protobuf.windows(name.len()).any(|window| window == name));
}

#[test]
fn the_documentation_is_generated_from_the_catalog() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, markdown()).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == markdown(),
        "docs/metrics.md is out of date: run UPDATE_DOCS=1 cargo test -p tcptrace-bpf --test metrics"
    );
}
