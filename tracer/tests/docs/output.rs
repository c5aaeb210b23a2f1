//! The output: fields, values, the summary and samples.

use std::fs;

use tcptrace_bpf::{
    host::Runtime,
    recording::COLUMNS,
    report::{
        ComparisonRow, ConnectionRow, DiagramEdgeRow, DiagramStateRow, Field, FieldKind, Fields as _, Format,
        GroupRow, HandshakeBucketRow, HandshakeGroupRow, JoinRow, JoinedHandshakeRow, ListenerDropsRow,
        ListenerRow, OpenConnectionRow, Row, ShiftRow, Sink, SlowHandshakeRow, StuckRow, Summary, TimeStyle,
        TransitionRow,
    },
    top::SavedView,
};
use tracer_core::{
    event::{Nanos, SourceCounts, TcpState},
    lifecycle::{Age, DurationSource, Role, TrackerCounts},
};

use crate::{
    markdown::{code, table},
    page::{heading, names, read, root, row, sample, section},
};

/// Sections of docs/output.md and the fields of their tables.
fn field_tables() -> [(&'static str, &'static [Field]); 26] {
    let states = ConnectionRow::FIELDS.iter().find_map(|field| match field.kind {
        FieldKind::List(fields) => Some(fields),
        _ => None,
    });
    let list = |name: &str| match SavedView::FIELDS.iter().find(|field| field.name == name).map(|it| it.kind)
    {
        Some(FieldKind::List(fields)) => fields,
        other => panic!("{name}: {other:?}"),
    };
    [
        ("`connection`", ConnectionRow::FIELDS),
        ("States", states.expect("a connection has states")),
        ("`transition`", TransitionRow::FIELDS),
        ("`open_connection`", OpenConnectionRow::FIELDS),
        ("`handshake_group`", HandshakeGroupRow::FIELDS),
        ("`handshake_slow`", SlowHandshakeRow::FIELDS),
        ("`handshake_bucket`", HandshakeBucketRow::FIELDS),
        ("`join`", JoinRow::FIELDS),
        ("`joined_handshake`", JoinedHandshakeRow::FIELDS),
        ("`comparison`", ComparisonRow::FIELDS),
        ("`shift`", ShiftRow::FIELDS),
        ("`diagram_edge`", DiagramEdgeRow::FIELDS),
        ("`diagram_state`", DiagramStateRow::FIELDS),
        ("`listener`", ListenerRow::FIELDS),
        ("`listener_drops`", ListenerDropsRow::FIELDS),
        ("`stuck_group`", GroupRow::FIELDS),
        ("`stuck`", StuckRow::FIELDS),
        ("`top`", SavedView::FIELDS),
        ("`tables`", list("tables")),
        ("`states`", list("states")),
        ("`edges`", list("edges")),
        ("`connections` and `stuck`", list("connections")),
        ("`owners`", list("owners")),
        ("`handshake_groups`", list("handshake_groups")),
        ("`handshake_slow` in `top`", list("handshake_slow")),
        ("`listeners`", list("listeners")),
    ]
}

/// Replaces the lines of the first table below a heading by the table of `fields`.
fn with_field_table(page: &str, title: &str, fields: &[Field]) -> String {
    let mut lines: Vec<String> = page.lines().map(str::to_owned).collect();
    let heading = lines.iter().position(|line| heading(line).is_some_and(|(_, it)| it == title));
    let heading = heading.unwrap_or_else(|| panic!("no heading `{title}`"));
    let start = heading + lines[heading..].iter().take_while(|line| !line.starts_with("| field |")).count();
    let length = lines[start..].iter().take_while(|line| line.starts_with('|')).count();
    let rows = fields.iter().map(|field| {
        let Field { name, kind, unit, meaning } = field;
        format!("| `{name}` | {} | {unit} | {meaning} |", kind.name()).replace("|  |", "| |")
    });
    let head = ["| field | type | unit | meaning |", "|---|---|---|---|"].map(str::to_owned);
    lines.splice(start..start + length, head.into_iter().chain(rows));
    lines.join("\n") + "\n"
}

/// Rewrites the tables if `UPDATE_DOCS` is set.
#[test]
fn field_tables_are_generated_from_the_rows() {
    let page = read("docs/output.md");
    let mut generated = page.clone();
    for (title, fields) in field_tables() {
        generated = with_field_table(&generated, title, fields);
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(root().join("docs/output.md"), generated).expect("the page can be written");
    } else {
        assert!(page == generated, "docs/output.md is out of date: UPDATE_DOCS=1 cargo test --test docs");
    }
}

#[test]
fn the_example_has_every_field() {
    let text = section(&read("docs/output.md"), "An example");
    let json = text.split("```").nth(1).and_then(|block| block.strip_prefix("json")).unwrap();
    let example: serde_json::Map<String, serde_json::Value> = serde_json::from_str(json).unwrap();
    let names: Vec<&str> = ConnectionRow::FIELDS.iter().map(|field| field.name).collect();
    assert_eq!(example.keys().collect::<Vec<_>>(), names);
}

#[test]
fn the_vocabulary_has_the_names_of_rows_and_recordings() {
    let names_of = |fields: &[Field]| fields.iter().map(|field| field.name).collect::<Vec<_>>();
    let columns = [
        names_of(ConnectionRow::FIELDS),
        names_of(TransitionRow::FIELDS),
        names_of(OpenConnectionRow::FIELDS),
        COLUMNS.iter().map(|column| column.name).collect(),
    ];
    let rows = table(&section(&read("docs/output.md"), "One vocabulary"), "meaning");
    for row in &rows {
        for (cell, known) in row[1..].iter().zip(&columns) {
            for name in code(cell) {
                assert!(known.contains(&name.as_str()), "{name} in the row {row:?}");
            }
        }
    }
    // A name that several of them have is the same thing in each, and so in one row.
    let shared = columns[3].iter().filter(|name| columns[..3].iter().any(|fields| fields.contains(name)));
    let listed: Vec<String> = rows.iter().flat_map(|row| code(&row[1..].join(" "))).collect();
    for name in shared {
        assert!(listed.iter().any(|it| it == name), "{name} is missing");
    }
}

#[test]
fn value_names_are_listed_at_their_field() {
    let roles = [Role::Client, Role::Server, Role::Simultaneous, Role::Unknown];
    for role in roles {
        match role {
            Role::Client | Role::Server | Role::Simultaneous | Role::Unknown => {}
        }
    }
    let sources = [DurationSource::Observed, DurationSource::Measured, DurationSource::Modelled];
    for source in sources {
        match source {
            DurationSource::Observed | DurationSource::Measured | DurationSource::Modelled => {}
        }
    }
    let runtimes = [
        Runtime::Docker,
        Runtime::Containerd,
        Runtime::CriO,
        Runtime::Podman,
        Runtime::Lxc,
        Runtime::Nspawn,
        Runtime::Unnamed,
    ];
    for runtime in runtimes {
        match runtime {
            Runtime::Docker
            | Runtime::Containerd
            | Runtime::CriO
            | Runtime::Podman
            | Runtime::Lxc
            | Runtime::Nspawn
            | Runtime::Unnamed => {}
        }
    }
    let text = read("docs/output.md");
    let connection = table(&section(&text, "`connection`"), "field");
    let stuck = table(&section(&text, "`stuck`"), "field");
    let span = table(&section(&text, "States"), "field");
    let listed = |rows: &[Vec<String>], field: &str| code(&row(rows, field)[3]);

    assert_eq!(listed(&connection, "role"), roles.map(Role::name));
    assert_eq!(listed(&connection, "handshake_source")[1..], sources.map(DurationSource::name));
    assert_eq!(listed(&connection, "container_runtime"), runtimes.map(Runtime::name));
    assert_eq!(
        listed(&stuck, "age_source"),
        [Age::Observed(Nanos::ZERO), Age::AtLeast(Nanos::ZERO)].map(Age::source)
    );
    let spans = listed(&span, "source");
    for source in sources {
        assert!(spans.iter().any(|name| name == source.name()), "{source:?} not in {spans:?}");
    }
    for state in TcpState::ALL {
        assert!(text.contains(&format!("`{}`", state.name())), "{state:?}");
    }
}

#[test]
fn every_part_of_the_summary_is_documented() {
    let source = SourceCounts {
        seen: 10,
        lost: 2,
        skipped: Some(3),
        others_lost: 4,
        resyncs: 5,
        malformed: 6,
        recovered: 7,
        duplicates: 8,
    };
    let tracker = TrackerCounts {
        transitions: 1,
        closed: 2,
        evicted: 3,
        unmatched: 4,
        gaps: 5,
        unseen_closes: 6,
        existing: 7,
        syn_ack_retransmits: 8,
        abandoned_handshakes: 9,
        unfollowed: 10,
        time_wait_reused: 11,
        inbound_refused: 12,
        segments_dropped: 13,
    };
    let summary = Summary { source, tracker, live: 6 }.to_string();
    let parts: Vec<&str> =
        summary.split(", ").map(|part| part.split_once(' ').expect("a number and a name").1).collect();
    let rows = table(&section(&read("docs/output.md"), "The summary"), "part");
    assert_eq!(names(&rows), parts);
}

/// Returns the header line of a table.
fn head<R: Row>(wide: bool) -> String {
    let mut written = Vec::new();
    let format = if wide { Format::Wide } else { Format::Table };
    Sink::new(&mut written, format, TimeStyle::Utc).begin::<R>().expect("a vector takes everything");
    String::from_utf8(written).expect("a table is text").trim_end().to_owned()
}

#[test]
fn samples_have_the_current_headers() {
    assert_eq!(sample("README.md")[0], head::<ConnectionRow>(false));
    assert_eq!(sample("docs/connections.md")[0], head::<ConnectionRow>(false));
    assert_eq!(sample("docs/transitions.md")[0], head::<TransitionRow>(false));
    assert_eq!(sample("docs/stuck.md")[0], head::<StuckRow>(false));
    assert!(sample("docs/compare.md").contains(&head::<ShiftRow<'_>>(false)));
    assert_eq!(sample("docs/listeners.md")[0], head::<ListenerRow>(false));
    // The page explains every column.
    for (page, head) in [
        ("docs/connections.md", head::<ConnectionRow>(false)),
        ("docs/transitions.md", head::<TransitionRow>(false)),
        ("docs/listeners.md", head::<ListenerRow>(false)),
    ] {
        let explained = names(&table(&read(page), "column"));
        let explained: Vec<&str> =
            explained.iter().flat_map(|name| name.split([',', ' '])).filter(|it| !it.is_empty()).collect();
        let written: Vec<&str> = head.split_whitespace().collect();
        assert_eq!(explained, written, "{page}");
    }
    // Every check is in the sample, marked `found` or `missing`.
    let checks = sample("docs/doctor.md");
    for name in names(&table(&section(&read("docs/requirements.md"), "What `doctor` checks"), "name")) {
        let reported = |line: &String| {
            ["found ", "missing "]
                .iter()
                .any(|word| line.strip_prefix(word).is_some_and(|rest| rest.trim_start().starts_with(&name)))
        };
        assert!(checks.iter().any(reported), "{name}");
    }
}
