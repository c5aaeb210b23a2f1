//! The overview of the page and its API, from events through the core.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use std::{collections::BTreeSet, fs, path::Path, sync::Arc, time::Duration};

use serde_json::{Map, Value};
use tcptrace_bpf::agent::{
    metrics::{Agent, Figures, PageFormat, Recorder, RecorderOptions, render},
    overview::{Facet, Inputs, OverviewRecorder, openapi, overview},
};
use tracer_core::{
    event::{AcceptQueue, ClockOffset, Event, SourceCounts, TcpState, Timestamp},
    lifecycle::{Thresholds, Tracker, TrackerOptions},
};
use tracer_core_testing::script::{SECOND, ScriptedSocket, at, process, time};

/// The core with both recorders, as on the tracing thread.
struct Harness {
    tracker: Tracker,
    metrics: Recorder,
    hour: OverviewRecorder,
    now: Timestamp,
    source: SourceCounts,
}

impl Harness {
    fn new() -> Self {
        Self {
            tracker: Tracker::new(TrackerOptions::default()),
            metrics: Recorder::new(RecorderOptions::default()),
            hour: OverviewRecorder::new(Thresholds::default()),
            now: time(0),
            source: SourceCounts { seen: 7, ..SourceCounts::ZERO },
        }
    }

    /// Takes the events of scripts in order of time, each as a batch.
    fn take(&mut self, scripts: impl IntoIterator<Item = ScriptedSocket>) {
        let mut events: Vec<Event> = scripts.into_iter().flat_map(|script| script.events()).collect();
        events.sort_by_key(Event::time);
        for event in &events {
            self.advance(event.time());
            self.metrics.event(event);
            let (metrics, hour) = (&mut self.metrics, &mut self.hour);
            self.tracker.observe(event, &mut |observation| {
                metrics.observe(&observation);
                hour.observe(&observation);
            });
        }
    }

    fn advance(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        self.metrics.advance(&self.tracker, self.now);
        self.hour.advance(&self.tracker, self.now);
    }

    /// Returns the document as JSON, and the metrics page of the same moment.
    fn document(&mut self, facet: Option<Facet>) -> (Value, String) {
        let snapshot = Arc::new(self.metrics.snapshot(&self.tracker, self.source, None, self.now));
        let hour = self.hour.snapshot(&self.tracker, self.now);
        let agent = Agent { mode: Some("btf"), kernel: "6.18.0".to_owned(), sees: Vec::new() };
        let figures = Figures { counts_age: Some(Duration::ZERO), ..Figures::default() };
        let clock = ClockOffset { to_utc_ns: 1_780_000_000_000_000_000 };
        let inputs = Inputs {
            hour: &hour,
            metrics: &snapshot,
            agent: &agent,
            figures: &figures,
            host: "node-1",
            clock,
        };
        let document = serde_json::to_value(overview(inputs, facet)).unwrap();
        let page = render(snapshot, &agent, figures, PageFormat::Text).unwrap();
        (document, String::from_utf8(page).unwrap())
    }

    fn everything(&mut self) -> Value {
        self.document(None).0
    }
}

/// A client's connection that stays open.
fn client(socket: u64, name: &str, remote: &str, from_us: u64, handshake_us: u64) -> ScriptedSocket {
    ScriptedSocket::client(socket)
        .step(from_us, TcpState::SynSent)
        .by(process(100, name))
        .step(from_us + handshake_us, TcpState::Established)
        .with_all(|transition| transition.remote = at(remote, 443))
}

fn find<'a>(list: &'a Value, key: &str, value: &str) -> &'a Value {
    list.as_array()
        .unwrap()
        .iter()
        .find(|it| it[key] == value)
        .unwrap_or_else(|| panic!("no {value} in {list}"))
}

fn edge<'a>(document: &'a Value, from: &str, to: &str) -> &'a Value {
    let edges = document["edges"].as_array().unwrap();
    edges.iter().find(|edge| edge["from"] == from && edge["to"] == to).unwrap()
}

#[test]
fn the_numbers_are_those_of_the_metrics() {
    let mut harness = Harness::new();
    harness.take((1..=3).map(|it| client(it, "curl", "192.0.2.1", it * SECOND, 40_000)));
    let (document, page) = harness.document(None);
    for edge in document["edges"].as_array().unwrap() {
        let (from, to) = (edge["from"].as_str().unwrap(), edge["to"].as_str().unwrap());
        let series = format!("tcptrace_transitions_total{{from=\"{from}\",to=\"{to}\"}} {}\n", edge["total"]);
        // A metric without a series has not been counted.
        assert!(page.contains(&series) || edge["total"] == 0, "{series}");
    }
    for state in document["states"].as_array().unwrap() {
        let name = state["state"].as_str().unwrap();
        let series = format!("tcptrace_connections{{state=\"{name}\"}} {}\n", state["connections"]);
        assert!(page.contains(&series), "{series}");
    }
    assert_eq!(edge(&document, "syn_sent", "established")["total"], 3);
    assert_eq!(edge(&document, "syn_sent", "established")["last_hour"], 3);
    assert_eq!(find(&document["states"], "state", "established")["connections"], 3);
}

#[test]
fn a_filter_selects_everything_by_process_remote_and_port() {
    let mut harness = Harness::new();
    harness.take([
        client(1, "curl", "192.0.2.1", SECOND, 40_000),
        client(2, "wget", "192.0.2.2", 2 * SECOND, 3_020_000),
        client(3, "wget", "192.0.2.1", 6 * SECOND, 1_000),
    ]);
    let mut counts = |kind: &str, value: &str| {
        let facet = Facet::of_query(&[(kind.to_owned(), value.to_owned())]).unwrap();
        let (document, _) = harness.document(facet);
        let established = find(&document["states"], "state", "established")["connections"].as_u64().unwrap();
        let groups: u64 =
            document["groups"].as_array().unwrap().iter().map(|group| group["count"].as_u64().unwrap()).sum();
        let slowest = document["slowest"].as_array().unwrap().len() as u64;
        let edges = edge(&document, "syn_sent", "established");
        assert_eq!(edges["total"], Value::Null, "totals are not counted by facet");
        [established, groups, slowest, edges["last_hour"].as_u64().unwrap()]
    };
    assert_eq!(counts("process", "wget"), [2; 4]);
    assert_eq!(counts("process", "curl"), [1; 4]);
    assert_eq!(counts("remote", "192.0.2.1"), [2; 4]);
    assert_eq!(counts("port", "443"), [3; 4]);
    assert_eq!(counts("port", "80"), [0; 4]);
}

#[test]
fn handshakes_are_in_their_minute_and_range_for_an_hour() {
    let mut harness = Harness::new();
    harness.take([client(1, "curl", "192.0.2.1", SECOND, 3_020_000)]);
    let rows = |document: &Value| -> Vec<(usize, usize)> {
        let minutes = document["handshakes"]["minutes"].as_array().unwrap();
        // The script begins soon after the boot.
        assert!(minutes.len() <= 60);
        let filled = minutes.iter().rev().enumerate().flat_map(|(ago, minute)| {
            let durations = minute["durations"].as_array().unwrap().iter().enumerate();
            durations.filter(|(_, count)| **count != 0).map(move |(row, _)| (ago, row)).collect::<Vec<_>>()
        });
        filled.collect()
    };
    let document = harness.everything();
    let three_seconds = document["handshakes"]["bounds_us"]
        .as_array()
        .unwrap()
        .iter()
        .position(|it| it == 3_000_000)
        .unwrap();
    assert!(document["handshakes"]["resend_steps_us"].as_array().unwrap().contains(&3_000_000.into()));
    assert_eq!(rows(&document), [(0, three_seconds)]);
    assert_eq!(document["slowest"][0]["duration_us"], 3_020_000.0);
    harness.advance(time(60 * 10 * SECOND));
    assert_eq!(rows(&harness.everything()), [(10, three_seconds)]);
    harness.advance(time(60 * 61 * SECOND));
    let document = harness.everything();
    assert_eq!(rows(&document), []);
    for list in ["slowest", "groups"] {
        assert_eq!(document[list], Value::Array(Vec::new()), "{list}");
    }
    let edge = edge(&document, "syn_sent", "established");
    assert_eq!((&edge["total"], &edge["last_hour"]), (&1.into(), &0.into()));
}

#[test]
fn stuck_connections_are_grouped_by_their_process() {
    let mut harness = Harness::new();
    let leaks = (1..=2).map(|it| {
        client(it, "leaky", "192.0.2.1", it * SECOND / 2, 1_000).step(it * SECOND, TcpState::CloseWait)
    });
    harness.take(leaks);
    harness.advance(time(2 * SECOND));
    assert_eq!(harness.everything()["stuck"]["count"], 0);
    harness.advance(time(90 * SECOND));
    let document = harness.everything();
    assert_eq!(document["stuck"]["count"], 2);
    let group = &document["stuck"]["groups"][0];
    assert_eq!((&group["process"], &group["count"]), (&"leaky".into(), &2.into()));
    assert_eq!(group["oldest_us"], 89_000_000.0);
    assert_eq!(find(&document["states"], "state", "close_wait")["stuck"], 2);
}

#[test]
fn listeners_have_their_processes_and_are_filtered_by_them() {
    let mut harness = Harness::new();
    harness.take([
        ScriptedSocket::listener(1, 0, Some(process(10, "nginx"))),
        ScriptedSocket::accepted(2)
            .with_all(|transition| transition.accept_queue = Some(AcceptQueue { length: 2, limit: 128 })),
    ]);
    let mut listeners = |query: Option<(&str, &str)>| {
        let query: Vec<_> =
            query.iter().map(|(kind, value)| ((*kind).to_owned(), (*value).to_owned())).collect();
        harness.document(Facet::of_query(&query).unwrap()).0["listeners"].clone()
    };
    let all = listeners(None);
    assert_eq!(all.as_array().unwrap().len(), 1, "{all}");
    assert_eq!((&all[0]["port"], &all[0]["peak"]), (&443.into(), &2.into()));
    assert_eq!(all[0]["processes"], serde_json::json!(["nginx"]));
    assert_eq!(listeners(Some(("process", "nginx"))), all);
    assert_eq!(listeners(Some(("port", "443"))), all);
    for other in [("process", "curl"), ("port", "80"), ("remote", "10.0.0.1")] {
        assert_eq!(listeners(Some(other)), Value::Array(Vec::new()), "{other:?}");
    }
}

#[test]
fn more_remotes_than_a_minute_counts_are_visible() {
    let mut harness = Harness::new();
    harness
        .take((0..1000).map(|it| {
            client(it + 1, "curl", &format!("10.1.{}.{}", it / 250, it % 250), SECOND + it, 1_000)
        }));
    let document = harness.everything();
    assert_eq!(
        document["handshakes"]["minutes"].as_array().unwrap().last().unwrap()["established"],
        1000,
        "the sum is exact"
    );
    assert!(document["unfiltered"].as_u64().unwrap() > 1000, "{}", document["unfiltered"]);
}

#[test]
fn losses_are_reported_in_words() {
    let mut harness = Harness::new();
    assert_eq!(harness.everything()["health"]["status"], "ok");
    harness.source.lost = 3;
    let document = harness.everything();
    assert_eq!(document["health"]["status"], "degraded");
    assert_eq!(
        document["health"]["notes"][0]["text"],
        "3 transitions were lost because the buffer was full."
    );
}

/// Compares a value with its schema: the same keys, and the declared types.
fn check(value: &Value, schema: &Value, schemas: &Map<String, Value>, at: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap();
        return check(value, &schemas[name], schemas, at);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let of_value = choices.iter().find(|it| value.is_null() == (it["type"] == "null")).unwrap();
        return check(value, of_value, schemas, at);
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let types = match &schema["type"] {
        Value::Array(types) => types.clone(),
        one => vec![one.clone()],
    };
    assert!(types.contains(&kind.into()), "{at}: {kind} is none of {types:?}");
    match value {
        Value::Object(fields) => {
            let declared = schema["properties"].as_object().unwrap();
            assert_eq!(
                fields.keys().collect::<BTreeSet<_>>(),
                declared.keys().collect::<BTreeSet<_>>(),
                "{at}"
            );
            assert_eq!(
                schema["required"].as_array().unwrap().len(),
                fields.len(),
                "{at}: every field is present"
            );
            for (name, field) in fields {
                assert!(
                    declared[name].to_string().contains("\"description\":"),
                    "{at}.{name} has no description"
                );
                check(field, &declared[name], schemas, &format!("{at}.{name}"));
            }
        }
        Value::Array(items) => {
            for item in items {
                check(item, &schema["items"], schemas, at);
            }
        }
        _ => {}
    }
}

#[test]
fn the_document_is_as_described() {
    let api: Value = serde_json::from_str(&openapi().unwrap()).unwrap();
    let schemas = api["components"]["schemas"].as_object().unwrap();
    let mut harness = Harness::new();
    let closed = client(1, "curl", "192.0.2.1", SECOND, 40_000);
    harness
        .take([closed, client(2, "leaky", "192.0.2.1", SECOND, 1_000).step(2 * SECOND, TcpState::CloseWait)]);
    harness.advance(time(90 * SECOND));
    for facet in [None, Some(Facet::Port(443))] {
        check(&harness.document(facet).0, &schemas["Overview"], schemas, "overview");
    }
}

/// Rewrites the file if `UPDATE_DOCS` is set.
#[test]
fn the_openapi_file_is_generated_from_the_document() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let generated = openapi().unwrap();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &generated).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == generated,
        "docs/openapi.json is out of date: run UPDATE_DOCS=1 cargo test -p tcptrace-bpf --test overview"
    );
}

/// The last transitions of a connection are counted, too.
#[test]
fn closed_connections_are_in_the_diagram_and_not_in_the_lists() {
    let mut harness = Harness::new();
    harness.take([client(1, "curl", "192.0.2.1", SECOND, 1_000)
        .step(2 * SECOND, TcpState::CloseWait)
        .step(3 * SECOND, TcpState::LastAck)
        .step(4 * SECOND, TcpState::Closed)]);
    let document = harness.everything();
    assert_eq!(edge(&document, "last_ack", "closed")["total"], 1);
    assert_eq!(document["processes"], Value::Array(Vec::new()));
}
