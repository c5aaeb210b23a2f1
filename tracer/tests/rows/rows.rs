//! Compares the JSON and CSV of rows with what `serde_json` and the `csv` crate make of the same values.

use std::{fmt::Write as _, sync::Arc};

use proptest::prelude::*;
use serde_json::{Map, Value};
use tcptrace_bpf::{
    host::{Cgroup, CgroupOwner, OwnerNames, PodNames},
    report::{
        ConnectionRow, Fields, Format, Palette, Rfc3339, Row, Sink, TableStyle, TableWidth, TimeStyle,
        TransitionRow, ValueWriter,
    },
};
use tracer_core::{
    event::{ClockOffset, Event, HandshakeSegment, KernelName, SegmentDropped, TcpState, Timestamp},
    lifecycle::{ClosedBy, ClosedConnection, Observation, Reset, SegmentDrops, Tracker, TrackerOptions},
};
use tracer_core_testing::{
    generated::{arbitrary_transitions, lifecycle},
    script::{ScriptedSocket, at, error},
};

/// Collects the fields of a row as a JSON object.
#[derive(Default)]
struct Object {
    fields: Map<String, Value>,
    name: &'static str,
}

impl Object {
    fn of(row: &impl Fields) -> Value {
        let mut object = Self::default();
        row.write_fields(&mut object);
        Value::Object(object.fields)
    }

    fn insert(&mut self, value: impl Into<Value>) {
        self.fields.insert(self.name.to_owned(), value.into());
    }
}

impl ValueWriter for Object {
    fn field(&mut self, name: &'static str) {
        self.name = name;
    }

    fn null(&mut self) {
        self.insert(Value::Null);
    }

    fn bool(&mut self, value: bool) {
        self.insert(value);
    }

    fn integer(&mut self, value: u64) {
        self.insert(value);
    }

    fn float(&mut self, value: f64) {
        self.insert(value);
    }

    fn text(&mut self, value: &str) {
        self.insert(value);
    }

    fn time(&mut self, value: Rfc3339) {
        self.insert(value.to_string());
    }

    fn list<T: Fields>(&mut self, items: &[T]) {
        self.insert(items.iter().map(Object::of).collect::<Vec<_>>());
    }
}

/// Returns the CSV cell of a JSON value.
fn cell(value: &Value) -> String {
    let join = |cells: Vec<String>, separator| cells.join(separator);
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => join(items.iter().map(cell).collect(), " "),
        Value::Object(fields) => join(fields.values().map(cell).collect(), ":"),
        other => other.to_string(),
    }
}

/// Rows as the program writes them, and as they are expected.
#[derive(Default)]
struct Outputs {
    rows: usize,
    json: Vec<u8>,
    expected_json: String,
    csv: Vec<u8>,
    expected_csv: Vec<u8>,
}

impl Outputs {
    fn add<R: Row>(&mut self, row: &R) {
        self.rows += 1;
        for (format, bytes) in [(Format::Json, &mut self.json), (Format::Csv, &mut self.csv)] {
            Sink::new(bytes, format, TimeStyle::Utc).write(row).expect("a vector takes every row");
        }
        let object = Object::of(row);
        writeln!(self.expected_json, "{object}").expect("a string takes every row");
        let object = object.as_object().expect("a row is an object");
        let names: Vec<&str> = R::FIELDS.iter().map(|field| field.name).collect();
        assert_eq!(object.keys().collect::<Vec<_>>(), names);
        let mut writer = csv::Writer::from_writer(&mut self.expected_csv);
        writer.write_record(names).expect("a vector takes every row");
        writer.write_record(object.values().map(cell)).expect("a vector takes every row");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn json_and_csv_agree_with_reference_serializers(
        transitions in prop_oneof![arbitrary_transitions(), lifecycle(1)],
        to_utc_ns in prop_oneof![Just(1_795_000_000_000_000_000), any::<i64>()],
        path in ".{0,20}",
    ) {
        let clock = ClockOffset { to_utc_ns: i128::from(to_utc_ns) };
        let owner = CgroupOwner { unit: Some(path.clone()), ..CgroupOwner::default() };
        let names = OwnerNames::default();
        names.set_container("web".into());
        names.set_pod(Arc::new(PodNames::new("shop", "web-0", None, "node").unwrap()));
        let cgroup = Cgroup { path, owner, names };
        let mut tracker = Tracker::new(TrackerOptions::default());
        let mut outputs = Outputs::default();
        let count = transitions.len();
        for transition in transitions {
            tracker.observe(&Event::Transition(transition), &mut |observation| match observation {
                Observation::Transition { transition, connection, duration, .. } => {
                    outputs.add(&TransitionRow::new(transition, connection, duration, clock));
                }
                Observation::Closed(closed) => {
                    outputs.add(&ConnectionRow::new(&closed, Some(&cgroup), clock));
                    outputs.add(&ConnectionRow::new(&closed, None, clock));
                }
                _ => {}
            });
        }
        prop_assert!(outputs.rows >= count);
        prop_assert_eq!(String::from_utf8_lossy(&outputs.json), outputs.expected_json);
        prop_assert_eq!(
            String::from_utf8_lossy(&outputs.csv),
            String::from_utf8_lossy(&outputs.expected_csv)
        );
    }
}

#[test]
fn the_wide_table_says_why_a_connection_was_reset_and_what_was_dropped() {
    let clock = ClockOffset { to_utc_ns: 0 };
    let reset = Some(Reset { by: ClosedBy::Remote, reason: Some(KernelName::new(b"tcp_state")) });
    let end = at("192.0.2.1", 80);
    let mut drops = SegmentDrops::NONE;
    drops.add(&SegmentDropped {
        time: Timestamp(0),
        socket: None,
        source: end,
        destination: end,
        netns: None,
        segment: HandshakeSegment::Syn,
        reason: KernelName::new(b"netfilter_drop"),
        function: None,
    });
    let refused = ScriptedSocket::client(1).step(0, TcpState::SynSent).step(40, TcpState::Closed);
    let mut tracker = Tracker::new(TrackerOptions::default());
    let mut tables = Vec::new();
    for event in refused.flags(error(111)).events() {
        tracker.observe(&event, &mut |observation| {
            let Observation::Closed(closed) = observation else { return };
            for closed in [
                closed,
                ClosedConnection { reset, ..closed },
                ClosedConnection { drops: &drops, ..closed },
                ClosedConnection { reset, drops: &drops, ..closed },
            ] {
                let mut table = Vec::new();
                let row = ConnectionRow::new(&closed, None, clock);
                Sink::new(&mut table, Format::Wide, TimeStyle::None)
                    .write(&row)
                    .expect("a vector takes every row");
                tables.push(String::from_utf8(table).expect("rows are UTF-8"));
            }
        });
    }
    let dropped = "dropped here: 1 SYN, netfilter_drop";
    let whys = ["-", "tcp_state", dropped, &format!("tcp_state; {dropped}")];
    assert_eq!(tables.len(), whys.len());
    for (table, why) in tables.iter().zip(whys) {
        let before_states = table.rsplit_once(why).map(|(_, rest)| rest.trim_start());
        assert!(
            before_states.is_some_and(|states| states.starts_with("CLOSE") || states.starts_with("SYN_SENT")),
            "{table}"
        );
    }
}

#[test]
fn the_table_of_connections_fits_a_terminal_and_keeps_the_reason() {
    let clock = ClockOffset { to_utc_ns: 1_700_000_000_000_000_000 };
    let refused = ScriptedSocket::client(1).step(0, TcpState::SynSent).step(40, TcpState::Closed);
    let mut tracker = Tracker::new(TrackerOptions::default());
    let mut tables = Vec::new();
    for event in refused.flags(error(111)).events() {
        tracker.observe(&event, &mut |observation| {
            let Observation::Closed(closed) = observation else { return };
            for width in [40, 80, 120, 200] {
                let mut table = Vec::new();
                let style = TableStyle {
                    width: TableWidth::Fit(width),
                    time: TimeStyle::Utc,
                    palette: Palette::default(),
                };
                Sink::new(&mut table, Format::Table, TimeStyle::Utc)
                    .with_style(style)
                    .write(&ConnectionRow::new(&closed, None, clock))
                    .expect("a vector takes every row");
                tables.push((usize::from(width), String::from_utf8(table).expect("rows are UTF-8")));
            }
        });
    }
    assert_eq!(tables.len(), 4);
    for (width, table) in &tables {
        assert!(table.lines().all(|line| line.chars().count() <= *width), "{table}");
    }
    let titles =
        |index: usize| tables[index].1.lines().next().unwrap().split_whitespace().collect::<Vec<_>>();
    assert_eq!(titles(1), ["CLOSED", "PROCESS", "REMOTE", "HANDSHAKE", "REASON"]);
    assert_eq!(titles(2), ["CLOSED", "PROCESS", "LOCAL", "REMOTE", "HANDSHAKE", "DURATION", "REASON"]);
    assert_eq!(titles(3).len(), 11);
    assert!(tables[1].1.lines().nth(1).unwrap().ends_with("refused"), "{}", tables[1].1);
}

#[test]
fn only_tables_have_colors_and_a_failure_is_red() {
    let clock = ClockOffset { to_utc_ns: 1_700_000_000_000_000_000 };
    let refused = ScriptedSocket::client(1).step(0, TcpState::SynSent).step(40, TcpState::Closed);
    let mut tracker = Tracker::new(TrackerOptions::default());
    let mut written = Vec::new();
    for event in refused.flags(error(111)).events() {
        tracker.observe(&event, &mut |observation| {
            let Observation::Closed(closed) = observation else { return };
            for format in [Format::Table, Format::Wide, Format::Json, Format::Csv] {
                for width in [TableWidth::Standard, TableWidth::Wide, TableWidth::Fit(80)] {
                    let text = |palette| {
                        let mut text = Vec::new();
                        Sink::new(&mut text, format, TimeStyle::Utc)
                            .with_style(TableStyle { width, time: TimeStyle::Utc, palette })
                            .write(&ConnectionRow::new(&closed, None, clock))
                            .expect("a vector takes every row");
                        String::from_utf8(text).expect("rows are UTF-8")
                    };
                    written.push((format, text(Palette::default()), text(Palette::new(true))));
                }
            }
        });
    }
    assert_eq!(written.len(), 12);
    for (format, plain, colored) in written {
        if matches!(format, Format::Json | Format::Csv) {
            assert_eq!(colored, plain);
            continue;
        }
        assert!(!plain.contains('\u{1b}'), "{plain}");
        assert_eq!(anstream::adapter::strip_str(&colored).to_string(), plain);
        assert!(colored.starts_with("\u{1b}[1mCLOSED"), "{colored}");
        assert!(colored.contains("\u{1b}[31mrefused\u{1b}[0m"), "{colored}");
    }
}
