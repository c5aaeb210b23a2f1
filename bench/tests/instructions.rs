//! What an event costs in instructions, counted by callgrind: the same on every machine and at every load.
//!
//! The counts are of the profile that tests are built with, which optimises little; what matters is that they do not
//! grow unnoticed. One that has grown for a reason is recorded here anew, as is one that another compiler changed.

use std::{fs, path::Path, process::Command};

/// Instructions for each event, as recorded.
const BUDGETS: [(&str, u64); 5] = [
    ("core", 860),
    ("transitions-json", 6_582),
    ("connections-json", 4_434),
    ("transitions-table", 6_238),
    ("connections-table", 2_921),
];

/// How much of a budget a count may be above it.
const TOLERANCE_PERCENT: u64 = 5;

/// A multiple of the batches in which the replay takes in events.
const EVENTS: u64 = 2 * 16_384;

#[test]
fn an_event_takes_no_more_instructions_than_recorded() {
    let counts = BUDGETS.map(|(stage, _)| (stage, instructions(stage) / EVENTS));
    for ((stage, budget), (_, count)) in BUDGETS.into_iter().zip(counts) {
        assert!(
            count * 100 <= budget * (100 + TOLERANCE_PERCENT),
            "{stage}: {count} instructions for each event, {budget} are recorded; all counts: {counts:?}"
        );
    }
}

/// The instructions of one replay, without those that make its events.
fn instructions(stage: &str) -> u64 {
    let report = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("callgrind.{stage}"));
    let output = Command::new("valgrind")
        .args(["--quiet", "--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*replay*measured*"])
        .arg(format!("--callgrind-out-file={}", report.display()))
        .arg(env!("CARGO_BIN_EXE_tcptrace-bench"))
        .args(["replay", "--stage", stage, "--live", "1000", "--spacing", "5000"])
        .args(["--events", &EVENTS.to_string()])
        .output()
        .unwrap_or_else(|error| panic!("valgrind cannot start: {error}; `cargo xtask test` installs it"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = fs::read_to_string(&report).expect("callgrind writes its report");
    let total = text.lines().find_map(|line| line.strip_prefix("summary: "));
    let total = total.and_then(|total| total.trim().parse().ok());
    total.unwrap_or_else(|| panic!("callgrind's report {} has no summary", report.display()))
}
