//! The state diagram.

use tcptrace_bpf::report::{DiagramSvg, Palette, TableStyle, write_diagram_text};
use tracer_core::{
    analysis::{LiveCounts, StateGraph},
    event::{
        Event, Nanos,
        TcpState::{
            self, CloseWait, Closed, Closing, Established, FinWait1, FinWait2, LastAck, Listen, SynReceived,
            SynSent, TimeWait,
        },
    },
    lifecycle::Tracker,
};

use crate::{
    attempts::{MS, SECOND},
    events::{host, observe, socket_events},
};

fn graph_of(events: &[Event]) -> (StateGraph, LiveCounts) {
    let mut graph = StateGraph::default();
    let tracker = observe(events, |observation| graph.observe(&observation));
    (graph, live(&tracker))
}

fn live(tracker: &Tracker) -> LiveCounts {
    let mut live = LiveCounts::default();
    for (_, connection) in tracker.connections() {
        live.add(connection.state(), 1);
    }
    live.add(TimeWait, tracker.timewait_counts().0 as u64);
    live
}

fn count(graph: &StateGraph, from: TcpState, to: TcpState) -> u64 {
    graph.edge((from, to)).map_or(0, |stats| stats.count)
}

#[test]
fn every_connection_counts_on_its_edges() {
    let (graph, live) = graph_of(&host());
    for (from, to, expected) in [
        (Closed, Listen, 1),
        (Closed, SynSent, 40 + 3 + 5 + 4 + 2 + 1 + 6 + 1),
        (SynSent, Established, 40 + 4 + 2 + 1 + 6),
        (SynSent, Closed, 3 + 5),
        (Listen, SynReceived, 22),
        (SynReceived, Established, 22),
        (Established, FinWait1, 40 + 2 + 1),
        (Established, CloseWait, 22),
        (Established, Closed, 4),
        (FinWait1, FinWait2, 40),
        (FinWait1, Closing, 2),
        (FinWait1, Closed, 1),
        (FinWait2, TimeWait, 40),
        (Closing, TimeWait, 2),
        (CloseWait, LastAck, 20),
        (LastAck, Closed, 20),
        // The kernel replaces the socket by a timewait socket: no edge to CLOSE.
        (FinWait2, Closed, 0),
        (Closing, Closed, 0),
    ] {
        assert_eq!(count(&graph, from, to), expected, "{from:?} to {to:?}");
    }
    assert_eq!(graph.edge((SynSent, Closed)).unwrap().failures, 8);
    assert_eq!(
        (live.of(Established), live.of(CloseWait), live.of(SynSent), live.of(TimeWait)),
        (6, 2, 1, 42)
    );
}

#[test]
fn durations_belong_to_the_state_left() {
    let (graph, _) = graph_of(&socket_events(
        7,
        Closed,
        &[(0, SynSent), (250 * MS, Established), (5 * SECOND, CloseWait)],
        0,
    ));
    let near = |time: Option<Nanos>, expected: u64| time.unwrap().0.abs_diff(expected) <= expected / 100;
    let edge = |from, to| graph.edge((from, to)).unwrap();
    assert_eq!(edge(Closed, SynSent).durations.count(), 0, "CLOSE has no duration");
    assert!(near(edge(SynSent, Established).durations.quantile(0.5), 250 * MS));
    assert!(near(graph.time_in(Established).quantile(0.5), 4_750 * MS));
    // A server's SYN_RECV lasts as long as the handshake, not the microseconds of the kernel's socket.
    let (server, _) = graph_of(&socket_events(8, Listen, &[(0, SynReceived), (9_000, Established)], 0));
    assert!(near(server.edge((SynReceived, Established)).unwrap().durations.quantile(0.5), 40 * MS));
}

#[test]
fn the_diagram_as_text() {
    let (graph, live) = graph_of(&host());
    let mut text = String::new();
    write_diagram_text(&mut text, &graph, &live, "2026-01-01T00:00:00Z, 10 s", TableStyle::default())
        .unwrap();
    insta::assert_snapshot!(text);
    let mut nothing = String::new();
    write_diagram_text(
        &mut nothing,
        &StateGraph::default(),
        &LiveCounts::default(),
        "",
        TableStyle::default(),
    )
    .unwrap();
    insta::assert_snapshot!("nothing", nothing);
    let mut colored = String::new();
    let style = TableStyle { palette: Palette::new(true), ..TableStyle::default() };
    write_diagram_text(&mut colored, &graph, &live, "2026-01-01T00:00:00Z, 10 s", style).unwrap();
    assert_eq!(anstream::adapter::strip_str(&colored).to_string(), text);
    assert!(colored.contains("\u{1b}[1mESTABLISHED\u{1b}[0m"), "{colored}");
}

#[test]
fn the_diagram_as_svg() {
    let (graph, live) = graph_of(&host());
    let svg = DiagramSvg { graph: &graph, live: &live, title: "web <1> & \u{7}" }.to_string();
    let again = graph_of(&host());
    assert_eq!(svg, DiagramSvg { graph: &again.0, live: &again.1, title: "web <1> & \u{7}" }.to_string());
    assert_well_formed(&svg);
    assert!(svg.contains("web &lt;1&gt; &amp; \u{fffd}</text>"));
    insta::assert_snapshot!(svg);
}

/// Asserts that every element is closed by its own end tag, and that texts are escaped.
fn assert_well_formed(svg: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = svg;
    while let Some(start) = rest.find('<') {
        let text = &rest[..start];
        assert!(!text.contains('>'), "{text}");
        for entity in text.split('&').skip(1) {
            assert!(["amp;", "lt;", "gt;", "quot;"].iter().any(|name| entity.starts_with(name)), "{entity}");
        }
        let end = rest[start..].find('>').map(|end| start + end).expect("a tag ends");
        let tag = &rest[start + 1..end];
        let name = tag.trim_matches('/').split_whitespace().next().unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "{tag}");
        } else {
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            if !tag.ends_with('/') {
                open.push(name);
            }
        }
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty() && rest.trim().is_empty(), "{open:?} {rest}");
}

/// Draws a diagram with the counts of the documented sample, and compares everything but the times.
#[test]
fn the_documented_sample_matches_the_diagram() {
    let mut socket = 0;
    let mut events = socket_events(1, Closed, &[(0, Listen)], 0);
    let mut add = |count: u64, first: TcpState, steps: &[(u64, TcpState)], error: u16| {
        for _ in 0..count {
            socket += 1;
            events.extend(socket_events(100 + socket, first, steps, error));
        }
    };
    let client = [(0, SynSent), (MS, Established)];
    let server = [(0, SynReceived), (MS, Established)];
    add(311, Closed, &[(0, SynSent), (MS, Closed)], 111);
    add(280, Closed, &[&client[..], &[(2 * MS, FinWait1), (3 * MS, FinWait2), (4 * MS, Closed)]].concat(), 0);
    add(31, Closed, &client, 0);
    add(280, Listen, &[&server[..], &[(2 * MS, CloseWait), (3 * MS, LastAck), (4 * MS, Closed)]].concat(), 0);
    add(31, Listen, &server, 0);
    // The listeners of the sample existed before tracing started.
    let (graph, _) = graph_of(&events[1..]);
    let mut live = LiveCounts::default();
    live.add(Established, 322);
    let mut drawn = String::new();
    write_diagram_text(&mut drawn, &graph, &live, "10.1 s: 3546 transitions", TableStyle::default()).unwrap();

    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/diagram.md");
    let page = std::fs::read_to_string(page).unwrap();
    let sample = page.split("```text\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    // The times are those of a real host.
    let counts = |text: &str| {
        let counted = text.lines().map(|line| {
            if line.contains("us ") || line.contains("ms ") {
                line.split_whitespace().take(5).collect::<Vec<_>>().join(" ")
            } else {
                line.trim_end().to_owned()
            }
        });
        counted.collect::<Vec<_>>()
    };
    assert_eq!(counts(sample), counts(&drawn));
}
