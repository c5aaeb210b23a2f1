//! `handshakes --join`: two namespaces as two hosts, a router between them that loses segments, and a recording of each.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use socket2::Socket;
use tcptrace_bpf::{
    host::{CgroupResolver, RecordedCgroups},
    recording::Writer,
    sources::recording::{Reader, RowContent, Rows},
};
use tcptrace_tests::{
    Join, JoinedHandshake, Namespace, Tracer, namespace::Inhabitant, program, sockets, speed,
    tracer::TracerOutput,
};
use tempfile::TempDir;
use tracer_core::event::{Event, Netns, SourceCounts};

const CLIENT: &str = "10.71.1.2";
const ROUTER: &str = "10.71.1.1";
const SERVER: &str = "10.71.2.2";

/// Ports of the server, and what happens to connections to them.
const PLAIN: u16 = 5000;
const SYN: u16 = 5001;
const SYN_ACK: u16 = 5002;
const ACK: u16 = 5003;
const NO_SYN: u16 = 5004;
const NO_SYN_ACK: u16 = 5005;
const FILTERED: u16 = 5006;
const CLOSED: u16 = 5007;
/// The router translates this port to [`PLAIN`], and the client's address.
const TRANSLATED: u16 = 6000;

/// What the router drops. `limit` passes one packet and counts the others.
const ROUTER_RULES: &str = "
    tcp dport 5001 tcp flags & (syn | ack) == syn limit rate 1/hour burst 1 packets drop
    tcp sport 5002 tcp flags & (syn | ack) == (syn | ack) limit rate 1/hour burst 1 packets drop
    tcp dport 5003 tcp flags & (syn | ack) == ack limit rate 1/hour burst 1 packets drop
    tcp dport 5004 drop
    tcp sport 5005 drop";

/// Two hosts and a router between them.
struct Hosts {
    client: Namespace,
    router: Namespace,
    server: Namespace,
    _inhabitants: [Inhabitant; 3],
}

impl Hosts {
    fn new() -> Self {
        let router = Namespace::new();
        let (client, server) = (router.beside(), router.beside());
        let inhabitants = [client.inhabit(), router.inhabit(), server.inhabit()];
        let [client_pid, _, server_pid] = inhabitants.each_ref().map(Inhabitant::id);
        router.sysctl("net.ipv4.ip_forward", "1");
        for (host, network, pid) in [(&client, 1, client_pid), (&server, 2, server_pid)] {
            router.ip(&format!("link add net{network} type veth peer name eth0 netns {pid}"));
            router.ip(&format!("addr add 10.71.{network}.1/24 dev net{network}"));
            router.ip(&format!("link set net{network} up"));
            host.ip(&format!("addr add 10.71.{network}.2/24 dev eth0"));
            host.ip("link set eth0 up");
            host.ip(&format!("route add default via 10.71.{network}.1"));
            // A SYN is sent again after 1 s, and the connection fails after 3 s.
            host.sysctl("net.ipv4.tcp_syn_retries", "1");
            host.sysctl_if_there("net.ipv4.tcp_syn_linear_timeouts", "0");
        }
        router.filter("forward", ROUTER_RULES);
        router.command(
            "nft",
            &["add table ip translation; \
               add chain ip translation before { type nat hook prerouting priority -100; }; \
               add chain ip translation after { type nat hook postrouting priority 100; }; \
               add rule ip translation before tcp dport 6000 dnat to 10.71.2.2:5000; \
               add rule ip translation after ct status dnat masquerade"],
        );
        server.filter("input", "tcp dport 5006 limit rate 1/hour burst 1 packets drop");
        Self { client, router, server, _inhabitants: inhabitants }
    }

    fn listen(&self, port: u16) -> Socket {
        self.server.run("server", || sockets::listen(&format!("{SERVER}:{port}")))
    }

    /// Connects, and returns when both ends are connected. Neither sends data.
    fn connect(&self, listener: &Socket, to: &str) -> (Socket, Socket) {
        let client = self.client.run("client", || sockets::connect(sockets::address(to)));
        (client, sockets::accept(listener))
    }

    fn fail(&self, port: u16, error: i32) {
        let to = sockets::address(&format!("{SERVER}:{port}"));
        let failed = self.client.run("client", || sockets::try_connect(to)).unwrap_err();
        assert_eq!(failed.raw_os_error(), Some(error), "{port}: {failed}");
    }
}

fn record(file: &Path) -> Tracer {
    Tracer::start(["record", file.to_str().unwrap(), "--mode", "btf", "--duration", "10m"])
}

/// Copies what a recording of the whole machine has of one namespace, as if that was a host: with a name and a run of its own,
/// and a clock that is ahead. Returns the offset of its clock from the monotonic one.
fn only(namespace: &Namespace, name: &str, from: &Path, to: &Path, ahead_ns: i128) -> i128 {
    let mut reader = Reader::new(BufReader::new(File::open(from).unwrap())).unwrap();
    let clock = reader.header().clock;
    let mut header = reader.header().clone();
    name.clone_into(&mut header.host.name);
    name.clone_into(&mut header.run);
    header.clock.to_utc_ns += ahead_ns;
    let (cgroups, mut counts) = (RecordedCgroups::default(), SourceCounts::default());
    let mut resolver = CgroupResolver::recorded(cgroups.clone());
    let mut writer = Writer::new(File::create(to).unwrap(), &header).unwrap();
    while let Some(batch) = reader.next_batch().unwrap() {
        let mut rows = Rows::new(&batch, clock, name).unwrap();
        for row in 0..rows.len() {
            match rows.content(row, &cgroups) {
                RowContent::Event(event) if is_of(&event, Netns(namespace.inode())) => {
                    writer.event(&event, &mut resolver).unwrap();
                }
                RowContent::Event(_) => {}
                RowContent::Counts(of_file) => counts = of_file,
                RowContent::Unknown => panic!("row {row} is unknown"),
            }
        }
    }
    writer.finish(&counts, &mut resolver).unwrap();
    header.clock.to_utc_ns
}

fn is_of(event: &Event, wanted: Netns) -> bool {
    let netns = match event {
        Event::Transition(event) => event.netns,
        Event::Existing(event) => event.netns,
        Event::SynAckRetransmit(event) => event.netns,
        Event::ResetSent(event) => event.netns,
        Event::SegmentDropped(event) => event.netns,
        Event::DumpEnd { .. } | Event::Time(_) => return true,
        _ => None,
    };
    netns == Some(wanted)
}

/// The recordings of the two hosts.
struct Recordings {
    folder: TempDir,
    /// How far the server's clock is ahead of the client's, microseconds.
    ahead_us: f64,
}

impl Recordings {
    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn join(&self, input: &str, join: &str, options: &[&str]) -> TracerOutput {
        let (input, join) = (self.file(input), self.file(join));
        let fixed = ["handshakes", "--input", input.to_str().unwrap(), "--join", join.to_str().unwrap()];
        let ended = Tracer::start_unready(fixed.iter().chain(options)).wait_for_exit();
        assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
        ended
    }
}

/// Makes a connection of each kind, and records both hosts with a recorder for each.
fn recordings(ahead_ns: i128) -> Recordings {
    let hosts = Hosts::new();
    let folder = tempfile::tempdir().unwrap();
    let whole = ["client.whole", "server.whole"].map(|name| folder.path().join(name));
    let recorders = [record(&whole[0]), record(&whole[1])];
    let mut open = Vec::new();
    for port in [PLAIN, SYN, SYN_ACK, ACK, FILTERED] {
        let listener = hosts.listen(port);
        open.push(hosts.connect(&listener, &format!("{SERVER}:{port}")));
        if port == PLAIN {
            open.push(hosts.connect(&listener, &format!("{ROUTER}:{TRANSLATED}")));
        }
    }
    let _silent = [hosts.listen(NO_SYN), hosts.listen(NO_SYN_ACK)];
    hosts.fail(NO_SYN, libc::ETIMEDOUT);
    hosts.fail(NO_SYN_ACK, libc::ETIMEDOUT);
    hosts.fail(CLOSED, libc::ECONNREFUSED);
    for recorder in recorders {
        recorder.interrupt();
    }
    let client = only(&hosts.client, "client-host", &whole[0], &folder.path().join("client"), 0);
    let server = only(&hosts.server, "server-host", &whole[1], &folder.path().join("server"), ahead_ns);
    drop(hosts.router);
    #[expect(clippy::cast_precision_loss, reason = "below a second")]
    let ahead_us = (server - client) as f64 / 1000.0;
    Recordings { folder, ahead_us }
}

/// Splits the rows of a join.
fn rows(output: &TracerOutput) -> (Join, Vec<JoinedHandshake>) {
    let rows: Vec<serde_json::Value> = output.rows();
    let (first, others) = rows.split_first().unwrap();
    let others = others.iter().map(|row| serde_json::from_value(row.clone()).unwrap());
    (serde_json::from_value(first.clone()).unwrap(), others.collect())
}

fn to(rows: &[JoinedHandshake], port: u16) -> &JoinedHandshake {
    let mut found = rows.iter().filter(|row| row.server_port == Some(port));
    let row = found.next().unwrap_or_else(|| panic!("no row of port {port}: {rows:#?}"));
    assert!(found.next().is_none(), "{rows:#?}");
    row
}

fn lost(row: &JoinedHandshake) -> (Option<u32>, Option<u32>, Option<u32>) {
    (row.lost_syns, row.lost_syn_acks, row.lost_acks)
}

#[test]
fn join_names_the_lost_segment() {
    let recordings = recordings(0);
    let output = recordings.join("client", "server", &["-o", "json", "--slowest", "20"]);
    let (join, rows) = rows(&output);
    assert_eq!((join.this_host.as_str(), join.other_host.as_str()), ("client-host", "server-host"));
    for (port, expected) in [
        (PLAIN, (Some(0), Some(0), Some(0))),
        (TRANSLATED, (Some(0), Some(0), Some(0))),
        (SYN, (Some(1), Some(0), Some(0))),
        (SYN_ACK, (Some(0), Some(1), Some(0))),
        (ACK, (Some(0), Some(0), Some(1))),
        (FILTERED, (Some(1), Some(0), Some(0))),
    ] {
        let row = to(&rows, port);
        assert_eq!(lost(row), expected, "{row:#?}");
        assert_eq!(row.matched_by.as_deref(), Some("sequence_numbers"));
        assert_eq!(
            (row.client_outcome.as_str(), row.server_outcome.as_deref()),
            ("established", Some("established"))
        );
        assert_eq!((row.client_host.as_str(), row.server_host.as_str()), ("client-host", "server-host"));
    }
    // A place is named only where the kernel reports every drop of the segment: before 5.17 it reports none, and without its
    // hook a full accept queue may have dropped the SYN.
    let drops = program::finds("hook drop");
    let place = |is_known| if is_known { " between the hosts" } else { "" };
    for (port, segment, place) in [
        (SYN, "SYN", place(drops && program::finds("hook accept_queue_full"))),
        (SYN_ACK, "SYN-ACK", place(drops)),
        (ACK, "ACK", place(drops)),
    ] {
        let row = to(&rows, port);
        assert!(row.story.ends_with(&format!("; 1 {segment} lost{place}")), "{row:#?}");
    }
    for (port, story) in [
        (PLAIN, "; nothing lost"),
        (NO_SYN, "timed out: no trace on the server's host"),
        (NO_SYN_ACK, "timed out, although the server answered; "),
    ] {
        let row = to(&rows, port);
        assert!(row.story.contains(story), "{row:#?}");
    }

    // The server's own rule.
    let filtered = to(&rows, FILTERED);
    assert_eq!(filtered.client_drops, []);
    if drops {
        let [drop] = &filtered.server_drops[..] else { panic!("{filtered:#?}") };
        assert_eq!((drop.segment.as_str(), drop.reason.as_str(), drop.count), ("syn", "netfilter_drop", 1));
        assert!(
            filtered.story.contains("1 SYN lost, dropped by the server's host (netfilter_drop in "),
            "{filtered:#?}"
        );
    } else {
        assert_eq!(filtered.server_drops, []);
        assert!(filtered.story.ends_with("; 1 SYN lost"), "{filtered:#?}");
    }

    // Behind the router the server sees other endpoints.
    let translated = to(&rows, TRANSLATED);
    assert_eq!(translated.server_address.as_deref(), Some(ROUTER));
    assert_eq!(
        (translated.server_address_at_server.as_deref(), translated.server_port_at_server),
        (Some(SERVER), Some(PLAIN))
    );
    assert_eq!(translated.client_address, CLIENT);
    assert_eq!(translated.client_address_at_server.as_deref(), Some("10.71.2.1"));

    // The client got no answer to its two SYNs; the server sent SYN-ACKs at 0, 1 and perhaps 3 s.
    let unanswered = to(&rows, NO_SYN_ACK);
    assert_eq!(unanswered.matched_by.as_deref(), Some("client_sequence_number"), "{unanswered:#?}");
    assert_eq!(
        (unanswered.client_outcome.as_str(), unanswered.server_outcome.as_deref()),
        ("timed_out", Some("abandoned"))
    );
    assert!(unanswered.lost_syn_acks.is_some_and(|count| count >= 1), "{unanswered:#?}");
    assert_eq!(unanswered.lost_acks, Some(0));
    let traceless = to(&rows, NO_SYN);
    assert_eq!((traceless.matched_by.as_deref(), traceless.server_outcome.as_deref()), (None, None));
    assert_eq!(lost(traceless), (None, None, None));

    let refused = to(&rows, CLOSED);
    if refused.matched_by.is_some() {
        assert_eq!((refused.matched_by.as_deref(), lost(refused).0), (Some("endpoints"), Some(0)));
        assert_eq!(refused.story, "refused: nobody listens");
    }

    assert_eq!((join.by_sequence_numbers, join.by_client_sequence_number), (6, 1));
    assert_eq!((join.with_loss, join.this_ambiguous, join.other_ambiguous), (5, 0, 0));
    assert_eq!((join.other_unmatched, join.this_handshakes), (0, 9));
    assert_offset(&join, recordings.ahead_us);
    for row in [to(&rows, PLAIN), translated] {
        let (Some(syn), Some(syn_ack), Some(within)) =
            (row.syn_us, row.syn_ack_us, row.one_way_uncertainty_us)
        else {
            // The sample is a whole number of milliseconds, as if it was a SYN cookie's.
            return speed::not_possible("the kernel's sample is ambiguous");
        };
        let client = row.client_us.unwrap();
        assert!((syn + syn_ack - client).abs() <= 2.0 * within + 3.0, "{row:#?}");
    }
}

fn assert_offset(join: &Join, ahead_us: f64) {
    let (offset, within) = (join.clock_offset_us.unwrap(), join.clock_offset_uncertainty_us.unwrap());
    assert!((offset - ahead_us).abs() <= within, "{offset} ± {within} is not {ahead_us}");
    assert_eq!(join.clock_contradictions, Some(0));
}

/// Whichever host the report is about, whatever its clock says, in every format.
#[test]
fn join_from_the_server_finds_the_same() {
    const AHEAD: i128 = 3_700_000_000_000;
    let recordings = recordings(AHEAD);
    assert!(recordings.ahead_us > 3_699e6, "{}", recordings.ahead_us);
    let options = ["-o", "json", "--slowest", "20"];
    let (forward, from_client) = rows(&recordings.join("client", "server", &options));
    let (backward, from_server) = rows(&recordings.join("server", "client", &options));
    assert_offset(&forward, recordings.ahead_us);
    assert_offset(&backward, -recordings.ahead_us);
    for row in &from_client {
        let same = to(&from_server, row.server_port.unwrap());
        assert_eq!((lost(row), &row.story, &row.matched_by), (lost(same), &same.story, &same.matched_by));
        assert_eq!(row.client_host, "client-host");
    }
    assert_eq!(from_client.len(), from_server.len());
    for port in [SYN, SYN_ACK, ACK] {
        assert_eq!(
            [lost(to(&from_client, port)).0, lost(to(&from_client, port)).1, lost(to(&from_client, port)).2]
                .iter()
                .flatten()
                .sum::<u32>(),
            1
        );
    }

    // Filters are about the host of `--input`, tables have the worst five.
    let (_, filtered) = rows(&recordings.join("client", "server", &["-o", "json", "--remote-port", "5001"]));
    assert_eq!(filtered.iter().map(|row| row.server_port).collect::<Vec<_>>(), [Some(SYN)]);
    let csv = recordings.join("client", "server", &["-o", "csv", "--slowest", "2"]);
    assert!(csv.text().starts_with("type,time,matched_by,") && csv.line_count() == 3, "{}", csv.text());
    for format in ["table", "wide"] {
        let table = recordings.join("client", "server", &["-o", format, "--time", "none"]);
        let text = table.text();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with("Handshakes with both ends, on client-host and on server-host: "),
            "{text}"
        );
        assert!(lines[0].ends_with("; with a lost segment: 5"), "{text}");
        assert!(
            lines[1].starts_with("Clock offset: server-host is 3") && lines[1].contains(" s ± "),
            "{text}"
        );
        assert!(lines[1].ends_with(" ahead of client-host"), "{text}");
        assert!(lines[2].starts_with("Without the other end: "), "{text}");
        assert_eq!(lines.len(), 10, "{text}");
    }
    let refused = |arguments: &[&str], part: &str| {
        let ended = Tracer::start_unready(arguments).wait_for_exit();
        assert!(!ended.status.success() && ended.stderr.contains(part), "{arguments:?}: {}", ended.stderr);
    };
    let client = recordings.file("client");
    let client = client.to_str().unwrap();
    refused(&["handshakes", "--join", client], "add --input");
    refused(&["handshakes", "-i", client, "--join", client], "are the same recording");
}
