//! The reference pages: checks, close reasons, owners, caveats, hooks, recordings, limits.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use tcptrace_bpf::{
    recording::{BATCH_ROWS, COLUMNS, Header, Kind},
    sources::live::Hook,
};
use tracer_core::{
    event::{Nanos, TcpState},
    lifecycle::{CloseReason, ClosedBy, HandshakeCaveat, Thresholds},
    owner::OwnerSource,
};

use crate::{
    markdown::{code, table},
    page::{names, read, row, section},
};

#[test]
fn the_documented_checks_match_doctor() {
    // Without privileges more checks fail, but the list of checks is the same.
    let output =
        Command::new(env!("CARGO_BIN_EXE_tcptrace-bpf")).args(["doctor", "-o", "json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let checks: Vec<serde_json::Map<String, serde_json::Value>> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();

    let fields = table(&section(&read("docs/output.md"), "`check`"), "field");
    for check in &checks {
        assert_eq!(check.keys().cloned().collect::<Vec<_>>(), names(&fields));
    }
    let documented = names(&table(&section(&read("docs/requirements.md"), "What `doctor` checks"), "name"));
    let found: Vec<&str> = checks.iter().map(|check| check["name"].as_str().unwrap()).collect();
    assert_eq!(documented, found);
}

#[test]
fn close_reasons_and_failures_are_documented() {
    let text = read("docs/close-reasons.md");
    let rows = table(&text, "reason");
    assert_eq!(names(&rows), CloseReason::ALL.map(CloseReason::name));
    for reason in CloseReason::ALL {
        let failure = if reason.is_failure() { "yes" } else { "no" };
        assert_eq!(row(&rows, reason.name())[1], failure, "{reason:?}");
    }
    let closers = [ClosedBy::Local, ClosedBy::Remote, ClosedBy::Both];
    for closer in closers {
        // A new variant fails to compile here; add it to the list above.
        match closer {
            ClosedBy::Local | ClosedBy::Remote | ClosedBy::Both => {}
        }
    }
    assert_eq!(names(&table(&text, "value")), closers.map(ClosedBy::name));
}

#[test]
fn owner_sources_are_documented() {
    let rows = table(&section(&read("docs/output.md"), "Owners"), "source");
    let documented: BTreeSet<String> = names(&rows).into_iter().collect();
    assert_eq!(documented, OwnerSource::ALL.map(|source| source.name().to_owned()).into());
}

#[test]
fn handshake_caveats_are_documented() {
    let caveats = [
        HandshakeCaveat::SynAckRetransmitted,
        HandshakeCaveat::RetransmitSchedule,
        HandshakeCaveat::SynCookie,
        HandshakeCaveat::FirstData,
        HandshakeCaveat::FastOpenDeferred,
    ];
    for caveat in caveats {
        match caveat {
            HandshakeCaveat::SynAckRetransmitted
            | HandshakeCaveat::RetransmitSchedule
            | HandshakeCaveat::SynCookie
            | HandshakeCaveat::FirstData
            | HandshakeCaveat::FastOpenDeferred => {}
        }
    }
    let rows = table(&section(&read("docs/handshake-durations.md"), "Caveats"), "caveat");
    assert_eq!(names(&rows), caveats.map(HandshakeCaveat::name));
}

#[test]
fn hooks_are_documented() {
    let text = section(&read("docs/modes.md"), "Additional hooks");
    let targets: Vec<String> =
        table(&text, "name in `doctor`").iter().flat_map(|row| code(&row[1])).collect();
    assert_eq!(targets, Hook::ALL.into_iter().flat_map(Hook::targets).collect::<Vec<_>>());
}

#[test]
fn the_recordings_page_matches_the_schema() {
    let text = read("docs/recordings.md");
    let documented = table(&section(&text, "Columns"), "column");
    assert_eq!(names(&documented), COLUMNS.map(|column| column.name));
    for (row, column) in documented.iter().zip(COLUMNS) {
        assert_eq!(row[1..], [column.kind.name(), column.unit, column.about], "{}", column.name);
    }
    assert_eq!(names(&table(&section(&text, "Kinds"), "kind")), Kind::ALL.map(Kind::name));
    assert_eq!(names(&table(&section(&text, "Metadata"), "key")), Header::KEYS);
    let rows = BATCH_ROWS.to_string();
    let (thousands, rest) = rows.split_at(rows.len() - 3);
    assert!(text.contains(&format!("{thousands},{rest} rows")), "{rows}");
}

#[test]
fn default_limits_of_stuck_are_documented() {
    let thresholds = Thresholds::default();
    let limited = |state: &TcpState| thresholds.of(*state).map(|limit| (state.name().to_owned(), limit));
    let expected: BTreeMap<String, Nanos> = TcpState::ALL.iter().filter_map(limited).collect();
    let mut documented = BTreeMap::new();
    for row in table(&read("docs/stuck.md"), "state") {
        let seconds: u64 = row[1].strip_suffix(" s").expect("a limit in seconds").parse().unwrap();
        documented.extend(code(&row[0]).into_iter().map(|state| (state, Nanos::from_secs(seconds))));
    }
    assert_eq!(documented, expected);
}
